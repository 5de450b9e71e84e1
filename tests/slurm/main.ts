/**
 * `npm run test:slurm -- [--seconds N] [--keep]`: trainings of two processes through `miro launch` on a real SLURM, set
 * up for the occasion on this machine (cluster.ts). Takes some ten minutes, because SLURM's shortest limit is one, and
 * needs Debian's `slurm-wlm` and `munge`.
 *
 *   --seconds N   how long the training takes that does not fit into its limit (default 90)
 *   --keep        keep the folder of the runs
 *
 * Exit code 0: everything held; 1: something did not; 2: wrong usage, or SLURM is missing.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { field, flag, runProgram } from "miro-t2i/cli";
import { listCheckpoints } from "miro-t2i/training";
import { z } from "zod";
import { differences, runMiro } from "../soak/kill-and-restart.js";
import { outcome, RECIPE } from "../soak/training-kill.js";
import { Cluster, type JobState, missingTools } from "./cluster.js";

/**
 * Two processes, a network whose steps take some tenths of a second, stored seldom: what is stored at a limit is stored
 * because of it.
 */
const recipe = {
  ...RECIPE,
  name: "slurm",
  network: { ...RECIPE.network, data_size: 16, data_dim: 64, num_latents: 32, latents_dim: 128, num_blocks: 2 },
  lr_scheduler: { warmup_steps: 5, total_steps: 100_000 },
  trainer: { ...RECIPE.trainer, devices: 2, batch_size: 16, checkpoint_every_n_steps: 100_000 },
};

const ENDED = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"];

const schema = z.strictObject({
  seconds: field(z.number().min(60).default(90), {
    expected: "at least 60 seconds",
    help: "how long the training takes that does not fit into its limit",
    flag: "--seconds <n>",
  }),
  keep: flag("keep the folder of the runs", "--keep"),
});

async function main({ seconds, keep }: z.output<typeof schema>): Promise<number> {
  const missing = missingTools();
  if (missing.length > 0) {
    console.error(`no ${missing.join(", ")} on this machine; install them: apt-get install slurm-wlm munge`);
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), "miro-slurm-runs-"));
  const cluster = await Cluster.start();
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
  };
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt);
  try {
    await new Trials(cluster, folder, () => interrupted).all(seconds);
    if (!keep) rmSync(folder, { recursive: true, force: true });
    return 0;
  } catch (error) {
    console.log(`FAILED: ${(error as Error).message}`);
    console.log(`what the runs have left: ${folder}`);
    return interrupted ? 130 : 1;
  } finally {
    await cluster.stop();
  }
}

class Trials {
  readonly #recipe: string;
  readonly #logs: string;

  constructor(
    private readonly cluster: Cluster,
    private readonly folder: string,
    private readonly interrupted: () => boolean,
  ) {
    this.#recipe = join(folder, "slurm.yaml");
    this.#logs = join(folder, "logs");
    writeFileSync(this.#recipe, JSON.stringify(recipe)); // JSON is YAML
    mkdirSync(this.#logs);
    process.env.MIRO_SLURM_PARTITION = "test";
    process.env.MIRO_SLURM_OUTPUT_DIR = this.#logs;
  }

  async all(seconds: number): Promise<void> {
    await this.recipeThatFails();
    await this.rankThatDies();
    await this.cancelled();
    await this.array();
    await this.longerThanItsLimit(seconds);
  }

  async recipeThatFails(): Promise<void> {
    const id = await this.launch("fails", ["initialization.from=nowhere"]);
    const { state, restarts, exitCode } = await this.ended(id);
    expect(state === "FAILED" && restarts === 0 && exitCode === "2:0", `${state} ${exitCode}, ${restarts} restarts`);
    this.passed("a run that fails ends its job with its exit code, and the job does not go back into the queue");
  }

  async rankThatDies(): Promise<void> {
    const id = await this.launch("dies", ["trainer.max_steps=100000"]);
    await this.steps("dies", 3);
    process.kill(this.rank(id, 1), "SIGKILL");
    const { state, restarts, exitCode } = await this.ended(id);
    expect(state === "FAILED" && restarts === 0 && exitCode === "137:0", `${state} ${exitCode}, ${restarts} restarts`);
    this.passed("a job of which one process dies fails as a whole, and does not go back into the queue");
  }

  async cancelled(): Promise<void> {
    const id = await this.launch("cancelled", ["trainer.max_steps=100000"]);
    await this.steps("cancelled", 3);
    await this.cluster.tool("scancel", id);
    await this.ended(id);
    await sleep(5000); // time in which it could be put back
    const { state, restarts } = await this.cluster.job(id);
    expect(state === "CANCELLED" && restarts === 0, `${state}, ${restarts} restarts`);
    const stored = listCheckpoints(join(this.folder, "cancelled/checkpoints")).at(-1)?.step ?? 0;
    expect(stored >= 3, `a cancelled job has stored step ${stored}`);
    this.passed(`scancel ends a job for good, after a checkpoint (step ${stored})`);
  }

  async array(): Promise<void> {
    const id = await this.launch("array", ["trainer.max_steps=5"], ["--array", "seed=1,2", "--max-simultaneous", "1"]);
    for (const task of ["0", "1"]) {
      const { state } = await this.ended(`${id}_${task}`);
      expect(state === "COMPLETED", `task ${task}: ${state}`);
    }
    const outcomes = ["seed=1", "seed=2"].map((name) => outcome(join(this.folder, "array", name)));
    const different = differences(outcomes[0]!, outcomes[1]!);
    expect(outcomes.every(({ steps }) => steps === "1 2 3 4 5") && different.length > 0, JSON.stringify(outcomes));
    this.passed("an array of two trains each value in a folder of its own");
  }

  async longerThanItsLimit(seconds: number): Promise<void> {
    const steps = Math.ceil(seconds / (await this.secondsPerStep()));
    const overrides = [`trainer.max_steps=${steps}`];
    const id = await this.launch("limited", overrides, ["--time", "1", "--signal-before", "10"]);
    const { state, restarts } = await this.ended(id, { begun: 2 + Math.ceil(seconds / 5) });
    const log = this.log();
    expect(state === "COMPLETED", `${state} after ${restarts} restarts\n${log}`);
    expect(restarts > 0, `it fitted into its limit; try more than --seconds ${seconds}`);
    const begun = log.match(/resumed at step \d+/g) ?? [];
    this.passed(
      `${steps} steps did not fit into a minute: the job was queued again ${restarts} times (${[...new Set(begun)].join(", ")})`,
    );

    const undisturbed = await runMiro(["train", this.#recipe, ...overrides, "--output", join(this.folder, "whole")]);
    expect(undisturbed.code === 0, undisturbed.stderr);
    const different = differences(outcome(join(this.folder, "whole")), outcome(join(this.folder, "limited")));
    expect(different.length === 0, `differs from an undisturbed run: ${different.join(", ")}`);
    this.passed(
      "its last checkpoint and the steps of its log are those of a run that nothing disturbed, byte for byte",
    );
  }

  /** Measured on this machine, as busy as it is. */
  private async secondsPerStep(): Promise<number> {
    const output = join(this.folder, "measured");
    const { code, stderr } = await runMiro(["train", this.#recipe, "trainer.max_steps=20", "--output", output]);
    expect(code === 0, stderr);
    const [first, last] = [10, 20].map((step) => logLines(output).find((line) => line.step === step)!.seconds);
    return (last! - first!) / 10;
  }

  /** Submits a training of two processes. @returns the id of the job */
  private async launch(name: string, overrides: string[], options: string[] = []): Promise<string> {
    const args = [this.#recipe, ...overrides, "--output", join(this.folder, name), "--cpus-per-task", "1", ...options];
    const { code, stdout, stderr } = await runMiro(["launch", ...args]);
    expect(code === 0 && /^\d+\n$/.test(stdout), `miro launch: ${stdout}${stderr}`);
    console.log(`  job ${stdout.trim()}: ${name}`);
    return stdout.trim();
  }

  /** Waits until a job is over. @param begun how often it may begin at most */
  private async ended(id: string, { begun = 1 } = {}): Promise<JobState> {
    const deadline = Date.now() + begun * 180_000;
    let before = "";
    for (;;) {
      const now = await this.cluster.job(id);
      const text = `${now.state}, ${now.restarts} restarts`;
      if (text !== before) console.log(`  job ${id}: ${text}`);
      before = text;
      if (ENDED.includes(now.state)) return now;
      await this.pause(`job ${id} is still ${now.state}`, deadline);
    }
  }

  /** Waits until a run has done some steps. */
  private async steps(name: string, count: number): Promise<void> {
    const deadline = Date.now() + 180_000;
    while (logLines(join(this.folder, name)).length < count) await this.pause(`${name} does no steps`, deadline);
  }

  private async pause(what: string, deadline: number): Promise<void> {
    expect(!this.interrupted(), "interrupted");
    expect(Date.now() < deadline, `${what}\n${this.log()}`);
    await sleep(1000);
  }

  /** The process of a rank. */
  private rank(job: string, rank: number): number {
    const marks = [
      `SLURM_CONF=${process.env.SLURM_CONF}`,
      `SLURM_JOB_ID=${job}`,
      `SLURM_PROCID=${rank}`,
      "SLURM_STEP_ID=0",
    ];
    const pids = readdirSync("/proc").filter((pid) => {
      try {
        const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
        return marks.every((mark) => environment.includes(mark));
      } catch {
        return false; // no process, or gone
      }
    });
    expect(pids.length === 1, `processes of rank ${rank} of job ${job}: ${pids.join(", ") || "none"}`);
    return Number(pids[0]);
  }

  /** What the jobs have printed. */
  private log(): string {
    return readdirSync(this.#logs)
      .map((name) => `== ${name}\n${readFileSync(join(this.#logs, name), "utf8")}`)
      .join("");
  }

  private passed(what: string): void {
    console.log(`ok: ${what}`);
  }
}

function logLines(output: string): { step: number; seconds: number }[] {
  const path = join(output, "log.jsonl");
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as { step: number; seconds: number });
}

function expect(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new Error(otherwise);
}

process.exitCode = await runProgram({
  name: "npm run test:slurm --",
  summary: "Trains through `miro launch` on a real SLURM, set up on this machine for the occasion.",
  schema,
  notes: "Exit code 0: everything held; 1: something did not; 2: wrong usage, or SLURM is missing.",
  run: main,
});
