import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import { FileLock } from "../files/file-lock.js";
import { RUN_LOCK } from "../training/state/run-lock.js";
import { tinyRecipeJson } from "../training/testing/tiny.js";
import { runCaptured, runStoppable } from "./testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-launch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => void vi.stubEnv("MIRO_SLURM_OUTPUT_DIR", join(folder, "logs")));
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
}

describe("miro launch", () => {
  it("submits nothing once it is asked to stop", async () => {
    fakeSbatch(`touch ${folder}/submitted; echo 1`);
    const stopped = await runStoppable(["launch", recipe, "--output", output], AbortSignal.abort());
    expect(stopped).toMatchObject({ code: 130, stdout: "", stderr: "Interrupted: nothing was submitted\n" });
    expect(existsSync(join(folder, "submitted"))).toBe(false);
  });

  it("--print shows the script, submits nothing and writes nothing", async () => {
    fakeSbatch(`touch ${folder}/submitted; echo 1`);
    const { code, out } = await call(recipe, "trainer.devices=2", "--partition", "cpu", "--output", output, "--print");
    expect(code).toBe(0);
    expect(out).toMatch(/^#!\/bin\/bash\n#SBATCH --job-name=tiny\n#SBATCH --partition=cpu\n/);
    expect(out).toMatch(/^#SBATCH --ntasks-per-node=2$/m);
    expect(out).not.toMatch(/gres/);
    for (const path of [output, join(folder, "logs"), join(folder, "submitted")]) expect(existsSync(path)).toBe(false);
  });

  it("says which job was submitted where that cannot be noted", async () => {
    const noted = join(folder, "full/slurm/launch.json");
    fakeSbatch(`rm ${noted}; mkdir -p ${noted}/x; echo 12`);
    const { code, err } = await call(recipe, "--output", join(folder, "full"));
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(/^error: job 12 was submitted, and is not noted: .*launch\.json: cannot be written/m),
    ]);
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
    [["--array", "seed=? ,2"], /--array seed=\? ,2: expected key=value,value,…/],
    [["--array", "seed=1,,2"], /--array seed=1,,2: expected key=value,value,…/],
    [["--array", "name=a b,a_b"], /name=a b and name=a_b would share the folder name=a_b/],
    [["--array", "seed=1,1"], /would share the folder seed=1/],
    [["--time", "tomorrow"], /--time: expected a time above 0 as minutes, H:M:S or D-H:M:S, received "tomorrow"/],
    [["--time", "2", "--signal-before", "120"], /--signal-before: expected less than the 120 seconds of --time/],
    [["--max-simultaneous", "2"], /--max-simultaneous: needs --array/],
    [["--sbatch", "account=x"], /--sbatch\.0: expected an option of sbatch, as --reservation=x/],
  ])("refuses %j with 2 before anything is written", async (args, message) => {
    const { code, err } = await call(recipe, "--partition", "cpu", "--output", output, ...args);
    expect(err).toMatch(message);
    expect(code).toBe(2);
    expect(existsSync(output)).toBe(false);
  });

  it("takes from the site's settings what is not given, and leaves the rest to SLURM", async () => {
    vi.stubEnv("MIRO_SLURM_PARTITION", "");
    const bare = await call(recipe, "--print");
    expect(bare.code).toBe(0);
    expect(bare.out).not.toMatch(/--(partition|account|qos|mem|constraint)/);
    vi.stubEnv("MIRO_SLURM_PARTITION", "a b");
    vi.stubEnv("SBATCH_ACCOUNT", "vision");
    vi.stubEnv("SBATCH_MEM_PER_NODE", "64G");
    const { out } = await call(recipe, "--print", "--mem", "0", "--qos", "high");
    const said = out.split("\n").filter((line) => /--(partition|account|qos|mem|constraint)=/.test(line));
    expect(said).toEqual([
      '#SBATCH --partition="a b"',
      "#SBATCH --account=vision",
      "#SBATCH --qos=high",
      "#SBATCH --mem=0",
    ]);
    vi.stubEnv("SBATCH_MEM_PER_NODE", "much");
    expect(await call(recipe, "--print")).toEqual({
      code: 2,
      out: "",
      err: 'error: environment: SBATCH_MEM_PER_NODE: expected a size as 64G, or 0 for all memory, received "much"\n',
    });
  });

  it("asks for GPUs in the site's way, for no fewer than there are processes", async () => {
    const gpus = async (...args: string[]) => {
      const { code, out, err } = await call(recipe, "trainer.device=cuda", "trainer.devices=4", "--print", ...args);
      return code === 0 ? out.split("\n").filter((line) => /--(gres|gpus-per-node)=/.test(line)) : err;
    };
    expect(await gpus()).toEqual(["#SBATCH --gres=gpu:4"]);
    expect(await gpus("--gpus-per-node", "a100:4")).toEqual(["#SBATCH --gpus-per-node=a100:4"]);
    expect(await gpus("--gres", "gpu:a100:8,tmpfs:100G")).toEqual(["#SBATCH --gres=gpu:a100:8,tmpfs:100G"]);
    const tooFew = "at least 4 GPUs, one for each of trainer.devices";
    expect(await gpus("--gpus-per-node", "2")).toBe(`error: --gpus-per-node: expected ${tooFew}, received "2"\n`);
    expect(await gpus("--gres", "tmpfs:100G")).toBe(`error: --gres: expected ${tooFew}, received "tmpfs:100G"\n`);
    expect(await gpus("--gres", "gpu:1;id")).toMatch(/^error: --gres: expected resources as gpu:8/);
  });

  it("trains a recipe for one process on the CPU on GPUs, without its settings for the CPU", async () => {
    const path = join(folder, "threads.yaml");
    writeFileSync(path, JSON.stringify(tinyRecipeJson({ replicas: 2 })));
    const write = join(folder, "gpus");
    expect(await call(path, "trainer.device=cuda", "trainer.devices=2", "--write", write)).toMatchObject({ code: 0 });
    const [frozen] = readdirSync(write).filter((name) => name.startsWith("recipe-"));
    expect(parse(readFileSync(join(write, frozen!), "utf8")).trainer).not.toHaveProperty("replicas");
    expect((await call(path, "trainer.device=cuda", "trainer.replicas=2", "--print")).err).toMatch(
      /command line: trainer\.replicas: expected 1 on cuda \(received 2\)/,
    );
  });

  it("--write makes a folder that can be edited and submitted, submits nothing, and keeps what was edited", async () => {
    fakeSbatch(`touch ${folder}/submitted-by-write; echo 1`);
    const prologue = join(folder, "modules.sh");
    writeFileSync(prologue, "export FROM_MODULES=1\n");
    const write = join(folder, "job to edit");
    const args = [
      recipe,
      "--output",
      output,
      "--write",
      write,
      "--prologue",
      prologue,
      "--network-interface",
      "ib0,ib1",
    ];
    const { code, out } = await call(...args, "--print");
    expect(code).toBe(0);
    expect(existsSync(join(folder, "submitted-by-write"))).toBe(false);
    const script = join(write, "job.sh");
    expect(readFileSync(script, "utf8")).toBe(out);
    expect(out).toContain("export FROM_MODULES=1\n");
    for (const path of out.matchAll(/'([^']*job to edit[^']*)'/g)) expect(existsSync(path[1]!), path[1]).toBe(true);
    const environment = readFileSync(/^\. '(.*)' \|\| exit 1$/m.exec(out)![1]!, "utf8");
    expect(environment).toMatch(/^NCCL_SOCKET_IFNAME=ib0,ib1\nGLOO_SOCKET_IFNAME=ib0,ib1$/m);
    const record = JSON.parse(readFileSync(join(write, "launch.json"), "utf8"));
    const digest = createHash("sha256").update("export FROM_MODULES=1\n").digest("hex");
    expect(record).toMatchObject({ job: null, prologue: { path: prologue, sha256: digest }, runs: [output] });

    expect(await call(...args)).toMatchObject({ code: 0, out: `${script}\n` });
    writeFileSync(script, `${out}# edited\n`);
    const again = await call(...args);
    expect(again).toMatchObject({
      code: 2,
      err: expect.stringMatching(/job\.sh: is another script, .* another --write$/m),
    });
    expect(readFileSync(script, "utf8")).toBe(`${out}# edited\n`);
  });

  it.each([
    [["--container-runtime", "pyxis"], /--container-runtime: needs --container/],
    [["--container-mount", "/data"], /--container-mount: needs --container/],
    [["--container", "x", "--stage-to", "/tmp"], /--stage-to: a container has its own Node and libtorch/],
    [["--container", "none.sif"], /none\.sif: no such image/],
    [["--container", "x", "--container-mount", "/a,/etc:/etc"], /--container-mount\.0: expected \/SOURCE/],
    [["--container", "x", "--container-runtime", "docker"], /--container-runtime: .*pyxis or apptainer/],
    [["--stage-to", "$(id)"], /--stage-to: expected an absolute path, or one that begins with a variable/],
    [["--network-interface", "ib0;id"], /--network-interface: expected a network interface/],
    [["--prologue", "none.sh"], /none\.sh/],
    [["--account", "a\nb"], /--account: expected a text without control characters/],
  ])("refuses %j with 2", async (args, message) => {
    const { code, err } = await call(recipe, "--output", output, ...args, "--print");
    expect(err).toMatch(message);
    expect(code).toBe(2);
  });

  it("refuses a copy on each node for data that need the clone", async () => {
    const { code, err } = await call("emoji", "--output", output, "--stage-to", "/tmp", "--print");
    expect(err).toMatch(/^error: --stage-to: data\.kind emoji needs files of the clone .*miro render/);
    expect(code).toBe(2);
  });

  it("submits the script, without the variables of a job that it is called from, and prints the id", async () => {
    fakeSbatch(
      `[ -z "$SLURM_NTASKS$SBATCH_PARTITION" ] && [ "$SLURM_CONF" = /slurm.conf ] && [ "$1" = --parsable ] && cp "$2" ${folder}/got && echo "77;site"`,
    );
    vi.stubEnv("SLURM_NTASKS", "4");
    vi.stubEnv("SLURM_CONF", "/slurm.conf");
    vi.stubEnv("SBATCH_PARTITION", "another");
    vi.stubEnv("MIRO_DATA_DIR", "it's $HOME");
    const { code, out } = await call(recipe, "--partition", "cpu", "--output", output);
    expect({ code, out }).toEqual({ code: 0, out: "77\n" });
    const script = readFileSync(join(output, "slurm/job.sh"), "utf8");
    expect(readFileSync(join(folder, "got"), "utf8")).toBe(script);
    expect(script).toContain(`\ncd -- ${resolve(".")} `);
    expect(JSON.parse(readFileSync(join(output, "slurm/launch.json"), "utf8"))).toMatchObject({ job: "77" });
    const environment = /^\. (.*) \|\| exit 1$/m.exec(script)![1]!;
    expect(environment.startsWith(join(output, "slurm/environment-"))).toBe(true);
    expect(readFileSync(environment, "utf8")).toMatch(/^MIRO_DATA_DIR='it'\\''s \$HOME'$/m);
    expect(statSync(environment).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, "logs")).isDirectory()).toBe(true);
  });

  it("refuses a job that could not start, on the grounds of a dry run, all at once, and submits nothing", async () => {
    fakeSbatch(`touch ${folder}/submitted; echo 5`);
    const run = join(folder, "runs/never");
    const args = [
      "initialization.from=/nowhere/model",
      "trainer.keep_every_n_steps=1",
      "trainer.max_steps=1000000000000",
    ];
    const { code, err } = await call(recipe, "--partition", "cpu", "--output", run, ...args);
    expect(code).toBe(1);
    expect(err).toMatch(/MISSING {2}initialization\.from: .*\n.*\n {4}MISSING {2}disk: /);
    expect(err).toMatch(/error: the job cannot start: 2 things are missing: initialization\.from, disk\n$/);
    for (const path of [run, join(folder, "submitted")]) expect(existsSync(path)).toBe(false);
  });

  it("submits what waits for another job, which may make what is missing, and says what that is", async () => {
    fakeSbatch("echo 5");
    const run = join(folder, "runs/after");
    const lock = FileLock.acquire(run, RUN_LOCK) as FileLock;
    const waits = ["--dependency", "afterany:4", "initialization.from=/nowhere/model"];
    const { code, out, err } = await call(recipe, "--output", run, ...waits);
    lock.release();
    expect([code, out]).toEqual([0, "5\n"]);
    expect(err).toMatch(/MISSING {2}initialization\.from: .*\n.*\n {4}MISSING {2}output: .* trains here\n/);
    expect(err).toMatch(/^the job is submitted all the same, as it waits for afterany:4$/m);
    expect(readFileSync(join(run, "slurm/job.sh"), "utf8")).toMatch(/^#SBATCH --dependency=afterany:4$/m);
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

  it("submits to each of two that launch a run at the same time its own script", async () => {
    // The id is the seed of the recipe in the script that is submitted.
    fakeSbatch(`sed -n 's/^seed: //p' "$(sed -n 's/^set -- //p' "$2")"`);
    const args = [recipe, "--partition", "cpu", "--output", join(folder, "runs/at-once")];
    const seeds = [11, 12, 13];
    const launched = await Promise.all(seeds.map((seed) => call(...args, `seed=${seed}`)));
    expect(launched.map(({ out }) => out)).toEqual(seeds.map((seed) => `${seed}\n`));
    const slurm = join(folder, "runs/at-once/slurm");
    const { job, script_sha256 } = JSON.parse(readFileSync(join(slurm, "launch.json"), "utf8"));
    const script = readFileSync(join(slurm, "job.sh"));
    expect(createHash("sha256").update(script).digest("hex")).toBe(script_sha256);
    expect(script.toString()).toContain(`set -- ${join(slurm, "recipe-")}`);
    expect(seeds.map(String)).toContain(job);
    expect(readdirSync(slurm).filter((name) => name.includes("lock"))).toEqual([]);
  });

  it("gives a job the settings that it was submitted with, whatever is submitted to the same run later", async () => {
    fakeSbatch("echo 5");
    const args = [recipe, "--partition", "cpu", "--output", join(folder, "runs/settings"), "--json"];
    const submitted = async (setting: string, ...options: string[]) => {
      vi.stubEnv("MIRO_DATA_DIR", setting);
      const { environment } = JSON.parse((await call(...args, ...options)).out) as { environment: string };
      return { environment, text: readFileSync(environment, "utf8") };
    };
    const first = await submitted("/first");
    const others = [await submitted("/second"), await submitted("/first", "--network-interface", "ib0")];
    expect(readFileSync(first.environment, "utf8")).toBe(first.text);
    expect(new Set([first, ...others].map(({ environment }) => environment)).size).toBe(3);
    expect(await submitted("/first")).toEqual(first);
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
