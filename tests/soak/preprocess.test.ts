import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { contents, differences, runMiro } from "./kill-and-restart.js";

const root = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "miro-kill-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const raw = join(folder, "raw");
const command = (name: string) => [
  ...["preprocess", "--stage", "all", "--src", raw, "--model", root("models/miro-emoji"), "--no-vae-512", "--json"],
  ...["--scorers", "sharpness", "--csv-dir", join(folder, name, "scores"), "--dest", join(folder, name, "shards")],
];
const files = (name: string) => contents(join(folder, name, "scores"), join(folder, name, "shards"));
let wholeMs = 0;

beforeAll(async () => {
  const recipe = root("recipes/emoji-data.yaml");
  await runMiro(["render", recipe, "samples=12", "samples_per_shard=4", "--output", raw]);
  const whole = await runMiro(command("whole"));
  expect(whole).toMatchObject({ code: 0 });
  wholeMs = whole.ms;
});

it.each([0.3, 0.6, 0.9])(
  "killed after %d of its time and started again, leaves the bytes of an undisturbed run",
  async (part) => {
    const name = `killed-${part}`;
    await runMiro(command(name), { signal: "SIGKILL", afterMs: part * wholeMs });
    expect(await runMiro(command(name))).toMatchObject({ code: 0 });
    expect(differences(files("whole"), files(name))).toEqual([]);
  },
);

it("stops on Ctrl-C with 130, leaves no temporary file and no lock, and goes on when it is started again", async () => {
  const scores = join(folder, "stopped", "scores");
  const hasBegun = () => existsSync(scores) && readdirSync(scores).length > 0;
  const stopped = await runMiro(command("stopped"), { signal: "SIGINT", once: hasBegun });
  // A fast machine may finish before the signal arrives.
  expect([0, 130]).toContain(stopped.code);
  const begun = [scores, join(folder, "stopped", "shards")].filter((path) => existsSync(path));
  expect(Object.keys(contents(...begun)).filter((name) => /\/\./.test(name))).toEqual([]);
  expect(await runMiro(command("stopped"))).toMatchObject({ code: 0 });
  expect(differences(files("whole"), files("stopped"))).toEqual([]);
});

it("shares shards between two processes that are started together", async () => {
  const [one, two] = await Promise.all([runMiro(command("shared")), runMiro(command("shared"))]);
  expect(one.code === 0 || two.code === 0).toBe(true);
  expect(await runMiro(command("shared"))).toMatchObject({ code: 0 });
  expect(differences(files("whole"), files("shared"))).toEqual([]);
});
