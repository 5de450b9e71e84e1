// Trainings in several processes, compared with one process, interrupted, and with processes that are lost.
import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listCheckpoints } from "../state/checkpoint.js";
import { bits, tinyRecipe, tinyRecipeJson } from "../testing/tiny.js";
import { VARYING_METRICS } from "../testing/varying-metrics.js";
import { runTraining } from "./run.js";

const root = mkdtempSync(join(tmpdir(), "miro-ranks-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Without what is drawn differently for other rows, and without an optimizer that makes rounding noise large. */
const splittable = {
  network: { ...(tinyRecipeJson().network as object), coherence_dropout: 0 },
  optimizer: { name: "adamw", lr: 0.001 },
};
const recipe = (trainer: object, rest: object = splittable) =>
  tinyRecipe({ batch_size: 12, threads: 1, ...trainer }, rest);

const newest = (output: string) => listCheckpoints(join(output, "checkpoints")).at(-1)!;

function weights(output: string): Record<string, number[]> {
  return scope(() => {
    const tensors = [...readSafetensors(join(newest(output).path, "network.safetensors"))];
    const floats = tensors.filter(([name, t]) => t.dtype === "float32" && !/k_norm\.bias|qkv\.bias/.test(name));
    return Object.fromEntries(floats.map(([name, t]) => [name, t.flatten().toList() as number[]]));
  });
}

function expectAlike(one: string, other: string): void {
  const [a, b] = [weights(one), weights(other)];
  expect(Object.keys(a)).toEqual(Object.keys(b));
  for (const [name, values] of Object.entries(a))
    values.forEach((value, i) => void expect(b[name]![i], name).toBeCloseTo(value, 4));
}

const log = (output: string): Record<string, number>[] =>
  readFileSync(join(output, "log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("several processes", { timeout: 180_000 }, () => {
  it("train as one does, however the batch is divided", async () => {
    const whole = join(root, "one");
    await runTraining({ recipe: recipe({ max_steps: 5 }), output: whole });
    for (const settings of [{ devices: 2 }, { devices: 4, accumulate_grad_batches: 3 }]) {
      const output = join(root, `${settings.devices}`);
      const messages: string[] = [];
      const result = await runTraining({
        recipe: recipe({ max_steps: 5, ...settings }),
        output,
        onMessage: (message) => messages.push(message),
      });
      expect(result).toEqual({ finished: true, step: 5, checkpoint: newest(output).path, exported: null });
      expectAlike(output, whole);
      expect(messages[0]).toMatch(new RegExp(`^${settings.devices} processes: \\d+`));
      // One log, with the figures of the whole batch.
      const [ours, theirs] = [log(output), log(whole)];
      expect(ours.map(({ step }) => step)).toEqual(theirs.map(({ step }) => step));
      for (const [i, line] of theirs.entries())
        for (const [name, value] of Object.entries(line))
          if (!VARYING_METRICS.test(name)) expect(ours[i]![name], name).toBeCloseTo(value, 4);
    }
  });

  it("stop together after the same step when the time of one is over", async () => {
    const settings = { devices: 2, max_steps: 100_000, max_minutes: 1e-9 };
    const result = await runTraining({ recipe: recipe(settings), output: join(root, "timed") });
    expect(result).toMatchObject({ finished: false, outOfTime: true, step: 1 });
  });

  it("stop together after the same step, and go on to the bit with as many, and without a gap with fewer", async () => {
    const settings = { devices: 3, max_steps: 8, checkpoint_every_n_steps: 8, log_every_n_steps: 1 };
    const whole = join(root, "three");
    await runTraining({ recipe: recipe(settings), output: whole });
    const stopped = join(root, "three-stopped");
    const stop = new AbortController();
    const first = await runTraining({
      recipe: recipe(settings),
      output: stopped,
      signal: stop.signal,
      onProgress: ({ step }) => step === 3 && stop.abort(),
    });
    expect(first.finished).toBe(false);
    expect(first.step).toBeGreaterThanOrEqual(3);
    expect(first.step).toBeLessThan(8);
    const copy = join(root, "three-fewer");
    cpSync(stopped, copy, { recursive: true });
    await runTraining({ recipe: recipe(settings), output: stopped, resume: true });
    expect(bits(stopped)).toEqual(bits(whole));
    await runTraining({ recipe: recipe({ ...settings, devices: 1 }), output: copy, resume: true });
    expectAlike(copy, whole);
    for (const output of [stopped, copy]) expect(log(output).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("refuse in one line what each of them refuses", async () => {
    const output = join(root, "refused");
    await runTraining({ recipe: recipe({ devices: 2, max_steps: 1 }), output });
    await expect(runTraining({ recipe: recipe({ devices: 2, max_steps: 1 }), output })).rejects.toMatchObject({
      name: "InvalidInputError",
      message: `${output}: holds a run at step 1; continue it with \`resume: true\`, or name another \`output\``,
    });
  });
});

describe("a process that is lost", { timeout: 120_000 }, () => {
  /** Trains in two processes and sends a signal to the second at step 3. */
  async function lose(name: string, signal: NodeJS.Signals, strategy: object = {}) {
    const output = join(root, name);
    let pids: number[] = [];
    let sent = 0;
    const warnings: string[] = [];
    const failure = await runTraining({
      recipe: recipe({ devices: 2, max_steps: 100_000, checkpoint_every_n_steps: 2, strategy }),
      output,
      onMessage: (message) => {
        const list = /^2 processes: (.*)/.exec(message)?.[1];
        if (list !== undefined) pids = list.split(", ").map(Number);
      },
      onWarning: (warning) => warnings.push(warning),
      onProgress: ({ step }) => {
        if (step < 3 || sent > 0) return;
        sent = performance.now();
        process.kill(pids[1]!, signal);
      },
    }).catch((error: Error) => error);
    const left = pids.filter((pid) => existsSync(`/proc/${pid}`));
    return { failure, afterMs: performance.now() - sent, left, output, warnings };
  }

  it("takes the others with it at once, and its end is what is told", async () => {
    const { failure, afterMs, left, output } = await lose("killed", "SIGKILL");
    expect(failure).toMatchObject({ name: "MiroError" });
    expect((failure as Error).message).toMatch(/^rank 1 of 2: ended by SIGKILL/);
    expect(afterMs).toBeLessThan(20_000);
    expect(left).toEqual([]);
    await runTraining({ recipe: recipe({ devices: 2, max_steps: newest(output).step + 1 }), output, resume: true });
  });

  it("and hangs: it is told who waits for it, the others give up after the timeout, and it is ended", async () => {
    const { failure, left, warnings } = await lose("hanging", "SIGSTOP", { timeout_seconds: 12 });
    expect(warnings.filter((text) => !/^lr_scheduler/.test(text))[0]).toMatch(
      /^rank 0 has waited \d+ s in .* for rank 1 \(no sign of life for \d+ s: stopped, or its machine is away\)$/,
    );
    const missed = "the other ranks did not answer within 12000 ms";
    const killed = "rank 1 did not end and had to be killed";
    expect((failure as Error).message).toMatch(
      new RegExp(`^rank 0 of 2: .* failed on rank 0 of 2 \\(gloo\\): ${missed}.*; ${killed}$`),
    );
    expect(left).toEqual([]);
  });
});

describe("processes that somebody else starts", { timeout: 120_000 }, () => {
  const miro = join(import.meta.dirname, "../../../bin/miro.mjs");
  const file = join(root, "recipe.yaml");
  const children = new Set<ChildProcess>();
  afterAll(() => {
    for (const child of children) child.kill("SIGKILL");
  });

  function start(environment: NodeJS.ProcessEnv, ...args: string[]) {
    writeFileSync(file, JSON.stringify(tinyRecipeJson({ batch_size: 12, threads: 1, devices: 2 }, splittable)));
    const child = spawn(process.execPath, [miro, "train", file, ...args], {
      env: { ...process.env, MASTER_ADDR: "127.0.0.1", MASTER_PORT: "29613", ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.add(child);
    let stderr = "";
    child.stderr!.on("data", (data) => {
      stderr += data;
    });
    const ended = new Promise<{ code: number | null; stderr: string }>((resolve) => {
      child.on("close", (code) => {
        children.delete(child);
        resolve({ code, stderr });
      });
    });
    return { child, ended };
  }

  it("end with the process that has started them, also while one hangs and the others wait for it", async () => {
    const { child, ended } = start({ RANK: "" }, "--output", join(root, "twice"), "trainer.max_steps=1000000");
    let stderr = "";
    child.stderr!.on("data", (data) => {
      stderr += data;
    });
    await expect.poll(() => stderr, { interval: 20 }).toMatch(/step 1\//);
    const pids = /2 processes: (\d+), (\d+)/.exec(stderr)!.slice(1).map(Number) as [number, number];
    process.kill(pids[1], "SIGSTOP");
    const interrupt = setInterval(() => child.kill("SIGINT"), 1000); // a second one does not wait
    try {
      expect((await ended).code).toBe(130);
    } finally {
      clearInterval(interrupt);
    }
    await expect.poll(() => pids.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
  });

  it("train together, stop on a cluster's warning to any of them, and resume", async () => {
    const output = join(root, "started");
    const args = ["trainer.max_steps=150", "trainer.checkpoint_every_n_steps=150", "lr_scheduler.total_steps=150"];
    const both = (...more: string[]) =>
      [0, 1].map((rank) => start({ RANK: String(rank), WORLD_SIZE: "2" }, ...args, "--output", output, ...more));
    const ranks = both();
    const watch = setInterval(() => {
      if (!existsSync(join(output, "log.jsonl")) || readFileSync(join(output, "log.jsonl"), "utf8") === "") return;
      clearInterval(watch);
      ranks[1]!.child.kill("SIGUSR1");
    }, 20);
    // A launcher may end all ranks when the first of them has gone.
    const storedBefore = Promise.race(ranks.map(({ ended }) => ended)).then(() => newest(output).step);
    const endings = await Promise.all(ranks.map(({ ended }) => ended));
    clearInterval(watch);
    expect(endings.map(({ code }) => code)).toEqual([130, 130]);
    const { step } = newest(output);
    expect(await storedBefore).toBe(step);
    expect(endings[0]!.stderr).toContain(`Interrupted: stopped at step ${step}`);
    expect(endings[1]!.stderr).not.toContain("Interrupted");
    const again = await Promise.all(both().map(({ ended }) => ended));
    for (const [rank, { code, stderr }] of again.entries()) {
      expect(code).toBe(2);
      expect(stderr).toContain(`error: rank ${rank} of 2 on ${hostname()}: ${output}: holds a run at step ${step};`);
    }
    const resumed = await Promise.all(both("--resume").map(({ ended }) => ended));
    expect(resumed.map(({ code }) => code)).toEqual([0, 0]);
    expect(newest(output).step).toBe(150);
  });

  it("refuse another recipe than that of the first, each by what is its own", async () => {
    const output = join(root, "disagreeing");
    const ranks = [0, 1].map((rank) =>
      start({ RANK: String(rank), WORLD_SIZE: "2" }, `seed=${rank}`, `ema.decay=0.${rank + 8}`, "--output", output),
    );
    const endings = await Promise.all(ranks.map(({ ended }) => ended));
    const what = "ranks disagree on the recipe: rank 1 does not have that of rank 0";
    const own = ["", "; seed is 1 here, 0 there; ema.decay is 0.9 here, 0.8 there"];
    for (const [rank, { code, stderr }] of endings.entries()) {
      expect(code).toBe(2);
      const [last] = stderr.trim().split("\n").slice(-1);
      expect(last).toBe(`error: rank ${rank} of 2 on ${hostname()}: ${what}${own[rank]}`);
    }
    expect(existsSync(output)).toBe(false);
  });

  describe("of which the first", () => {
    const settings = ["trainer.max_steps=6", "trainer.checkpoint_every_n_steps=2", "trainer.log_every_n_steps=1"];
    /** Runs both. @param atFirst what the first does in its file operations, as a module */
    const both = async (output: string, atFirst = "", ...more: string[]) => {
      const preload = `--import data:text/javascript;base64,${Buffer.from(atFirst).toString("base64")}`;
      const ranks = [0, 1].map((rank) =>
        start(
          { RANK: String(rank), WORLD_SIZE: "2", ...(rank === 0 && { NODE_OPTIONS: preload }) },
          ...settings,
          "--output",
          output,
          ...more,
        ),
      );
      return Promise.all(ranks.map(({ ended }) => ended));
    };
    /** Does something in a file operation whose arguments match. */
    const at = (operation: string, pattern: RegExp, then: string) => `
      import fs from "node:fs";
      import { syncBuiltinESMExports } from "node:module";
      const real = fs.${operation};
      fs.${operation} = (...args) => {
        if (args.some((one) => ${pattern}.test(String(one)))) ${then};
        return real(...args);
      };
      syncBuiltinESMExports();`;
    const whole = join(root, "undisturbed");
    beforeAll(async () => void (await both(whole)), 60_000);

    const die = "process.kill(process.pid, 'SIGKILL')";
    const full = "throw Object.assign(new Error('full'), { code: 'ENOSPC' })";
    it.each([
      ["is killed in the middle of a checkpoint", at("renameSync", /step-00000004\.[^/]*\/ema/, die), 2],
      ["is killed before the link leads to a checkpoint", at("symlinkSync", /step-00000004/, die), 4],
      ["is killed while it removes an old checkpoint", at("rmSync", /\.step-00000002\./, die), 6],
      ["finds the disk full", at("renameSync", /step-00000004\.[^/]*\/ema/, full), 2],
    ])("%s: the other ends with one line, and both go on to the same end", async (name, atFirst, kept) => {
      const output = join(root, name);
      const [first, other] = await both(output, atFirst);
      expect(other!.code).toBe(1);
      expect(other!.stderr.trim()).toMatch(
        /^error: \w+ failed on rank 1 of 2 \(gloo\): another rank has ended \([^\n]*\); see what [^\n]*$/,
      );
      if (atFirst.includes("ENOSPC")) {
        const path = join(output, "checkpoints", "step-00000004");
        expect(first!.code).toBe(1);
        expect(first!.stderr.trim().split("\n").at(-1)).toMatch(
          new RegExp(`^error: rank 0 of 2 on .*: ${path}: the checkpoint could not be written: no space left`),
        );
      } else expect(first!.code).toBeNull();
      expect(newest(output).step).toBe(kept);
      expect((await both(output, "", "--resume")).map(({ code }) => code)).toEqual([0, 0]);
      expect(bits(output)).toEqual(bits(whole));
      const files = (folder: string) => readdirSync(folder).concat(readdirSync(join(folder, "checkpoints")));
      expect(files(output)).toEqual(files(whole));
      expect(log(output).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    });
  });

  it("are as many as the recipe says", async () => {
    const { code, stderr } = await start({ RANK: "0", WORLD_SIZE: "3" }, "--output", join(root, "none")).ended;
    expect([code, stderr.trim()]).toEqual([
      2,
      "error: trainer.devices × trainer.num_nodes: 2, but the environment starts 3 processes (SLURM_STEP_NUM_TASKS or WORLD_SIZE); make them agree",
    ]);
  });
});
