import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import { tinyRecipeJson } from "../training/testing/tiny.js";
import { runCaptured } from "./testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-launch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => vi.unstubAllEnvs());

const recipe = join(folder, "tiny.yaml");
writeFileSync(recipe, JSON.stringify(tinyRecipeJson()));
const output = join(folder, "runs/tiny");

async function call(...args: string[]) {
  const { code, stdout: out, stderr: err } = await runCaptured("launch", ...args);
  return { code, out, err };
}

/** Puts an `sbatch` on the path that answers with some text and notes what it was given. */
function fakeSbatch(body: string): void {
  const bin = join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "sbatch"), `#!/bin/bash\n${body}\n`);
  chmodSync(join(bin, "sbatch"), 0o755);
  vi.stubEnv("PATH", `${bin}${delimiter}${process.env.PATH}`);
  vi.stubEnv("MIRO_SLURM_OUTPUT_DIR", join(folder, "logs"));
}

describe("miro launch", () => {
  it("--print shows the script, submits nothing and writes nothing", async () => {
    fakeSbatch(`touch ${folder}/submitted; echo 1`);
    const { code, out } = await call(recipe, "trainer.devices=2", "--partition", "cpu", "--output", output, "--print");
    expect(code).toBe(0);
    expect(out).toMatch(/^#!\/bin\/bash\n#SBATCH --job-name=tiny\n#SBATCH --partition=cpu\n/);
    expect(out).toMatch(/^#SBATCH --ntasks-per-node=2$/m);
    expect(out).not.toMatch(/gres/);
    for (const path of [output, join(folder, "logs"), join(folder, "submitted")]) expect(existsSync(path)).toBe(false);
  });

  it("asks for a GPU for each process on a node where the recipe trains on GPUs", async () => {
    const layout = ["trainer.devices=8", "trainer.num_nodes=2", "data.dir=/data"];
    const { out } = await call("multi_cad_synth", ...layout, "--partition", "gpu", "--print", "--json");
    expect(JSON.parse(out).script).toMatch(/--nodes=2\n#SBATCH --ntasks-per-node=8\n.*\n#SBATCH --gres=gpu:8\n/);
  });

  it.each([
    [["trainer.presicion=32-true"], /unknown key trainer\.presicion; did you mean precision/],
    [["trainer.devices=3"], /trainer\.batch_size: expected a multiple of the 3 processes/],
    [["--array", "trainer.max_steps=5,none"], /trainer\.max_steps: .*received "none"/],
    [
      ["--array", "trainer.devices=1,2"],
      /all tasks of an array get the same machines; trainer\.devices=1 .* trainer\.devices=2/,
    ],
    [["--array", "seed"], /--array seed: expected key=value,value,…/],
    [["--array", "name=a b,a_b"], /name=a b and name=a_b would share the folder name=a_b/],
    [["--array", "seed=1,1"], /would share the folder seed=1/],
    [["--time", "tomorrow"], /--time: expected a time above 0 as minutes, H:M:S or D-H:M:S, received "tomorrow"/],
    [["--time", "2", "--signal-before", "120"], /--signal-before: expected less than the 120 seconds of --time/],
    [["--max-simultaneous", "2"], /--max-simultaneous: needs --array/],
    [["--sbatch", "account=x"], /--sbatch\.0: expected an option of sbatch, as --account=x/],
  ])("refuses %j with 2 before anything is written", async (args, message) => {
    const { code, err } = await call(recipe, "--partition", "cpu", "--output", output, ...args);
    expect(err).toMatch(message);
    expect(code).toBe(2);
    expect(existsSync(output)).toBe(false);
  });

  it("takes the partition from the site's settings, and names what is missing", async () => {
    vi.stubEnv("MIRO_SLURM_PARTITION", "");
    const { code, err } = await call(recipe, "--print");
    expect({ code, err }).toEqual({
      code: 2,
      err: "error: --partition: missing; name one, or set MIRO_SLURM_PARTITION in the environment or .env\n",
    });
    vi.stubEnv("MIRO_SLURM_PARTITION", "a b");
    expect((await call(recipe, "--print")).out).toMatch(/^#SBATCH --partition="a b"$/m);
  });

  it("submits the script, without the variables of a job that it is called from, and prints the id", async () => {
    fakeSbatch(
      `[ -z "$SLURM_NTASKS" ] && [ "$SLURM_CONF" = /slurm.conf ] && [ "$1" = --parsable ] && cp "$2" ${folder}/got && echo "77;site"`,
    );
    vi.stubEnv("SLURM_NTASKS", "4");
    vi.stubEnv("SLURM_CONF", "/slurm.conf");
    vi.stubEnv("MIRO_DATA_DIR", "it's $HOME");
    const { code, out } = await call(recipe, "--partition", "cpu", "--output", output);
    expect({ code, out }).toEqual({ code: 0, out: "77\n" });
    const script = readFileSync(join(output, "slurm/job.sh"), "utf8");
    expect(readFileSync(join(folder, "got"), "utf8")).toBe(script);
    expect(script).toContain(`\ncd -- ${resolve(".")} `);
    const environment = join(output, "slurm/environment.sh");
    expect(readFileSync(environment, "utf8")).toMatch(/^MIRO_DATA_DIR='it'\\''s \$HOME'$/m);
    expect(statSync(environment).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, "logs")).isDirectory()).toBe(true);
  });

  it("trains what the recipe was when it was submitted, whatever is submitted or edited later", async () => {
    fakeSbatch("echo 5");
    const args = [recipe, "--partition", "cpu", "--output", join(folder, "runs/frozen"), "--json"];
    const submitted = async (...overrides: string[]) => {
      const { script } = JSON.parse((await call(...args, ...overrides)).out) as { script: string };
      return /^set -- (.*)$/m.exec(readFileSync(script, "utf8"))![1]!;
    };
    const [first, second] = [await submitted("seed=1"), await submitted("seed=2")];
    expect([first, second].map((path) => parse(readFileSync(path, "utf8")).seed)).toEqual([1, 2]);
    const { code, stdout } = await runCaptured("train", first, "--print");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^seed: 1 /m);
  });

  it("gives each combination of an array's values a folder, and reports them as JSON", async () => {
    fakeSbatch("echo 5");
    const array = ["--array", "optimizer.lr=1e-3,2e-3", "--array", "ema.decay=[0.9, 0.99],0.5"];
    const { out } = await call(recipe, "--partition", "cpu", "--output", output, ...array, "--json");
    const { job, runs, script } = JSON.parse(out) as { job: string; runs: string[]; script: string };
    expect(job).toBe("5");
    expect(runs.map((path) => path.slice(output.length + 1))).toEqual([
      "optimizer.lr=1e-3,ema.decay=_0.9_0.99_",
      "optimizer.lr=1e-3,ema.decay=0.5",
      "optimizer.lr=2e-3,ema.decay=_0.9_0.99_",
      "optimizer.lr=2e-3,ema.decay=0.5",
    ]);
    const third = /^ {2}2\) run=(.*); set -- (.*) ;;$/m.exec(readFileSync(script, "utf8"))!;
    expect(third[1]).toContain("optimizer.lr=2e-3,ema.decay=_0.9_0.99_");
    expect(parse(readFileSync(third[2]!, "utf8"))).toMatchObject({
      optimizer: { lr: 2e-3 },
      ema: { decay: [0.9, 0.99] },
    });
  });

  it("says in one line what sbatch says, and what to do where there is none", async () => {
    fakeSbatch('echo "sbatch: error: invalid partition specified: cpu" >&2; exit 1');
    const { code, err } = await call(recipe, "--partition", "cpu", "--output", output);
    expect(code).toBe(1);
    expect(err).toMatch(/^error: sbatch: invalid partition specified: cpu \(.*job\.sh\)\n$/);
    vi.stubEnv("PATH", "/nowhere");
    expect((await call(recipe, "--partition", "cpu", "--output", output)).err).toMatch(
      /^error: sbatch: not found; launch where SLURM's commands are, or show the script with --print\n$/,
    );
  });
});
