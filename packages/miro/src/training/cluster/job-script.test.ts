import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { shellWord } from "../../shell-word.js";
import { directiveValue } from "./directives.js";
import { type Job, jobScript } from "./job-script.js";

const root = mkdtempSync(join(tmpdir(), "miro job's $HOME "));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const HOSTILE = [
  "name=it's",
  'name="quoted"',
  "name=$HOME `id` $(id)",
  "name=a\nexit 3\r\n#SBATCH --time=1",
  "name=\\ \\n \\'",
  "name=!! *?[a] ~ {a,b}; & | > <",
  "",
  "ünï-名\u{1f98a}\t\x07",
];

/** A folder with `srun` and `scontrol` that note how they were called, and a job that finds them. */
function fakeCluster(name: string, change: Partial<Job> = {}) {
  const folder = join(root, name);
  const bin = join(folder, "bin");
  const output = join(folder, "run");
  mkdirSync(bin, { recursive: true });
  mkdirSync(join(output, "checkpoints"), { recursive: true });
  const command = (file: string, body: string) => {
    writeFileSync(join(bin, file), `#!/bin/bash\n${body}`);
    chmodSync(join(bin, file), 0o755);
  };
  // Ends with $ENDS at once, or waits for the signal and then ends so; $STORES names the checkpoint that it leaves.
  command(
    "srun",
    `printf '%s\\0' "$@" > "$NOTES/srun"
env > "$NOTES/environment"
ulimit -n > "$NOTES/limit"
stop() { [ -z "$STORES" ] || ln -sfn "$STORES" "$NOTES/run/checkpoints/last"; exit "$ENDS"; }
[ -z "$WAITS" ] && stop
trap stop USR1
touch "$NOTES/waiting"
for _ in {1..1000}; do sleep 0.01; done`,
  );
  command(
    "scontrol",
    `case "$1 $2" in
  "show hostnames") printf "node7\\nnode8\\n" ;;
  "show job")
    echo "JobId=$3 PreemptEligibleTime=2026-01-31T09:00:00 PreemptTime=\${PREEMPT_TIME:-None}"
    # The number of an array stands for all of its tasks.
    [ "$3" != "\${SLURM_ARRAY_JOB_ID:-}" ] || echo "JobId=1233 ArrayTaskId=0 PreemptTime=2026-01-31T09:05:00" ;;
  *) echo "$@" >> "$NOTES/scontrol" ;;
esac`,
  );
  const environmentFile = join(folder, "environment.sh");
  writeFileSync(environmentFile, `SETTING=${shellWord("a 'b' $c")}\n`);
  const job: Job = {
    name: "tiny",
    partition: "gpu",
    nodes: 2,
    tasksPerNode: 4,
    cpusPerTask: 3,
    gres: "gpu:4",
    usesGpus: true,
    signalBefore: 180,
    sbatch: [],
    logs: folder,
    workingDirectory: folder,
    environmentFile,
    node: "/usr/bin/node",
    miro: "/opt/miro.mjs",
    isArray: false,
    runs: [{ output, arguments: ["/recipes/tiny.yaml", ...HOSTILE] }],
    ...change,
  };
  const script = join(folder, "job.sh");
  writeFileSync(script, jobScript(job));
  const read = (file: string) => (existsSync(join(folder, file)) ? readFileSync(join(folder, file), "utf8") : "");
  return { folder, bin, output, script, read };
}

interface Course {
  /** Exit code of srun. */
  ends: number;
  /** Whether SLURM's warning comes, and srun waits for it. */
  warned?: boolean;
  /** The checkpoint that the ranks leave. */
  stores?: string;
  env?: NodeJS.ProcessEnv;
}

async function runJob(cluster: ReturnType<typeof fakeCluster>, { ends, warned = false, stores = "", env }: Course) {
  const child = spawn("bash", [cluster.script], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: `${cluster.bin}:${process.env.PATH}`,
      NOTES: cluster.folder,
      ENDS: String(ends),
      STORES: stores,
      WAITS: warned ? "1" : "",
      SLURM_JOB_ID: "1234",
      SLURM_JOB_NODELIST: "node[7-8]",
      ...env,
    },
  });
  let stderr = "";
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  const ended = new Promise<number | null>((done) => child.on("close", done));
  if (warned) {
    while (!existsSync(join(cluster.folder, "waiting"))) await sleep(10);
    child.kill("SIGUSR1");
  }
  const code = await ended;
  return { code, stderr, requeued: cluster.read("scontrol").trim() };
}

describe("the words of a job script", () => {
  it("mean for bash what they were, whatever is in them", () => {
    const text = fc.string({ unit: "binary-ascii", maxLength: 20 }).map((s) => s.replaceAll("\0", ""));
    const words = [...HOSTILE, ...fc.sample(text, 300), ..."'\"\\$`!*?[]{}()<>|&;#~ \t\n\r\x7f%=-"];
    const said = execFileSync("bash", ["--norc", "-c", `printf '%s\\0' ${words.map(shellWord).join(" ")}`], {
      env: {},
    });
    expect(said.toString().split("\0").slice(0, -1)).toEqual(words);
  });

  it("stand on one line each", () => {
    for (const word of HOSTILE) expect(shellWord(word)).not.toMatch(/[\n\r]/);
  });

  it("refuses a line break where SLURM reads, which could begin another directive", () => {
    expect(() => directiveValue("gpu\n#SBATCH --uid=0", "--partition")).toThrow(/--partition: expected a text without/);
  });
});

describe("a job script", () => {
  it("is valid bash with any values", () => {
    const runs = HOSTILE.map((word, i) => ({ output: join(root, String(i), word), arguments: [word] }));
    for (const change of [{}, { isArray: true, runs, maxSimultaneous: 2 }]) {
      const { script } = fakeCluster("syntax", change);
      expect(execFileSync("bash", ["-n", script]).toString()).toBe("");
    }
  });

  it("has its directives before its first command, with SLURM's placeholders only where it means them", () => {
    const directives = (change: Partial<Job>) => {
      const text = readFileSync(fakeCluster("directives", { logs: '/logs/100% "x"', ...change }).script, "utf8");
      const lines = text.split("\n");
      expect(lines.slice(1, lines.indexOf("")).every((line) => line.startsWith("#SBATCH "))).toBe(true);
      return lines.filter((line) => line.startsWith("#SBATCH ")).map((line) => line.slice("#SBATCH --".length));
    };
    const once = directives({ time: "1-0", dependency: "afterok:7", sbatch: ["--account=x"] });
    expect(once).toEqual([
      ...["job-name=tiny", "partition=gpu", "nodes=2", "ntasks-per-node=4", "cpus-per-task=3", "gres=gpu:4"],
      ...["time=1-0", "signal=B:USR1@180", "requeue", "open-mode=append", 'output="/logs/100%% \\"x\\"/tiny-%j.log"'],
      ...["dependency=afterok:7", "account=x"],
    ]);
    const runs = [1, 2, 3].map((i) => ({ output: `/runs/${i}`, arguments: [] }));
    const array = directives({ gres: undefined, isArray: true, runs, maxSimultaneous: 2 });
    expect(array).toContain("array=0-2%2");
    expect(array).toContain('output="/logs/100%% \\"x\\"/tiny-%A_%a.log"');
    expect(array.filter((text) => /^(gres|time|dependency)/.test(text))).toEqual([]);
  });

  it("starts the ranks with the arguments as they were given, the settings, and a place to meet", async () => {
    const cluster = fakeCluster("starts");
    expect(await runJob(cluster, { ends: 0 })).toEqual({ code: 0, stderr: "", requeued: "" });
    const words = cluster.read("srun").split("\0").slice(0, -1);
    expect(words).toEqual([
      ...[
        "--kill-on-bad-exit=0",
        "--wait=60",
        "--cpus-per-task=3",
        "--export=ALL",
        "/usr/bin/node",
        "/opt/miro.mjs",
        "train",
      ],
      ...["/recipes/tiny.yaml", ...HOSTILE, "--output", cluster.output, "--resume"],
    ]);
    const environment = cluster.read("environment").split("\n");
    expect(environment).toEqual(
      expect.arrayContaining(["MASTER_ADDR=node7", "OMP_NUM_THREADS=3", "SETTING=a 'b' $c", `PWD=${cluster.folder}`]),
    );
  });

  it("meets at another port in the next job, and when it begins again", async () => {
    const cluster = fakeCluster("port");
    const ports = [];
    for (const [job, restart] of [
      ["1234", "0"],
      ["1234", "1"],
      ["1235", "0"],
      ["4294901760", "2"],
    ]) {
      await runJob(cluster, { ends: 0, env: { SLURM_JOB_ID: job, SLURM_RESTART_COUNT: restart } });
      ports.push(Number(/^MASTER_PORT=(\d+)$/m.exec(cluster.read("environment"))?.[1]));
    }
    expect(new Set(ports).size).toBe(ports.length);
    for (const port of ports) expect(port >= 10000 && port < 30000).toBe(true);
  });

  it("goes back into the queue when it was warned and has stored something new", async () => {
    const cluster = fakeCluster("requeue");
    symlinkSync("step_00000001", join(cluster.output, "checkpoints/last"));
    const course = { ends: 130, warned: true, stores: "step_00000002" };
    expect(await runJob(cluster, course)).toMatchObject({ code: 130, requeued: "requeue 1234" });
  });

  it("puts only its own task of an array back", async () => {
    const runs = ["a", "b"].map((name) => ({ output: join(root, "array", "run"), arguments: [name] }));
    const cluster = fakeCluster("array", { isArray: true, runs });
    const env = { SLURM_ARRAY_JOB_ID: "1234", SLURM_ARRAY_TASK_ID: "1" };
    const { requeued } = await runJob(cluster, { ends: 130, warned: true, stores: "step_00000002", env });
    expect(requeued).toBe("requeue 1234_1");
    expect(cluster.read("srun").split("\0")).toContain("b");
  });

  it("goes back into the queue when it was preempted, also before the first step", async () => {
    const cluster = fakeCluster("preempted");
    const { code, requeued } = await runJob(cluster, { ends: 130, env: { PREEMPT_TIME: "2026-01-31T09:05:00" } });
    expect({ code, requeued }).toEqual({ code: 130, requeued: "requeue 1234" });
  });

  it("does not go back when another task of its array was preempted", async () => {
    const runs = ["a", "b"].map((name) => ({ output: join(root, "others", "run"), arguments: [name] }));
    const cluster = fakeCluster("others", { isArray: true, runs });
    const env = { SLURM_JOB_ID: "1234", SLURM_ARRAY_JOB_ID: "1234", SLURM_ARRAY_TASK_ID: "1" };
    expect(await runJob(cluster, { ends: 130, env })).toMatchObject({ code: 130, requeued: "" });
    const preempted = { ...env, PREEMPT_TIME: "2026-01-31T09:05:00" };
    expect(await runJob(cluster, { ends: 130, env: preempted })).toMatchObject({ requeued: "requeue 1234_1" });
  });

  it("does not go back when a whole time limit brought no new checkpoint", async () => {
    const cluster = fakeCluster("no-progress");
    symlinkSync("step_00000001", join(cluster.output, "checkpoints/last"));
    const { code, stderr, requeued } = await runJob(cluster, { ends: 130, warned: true, stores: "step_00000001" });
    expect({ code, requeued }).toEqual({ code: 1, requeued: "" });
    expect(stderr).toMatch(/no step was done within the time limit; give the job more --time/);
  });

  it("trains nothing, and says so, when the warning comes before the training begins", async () => {
    const prologue = { path: "/modules.sh", sha256: "0", text: "kill -USR1 $$\n" };
    const cluster = fakeCluster("early", { prologue });
    const { code, stderr, requeued } = await runJob(cluster, { ends: 0 });
    expect({ code, requeued, started: cluster.read("srun") }).toEqual({ code: 1, requeued: "", started: "" });
    expect(stderr).toMatch(/no step was done within the time limit; give the job more --time/);
  });

  it.each([
    ["failed", { ends: 1 }, 1],
    ["refused", { ends: 2 }, 2],
    ["stopped without a warning", { ends: 130, stores: "step_00000002" }, 130],
    ["failed while it stopped", { ends: 1, warned: true, stores: "step_00000002" }, 1],
    ["finished although it was warned", { ends: 0, warned: true, stores: "step_00000002" }, 0],
  ])("passes the exit code on and stays out of the queue when the training %s", async (name, course, code) => {
    expect(await runJob(fakeCluster(name), course)).toMatchObject({ code, requeued: "" });
  });

  it("leaves to the site what is not given", () => {
    const site = { partition: undefined, gres: undefined };
    const text = readFileSync(fakeCluster("site", site).script, "utf8");
    expect(text).not.toMatch(/#SBATCH --(partition|account|qos|mem|constraint|gres|gpus-per-node)/);
  });

  it("asks for what is given, quoted where SLURM would read it otherwise", () => {
    const given = { account: 'a "b"#c', qos: "high", mem: "64G", constraint: "a100&nvlink", gpusPerNode: "a100:4" };
    const text = readFileSync(fakeCluster("given", given).script, "utf8");
    for (const line of [
      'account="a \\"b\\"#c"',
      "qos=high",
      "mem=64G",
      'constraint="a100&nvlink"',
      "gpus-per-node=a100:4",
    ])
      expect(text).toContain(`\n#SBATCH --${line}\n`);
  });

  it.each(["partition", "account", "qos", "constraint", "mem", "gres", "gpusPerNode", "dependency"])(
    "refuses a line break in %s, which could begin another directive",
    (option) => {
      expect(() => fakeCluster("injection", { [option]: "x\n#SBATCH --uid=0" })).toThrow(
        new RegExp(`^${option}: expected a text without control characters`),
      );
    },
  );

  it("runs a prologue first, whose variables and limits the processes get, and nothing else of it", async () => {
    const text = [
      "ulimit -n 64",
      'export FROM_PROLOGUE="$UNSET $SETTING"',
      "set -e; set -f; IFS=x; cd /; set -- other arguments",
      "shopt -s nullglob",
      "",
    ].join("\n");
    const cluster = fakeCluster("prologue", { prologue: { path: "/site's modules.sh", sha256: "abc", text } });
    expect(readFileSync(cluster.script, "utf8")).toContain("# prologue: '/site'\\''s modules.sh', sha256 abc\n");
    expect(await runJob(cluster, { ends: 0 })).toEqual({ code: 0, stderr: "", requeued: "" });
    const environment = cluster.read("environment").split("\n");
    expect(environment).toEqual(expect.arrayContaining(["FROM_PROLOGUE= a 'b' $c", `PWD=${cluster.folder}`]));
    expect(cluster.read("srun").split("\0")).toContain("/recipes/tiny.yaml");
    expect(cluster.read("limit").trim()).toBe("64");
  });

  it("ends with a prologue that ends", async () => {
    const cluster = fakeCluster("prologue-ends", {
      prologue: { path: "/p.sh", sha256: "", text: "false || exit 7\n" },
    });
    expect(await runJob(cluster, { ends: 0 })).toMatchObject({ code: 7 });
    expect(cluster.read("srun")).toBe("");
  });

  it("starts the processes in a container of pyxis, where the settings of the job hold", async () => {
    const mounts = ["/data:/data", "/it's $HOME:/x:ro"];
    const container = { runtime: "pyxis", image: "registry#it's $(id)/miro:1", mounts } as const;
    const cluster = fakeCluster("pyxis", { container });
    expect(await runJob(cluster, { ends: 0 })).toMatchObject({ code: 0, stderr: "" });
    const words = cluster.read("srun").split("\0").slice(0, -1);
    expect(words.slice(4)).toEqual([
      "--container-image=registry#it's $(id)/miro:1",
      "--container-mounts=/data:/data,/it's $HOME:/x:ro",
      `--container-workdir=${cluster.folder}`,
      ...["--no-container-mount-home", "--no-container-entrypoint", "bash", "-c"],
      'set -a; . "$0" && set +a && exec miro "$@"',
      join(cluster.folder, "environment.sh"),
      ...["train", "/recipes/tiny.yaml", ...HOSTILE, "--output", cluster.output, "--resume"],
    ]);
  });

  it.each([true, false])("starts the processes with apptainer, GPUs: %s", async (usesGpus) => {
    const container = { runtime: "apptainer", image: "/images/it's.sif", mounts: ["/data:/data"] } as const;
    const cluster = fakeCluster(`apptainer-${usesGpus}`, { container, usesGpus });
    expect(await runJob(cluster, { ends: 0 })).toMatchObject({ code: 0, stderr: "" });
    const words = cluster.read("srun").split("\0").slice(4, -1);
    expect(words.slice(0, words.indexOf("bash"))).toEqual([
      ...["apptainer", "exec", ...(usesGpus ? ["--nv"] : []), "--bind", "/data:/data", "--pwd", cluster.folder],
      "/images/it's.sif",
    ]);
  });

  it("trains nothing when its settings are gone", async () => {
    const cluster = fakeCluster("gone");
    rmSync(join(cluster.folder, "environment.sh"));
    expect(await runJob(cluster, { ends: 0 })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/environment\.sh/),
    });
    expect(cluster.read("srun")).toBe("");
  });
});
