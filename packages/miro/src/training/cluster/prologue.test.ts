import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { readPrologue } from "./prologue.js";

const folder = mkdtempSync(join(tmpdir(), "miro-prologue-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => vi.unstubAllEnvs());

function prologue(text: string | Uint8Array) {
  const path = join(folder, "modules.sh");
  writeFileSync(path, text);
  return () => readPrologue(path);
}

it("takes lines of any editor as bash reads them", () => {
  expect(prologue("module load cuda\r\nulimit -c 0")().text).toBe("module load cuda\nulimit -c 0\n");
});

it.each([
  ["a locale that is not installed", { LC_ALL: "xx_XX.UTF-8" }],
  ["a function of another bash", { "BASH_FUNC_module%%": "() { open" }],
  ["lines that are shown as they are read", { SHELLOPTS: "verbose" }],
  ["a file that is read first", { BASH_ENV: "open.sh" }],
])("takes lines that are right where the environment has %s", (_, environment) => {
  const path = join(folder, "open.sh");
  writeFileSync(path, "cat <<END\n");
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value === "open.sh" ? path : value);
  expect(prologue("module load cuda\n")().text).toBe("module load cuda\n");
  expect(prologue("if true; then\n")).toThrow(/no valid bash: line \d+: syntax error/);
});

it.each([
  ["if true; then\n", /no valid bash: line \d+: syntax error/],
  ["echo 'open\n", /no valid bash/],
  ["cat <<END\nopen\n", /no valid bash: .*here-document/],
  ["module load x\n#SBATCH --mem=1G\n", /modules\.sh:2: SLURM reads no directives here/],
  [new Uint8Array([0x65, 0xff]), /is not UTF-8 text/],
])("refuses %j, which would break the script or do nothing", (text, message) => {
  expect(prologue(text)).toThrow(message);
});
