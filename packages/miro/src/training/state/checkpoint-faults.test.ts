import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ones, scope } from "@miro-t2i/torch";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type RunOptions, runTraining } from "../loop/run.js";
import { recipeChanges, refuseRecipeChanges } from "../recipes/recipe-changes.js";
import { bits, tinyRecipe } from "../testing/tiny.js";
import { listCheckpoints, loadTrainingCheckpoint, type TrainingCheckpoint } from "./checkpoint.js";
import { CheckpointWriter } from "./checkpoint-writer.js";

const root = mkdtempSync(join(tmpdir(), "miro-faults-"));
const whole = join(root, "whole");
/** Stored at steps 4, 8 and 9; nothing else is written on the way. */
const recipe = (trainer: object = {}, rest: object = {}) => tinyRecipe({ log_every_n_steps: 100, ...trainer }, rest);
const train = (output: string, options: Partial<RunOptions> = {}) =>
  runTraining({ recipe: recipe(), output, ...options });
const stored = (output: string) => listCheckpoints(join(output, "checkpoints")).map(({ step }) => step);

/** Waits, with the whole thread, until the writing thread has stored a step. */
function untilStored(output: string, step: number): void {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  for (let i = 0; !stored(output).includes(step) && i < 2000; i++) Atomics.wait(clock, 0, 0, 10);
}

beforeAll(() => train(whole));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** What a test has mounted. */
const mounted: string[] = [];
afterEach(() => {
  for (const folder of mounted.splice(0).reverse()) execFileSync("umount", [folder]);
});
/** Whether this process may mount file systems: as root, outside of a locked container. */
const mayMount = (() => {
  const probe = join(root, "probe");
  mkdirSync(probe);
  try {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", probe], { stdio: "ignore" });
    execFileSync("umount", [probe]);
    return true;
  } catch {
    return false;
  }
})();

function mount(...args: string[]): void {
  execFileSync("mount", args);
  mounted.push(args.at(-1)!);
}

describe("a checkpoint that cannot be written", () => {
  it.runIf(mayMount)(
    "on a full disk: says so, leaves the last one whole, and the run goes on from it to the same end",
    async () => {
      const output = join(root, "full");
      mkdirSync(output);
      mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", output);
      const ballast = join(output, "ballast");
      const run = train(output, {
        onProgress: ({ step }) => {
          if (step !== 6) return;
          untilStored(output, 4);
          try {
            for (let i = 0; ; i++) writeFileSync(`${ballast}-${i}`, Buffer.alloc(2 ** 16));
          } catch {} // until the disk is full
        },
      });
      await expect(run).rejects.toThrow(
        /step-0000000\d: the checkpoint could not be written: no space left .*earlier ones are intact/,
      );
      expect(stored(output)).toEqual([4]);
      expect(readdirSync(join(output, "checkpoints")).filter((name) => name.startsWith("."))).toEqual([]);
      for (const name of readdirSync(output)) if (name.startsWith("ballast")) rmSync(join(output, name));
      expect(await train(output, { resume: true })).toMatchObject({ finished: true, step: 9 });
      expect(bits(output)).toEqual(bits(whole));
    },
  );

  it("into a folder that has become read-only: says so, and the last one stays", async () => {
    const output = join(root, "read-only");
    const folder = join(output, "checkpoints");
    const run = train(output, {
      onProgress: ({ step }) => {
        if (step !== 6) return;
        untilStored(output, 4);
        if (mayMount) {
          mount("--bind", folder, folder);
          execFileSync("mount", ["-o", "remount,bind,ro", folder]);
        } else chmodSync(folder, 0o555);
      },
    });
    await expect(run).rejects.toThrow(/could not be written: (the file system is read-only|permission denied)/);
    if (mayMount) execFileSync("umount", [mounted.pop()!]);
    else chmodSync(folder, 0o755);
    expect(stored(output)).toEqual([4]);
    expect(await train(output, { resume: true })).toMatchObject({ finished: true });
    expect(bits(output)).toEqual(bits(whole));
  });
});

describe("a damaged newest checkpoint", () => {
  it("is named with the newest whole one, from which the run goes on to the same end", async () => {
    const output = join(root, "damaged");
    await train(output);
    expect(stored(output)).toEqual([8, 9]);
    truncateSync(join(output, "checkpoints/step-00000009/optimizer.safetensors"), 1000);
    await expect(train(output, { resume: true })).rejects.toThrow(
      /step-00000009\/optimizer\.safetensors: is damaged.*: `resume: 8` continues from there$/,
    );
    const messages: string[] = [];
    const onMessage = (message: string) => messages.push(message);
    expect(await train(output, { resume: 8, onMessage })).toMatchObject({ finished: true, step: 9 });
    expect(messages).toContainEqual(
      expect.stringMatching(/^a later checkpoint is set aside: .*replaced-step-00000009$/),
    );
    expect(bits(output)).toEqual(bits(whole));
  });
});

describe("resuming", () => {
  it("by another recipe is refused with the values that differ and what to do; the checkpoint stays", async () => {
    const output = join(root, "changed");
    await train(output);
    const before = bits(output);
    const other = recipe({ batch_size: 8, log_every_n_steps: 1 }, { optimizer: { name: "lamb", lr: 0.02 } });
    const said: string[] = [];
    const onMessage = (text: string) => void said.push(text);
    const error = await train(output, { recipe: other, resume: true, onMessage }).catch((error: Error) => error);
    expect(said).not.toContain("opening the data"); // which may take long
    expect((error as Error).message.split("\n")).toEqual([
      expect.stringMatching(/step-00000009: the run was made by another recipe:$/),
      "  optimizer.lr: 0.01 in the checkpoint, 0.02 now",
      "  trainer.batch_size: 4 in the checkpoint, 8 now",
      expect.stringMatching(/`allowChanges: true`.*initialization\.from/),
    ]);
    expect(bits(output)).toEqual(before);
    const longer = recipe({ max_steps: 11 }, { optimizer: { name: "lamb", lr: 0.02 } });
    expect(await train(output, { recipe: longer, resume: true, allowChanges: true })).toMatchObject({ step: 11 });
  });

  it("may change what decides nothing", () => {
    const base = {
      name: "a",
      data: { root: ["/a"] },
      trainer: { threads: 1, max_steps: 9 },
      lr_scheduler: { total_steps: 9 },
    };
    const moved = { ...base, name: "b", data: { root: ["/b"] }, trainer: { threads: 4, max_steps: 12 } };
    expect(recipeChanges(base, moved)).toEqual([]);
  });

  it("counts a longer run as a change where the schedule ends with it", () => {
    const ending = (steps: number) => ({ trainer: { max_steps: steps }, lr_scheduler: { warmup_steps: 1 } });
    const longer = recipeChanges(ending(9), ending(12));
    expect(longer).toEqual([{ key: "lr_scheduler.total_steps", before: 9, now: 12 }]);
    expect(() => refuseRecipeChanges("here", longer)).toThrow(/; lr_scheduler\.total_steps=9 keeps it$/m);
  });
});

describe("the writer", () => {
  const checkpoint = (step: number, values: TrainingCheckpoint["network"]): TrainingCheckpoint => ({
    state: { format: 1, step, emaUpdates: 0, skippedSteps: 0, seconds: 0, optimizerStep: step, recipe: {} },
    network: values,
    emas: {},
    optimizer: {},
  });

  it("stores the values of the moment of saving, whatever happens to the tensors afterwards", async () => {
    const folder = join(root, "moment");
    const writer = new CheckpointWriter(folder, { keepLast: 10 });
    const w = scope(() => ones([1000, 1000]).keep());
    for (let step = 1; step <= 4; step++) {
      scope(() => void w.fill_(step));
      await writer.save(checkpoint(step, { w }));
      scope(() => void w.fill_(-1));
    }
    await writer.settled();
    await writer.close();
    scope(() => {
      for (const { step, path } of listCheckpoints(folder)) {
        const { w } = loadTrainingCheckpoint(path).network;
        expect([w!.amin().item(), w!.amax().item()]).toEqual([step, step]);
      }
    });
    expect(listCheckpoints(folder).length).toBe(4);
    w.dispose();
  });

  it("copies while the training goes on: tensors that change once they are copied are stored as they were", async () => {
    const folder = join(root, "begun");
    const writer = new CheckpointWriter(folder, { keepLast: 10 });
    const w = scope(() => ones([1000, 1000]).keep());
    for (let step = 1; step <= 3; step++) {
      scope(() => void w.fill_(step));
      await writer.begin(checkpoint(step, { w }));
      expect(scope(() => w.sum().item())).toBe(step * 1e6); // may be read meanwhile
      await writer.copied();
      await writer.copied(); // once more costs nothing
      scope(() => void w.fill_(-1));
    }
    await writer.settled();
    await writer.close();
    scope(() => {
      const stored = listCheckpoints(folder).map(({ path }) => loadTrainingCheckpoint(path).network.w!);
      expect(stored.map((t) => [t.amin().item(), t.amax().item()])).toEqual([1, 2, 3].map((step) => [step, step]));
    });
    w.dispose();
  });

  it("reports a failure with the next step, the next save and the end", async () => {
    const file = join(root, "a-file");
    writeFileSync(file, "");
    const writer = new CheckpointWriter(join(file, "below"));
    await writer.save(checkpoint(1, {}));
    await expect(writer.settled()).rejects.toThrow(/could not be written: .*not a folder/);
    expect(() => writer.check()).toThrow(/could not be written/);
    await expect(writer.save(checkpoint(2, {}))).rejects.toThrow(/step-00000001: .*could not be written/);
    await writer.close();
    expect(existsSync(file)).toBe(true);
  });
});
