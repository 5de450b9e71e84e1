/** Trainings of two processes as jobs of a private cluster: submitted, waited for, looked at. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runMiro } from "../soak/kill-and-restart.js";
import { RECIPE } from "../soak/training-kill.js";
import type { Cluster, JobState } from "./cluster.js";

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

export class Jobs {
  readonly cluster: Cluster;
  /** Holds the runs, each in a folder of its name, and everything else that the trials make. */
  readonly folder: string;
  readonly recipe: string;
  readonly #logs: string;
  readonly #interrupted: () => boolean;

  constructor(cluster: Cluster, folder: string, interrupted: () => boolean) {
    this.cluster = cluster;
    this.folder = folder;
    this.#interrupted = interrupted;
    this.recipe = join(folder, "slurm.yaml");
    this.#logs = join(folder, "logs");
    writeFileSync(this.recipe, JSON.stringify(recipe)); // JSON is YAML
    mkdirSync(this.#logs);
    process.env.MIRO_SLURM_OUTPUT_DIR = this.#logs;
  }

  /** Submits a training of two processes. @returns the id of the job */
  async launch(name: string, overrides: string[], options: string[] = []): Promise<string> {
    const stdout = await this.miroLaunch(name, overrides, options);
    expect(/^\d+\n$/.test(stdout), `miro launch: ${stdout}`);
    console.log(`  job ${stdout.trim()}: ${name}`);
    return stdout.trim();
  }

  /** Runs `miro launch` for such a training. @returns what it prints */
  async miroLaunch(name: string, overrides: string[], options: string[] = []): Promise<string> {
    const args = [this.recipe, ...overrides, "--output", join(this.folder, name), "--cpus-per-task", "1", ...options];
    const { code, stdout, stderr } = await runMiro(["launch", ...args]);
    expect(code === 0, `miro launch: ${stdout}${stderr}`);
    return stdout;
  }

  /** Waits until a job is over. @param begun how often it may begin at most */
  async ended(id: string, { begun = 1 } = {}): Promise<JobState> {
    const deadline = Date.now() + begun * 180_000;
    let before = "";
    for (;;) {
      const now = await this.cluster.job(id);
      const text = `${now.state}, ${now.restarts} restarts`;
      if (text !== before) console.log(`  job ${id}: ${text}`);
      before = text;
      if (ENDED.includes(now.state)) return now;
      await this.#pause(`job ${id} is still ${now.state}`, deadline);
    }
  }

  /** Waits until a job has ended well. */
  async completed(id: string): Promise<void> {
    const { state } = await this.ended(id);
    expect(state === "COMPLETED", `job ${id}: ${state}\n${this.log(id)}`);
  }

  /** Waits until a run has done some steps. */
  async steps(name: string, count: number): Promise<void> {
    const deadline = Date.now() + 180_000;
    while (logLines(join(this.folder, name)).length < count) await this.#pause(`${name} does no steps`, deadline);
  }

  async #pause(what: string, deadline: number): Promise<void> {
    expect(!this.#interrupted(), "interrupted");
    expect(Date.now() < deadline, `${what}\n${this.log()}`);
    await sleep(1000);
  }

  /** The process of a rank. @param step of the job, from 0 */
  rank(job: string, rank: number, step = 0): number {
    const marks = [
      `SLURM_CONF=${process.env.SLURM_CONF}`,
      `SLURM_JOB_ID=${job}`,
      `SLURM_PROCID=${rank}`,
      `SLURM_STEP_ID=${step}`,
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

  /** What a job has printed; without an id, what all of them have. */
  log(id?: string): string {
    return readdirSync(this.#logs)
      .filter((name) => id === undefined || name.endsWith(`-${id}.log`))
      .map((name) => `== ${name}\n${readFileSync(join(this.#logs, name), "utf8")}`)
      .join("");
  }

  passed(what: string): void {
    console.log(`ok: ${what}`);
  }
}

/** The lines that a run has logged. */
export function logLines(output: string): { step: number; seconds: number }[] {
  const path = join(output, "log.jsonl");
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as { step: number; seconds: number });
}

export function expect(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new Error(otherwise);
}
