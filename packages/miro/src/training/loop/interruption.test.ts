import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseRecipe } from "../recipes/recipe.js";
import { listCheckpoints } from "../state/checkpoint.js";
import { bits, tinyRecipeJson } from "../testing/tiny.js";
import { runTraining } from "./run.js";

const root = mkdtempSync(join(tmpdir(), "miro-interrupt-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const miro = join(import.meta.dirname, "../../../bin/miro.mjs");
const recipe = join(root, "recipe.yaml");
const whole = join(root, "whole");
const STEPS = 30;
const json = tinyRecipeJson(
  { max_steps: STEPS, batch_size: 16, threads: 1, log_every_n_steps: 1, checkpoint_every_n_steps: 2 },
  { lr_scheduler: { warmup_steps: 3 } },
);

beforeAll(async () => {
  writeFileSync(recipe, JSON.stringify(json)); // JSON is YAML
  await runTraining({ recipe: parseRecipe(json), output: whole });
});

interface Run {
  child: ChildProcess;
  ended: Promise<{ code: number | null; signal: string | null; stderr: string }>;
}

function train(...args: string[]): Run {
  return start(args);
}

function start(args: string[], environment: Record<string, string> = {}, messages: "pipe" | number = "pipe"): Run {
  const child = spawn(process.execPath, [miro, "train", recipe, ...args], {
    stdio: ["ignore", "pipe", messages],
    env: { ...process.env, ...environment },
  });
  let stderr = "";
  child.stderr?.on("data", (data) => {
    stderr += data;
  });
  const ended = new Promise<{ code: number | null; signal: string | null; stderr: string }>((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, stderr }));
  });
  return { child, ended };
}

/** The last step in a run's log. */
function loggedStep(output: string): number {
  const path = join(output, "log.jsonl");
  const lines = existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];
  return lines.length === 0 ? 0 : (JSON.parse(lines.at(-1)!).step as number);
}

/** The newest step that is stored. */
function storedStep(output: string): number {
  return listCheckpoints(join(output, "checkpoints")).at(-1)?.step ?? 0;
}

/** Sends a signal as soon as a step is reached; resolves when the process has ended. */
async function interruptAt(run: Run, reached: () => number, step: number, signal: NodeJS.Signals) {
  const watch = setInterval(() => {
    if (reached() < step) return;
    clearInterval(watch); // a second Ctrl-C would not wait
    run.child.kill(signal);
  }, 2);
  try {
    return await run.ended;
  } finally {
    clearInterval(watch);
  }
}

function lifeOfPid(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("miro train", { timeout: 180_000 }, () => {
  it("survives kill -9 again and again, and ends with the weights of an undisturbed run", async () => {
    const output = join(root, "killed");
    for (const step of [3, 8, 17]) {
      const run = train("--output", output, ...(step > 3 ? ["--resume"] : []));
      const ending = await interruptAt(run, () => storedStep(output), step, "SIGKILL");
      expect(ending).toMatchObject({ signal: "SIGKILL" });
    }
    expect(await train("--output", output, "--resume").ended).toMatchObject({ code: 0 });
    expect(bits(output)).toEqual(bits(whole));
    const steps = readFileSync(join(output, "log.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).step);
    expect(steps).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  });

  it.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "stores a checkpoint on %s, ends with 130, and says how to continue",
    async (signal) => {
      const output = join(root, signal);
      const { code, stderr } = await interruptAt(train("--output", output), () => loggedStep(output), 5, signal);
      expect(code).toBe(130);
      const { step } = listCheckpoints(join(output, "checkpoints")).at(-1)!;
      expect(stderr).toContain(`stopped at step ${step}; continue with --resume`);
      expect(step).toBe(loggedStep(output));
      expect(await train("--output", output, "--resume").ended).toMatchObject({ code: 0 });
      expect(bits(output)).toEqual(bits(whole));
    },
  );

  it("goes on to its end under nohup when the terminal ends", async () => {
    const output = join(root, "nohup");
    const run = start(["--output", output], { _: "/usr/bin/nohup" });
    expect(await interruptAt(run, () => loggedStep(output), 5, "SIGHUP")).toMatchObject({ code: 0 });
    expect(bits(output)).toEqual(bits(whole));
  });

  it("goes on to its end when nothing can be said", async () => {
    const output = join(root, "full");
    const full = openSync("/dev/full", "w");
    try {
      expect(await start(["--output", output], {}, full).ended).toMatchObject({ code: 0 });
    } finally {
      closeSync(full);
    }
    expect(bits(output)).toEqual(bits(whole));
    expect(loggedStep(output)).toBe(STEPS);
  });

  it("stores a checkpoint and stops when the npx that has started it is gone", async () => {
    const output = join(root, "orphan");
    const program = `
      const { spawn } = require("node:child_process");
      console.log(spawn(process.execPath, process.argv.slice(1), { stdio: "ignore" }).pid);`;
    const args = [miro, "train", recipe, "--output", output, "trainer.max_steps=1000000"];
    const npx = spawn(process.execPath, ["-e", program, ...args], {
      env: { ...process.env, npm_command: "exec", _: "" },
    });
    const [pid] = (await once(npx.stdout, "data")) as [Buffer];
    try {
      await expect.poll(() => loggedStep(output), { interval: 20 }).toBeGreaterThan(3);
      npx.kill("SIGKILL");
      await expect.poll(() => lifeOfPid(Number(pid))).toBe(false);
    } finally {
      if (lifeOfPid(Number(pid))) process.kill(Number(pid), "SIGKILL");
    }
    expect(storedStep(output)).toBe(loggedStep(output));
    expect(readdirSync(output).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("refuses to train in a folder in which another one trains", async () => {
    const output = join(root, "twice");
    const first = train("--output", output, "trainer.max_steps=1000000");
    try {
      await expect.poll(() => loggedStep(output), { interval: 20 }).toBeGreaterThan(0);
      const { code, stderr } = await train("--output", output, "--resume").ended;
      expect(code).toBe(2);
      expect(stderr).toMatch(new RegExp(`process ${first.child.pid} on .* trains here; wait for its end`));
    } finally {
      first.child.kill("SIGKILL");
      await first.ended;
    }
  });

  it("refuses a wrong override in one line, exit code 2", async () => {
    const { code, stderr } = await train("trainer.max_step=3", "--output", join(root, "none")).ended;
    expect([code, stderr.trim().split("\n").length]).toEqual([2, 1]);
    expect(stderr).toMatch(/unknown key trainer\.max_step; did you mean max_steps/);
    expect(existsSync(join(root, "none"))).toBe(false);
  });
});
