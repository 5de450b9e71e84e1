import { describe, expect, it } from "vitest";
import { type LoopOptions, runLoop, type Work } from "./loop.js";

/** Runs a loop of work that only counts; what happened, in order. */
async function events(options: Partial<LoopOptions>, work: Partial<Work> = {}, firstStep = 0) {
  const heard: string[] = [];
  let step = firstStep;
  const counting: Work = {
    get step() {
      return step;
    },
    advance: () => void heard.push(`step ${++step}`),
    pace: () => ({ loss: 1, stepsPerSecond: 2 }),
    log: () => void heard.push("log"),
    ...work,
  };
  const recurring = [
    { everyNSteps: 3, run: (at: number) => void heard.push(`checkpoint ${at}`) },
    { everyNSteps: 2, offset: 1, run: (at: number) => void heard.push(`samples ${at}`) },
    { everyNSteps: 0, run: () => expect.unreachable() },
  ];
  const finished = await runLoop(counting, {
    maxSteps: 4,
    batchSize: 8,
    logEveryNSteps: 2,
    recurring,
    stop: () => false,
    ...options,
  });
  return { finished, heard };
}

describe("the training loop", () => {
  it("does what is due after each step, in order: the log first, then what recurs, with its offset", async () => {
    expect(await events({})).toEqual({
      finished: true,
      heard: ["step 1", "samples 1", "step 2", "log", "step 3", "checkpoint 3", "samples 3", "step 4", "log"],
    });
    expect((await events({}, {}, 3)).heard).toEqual(["step 4", "log"]);
    expect(await events({}, {}, 4)).toEqual({ finished: true, heard: [] });
  });

  it("does at the beginning what may have been left after the last step", async () => {
    const heard: string[] = [];
    const run = (at: number) => void heard.push(`samples ${at}`);
    const left = { everyNSteps: 2, offset: 1, atStart: true, run };
    await events({ recurring: [left], maxSteps: 4 }, {}, 3);
    expect(heard).toEqual(["samples 3"]);
    await events({ recurring: [left], maxSteps: 3 }, {}, 3);
    expect(heard).toEqual(["samples 3", "samples 3"]);
    await events({ recurring: [left, { ...left, atStart: false }], maxSteps: 4 }, {}, 2);
    expect(heard).toEqual([...["samples 3", "samples 3"], ...["samples 3", "samples 3"]]);
  });

  it("tells how far it is and how long the rest takes", async () => {
    const told: object[] = [];
    await events({ maxSteps: 2, onProgress: (progress) => void told.push(progress) });
    expect(told).toEqual([
      { step: 1, totalSteps: 2, loss: 1, imagesPerSecond: 16, secondsLeft: 0.5 },
      { step: 2, totalSteps: 2, loss: 1, imagesPerSecond: 16, secondsLeft: 0 },
    ]);
  });

  it("ends before the next step on request, also where a wait for data or what recurs ends for it", async () => {
    let asked = 0;
    expect(await events({ stop: () => ++asked > 2 })).toEqual({
      finished: false,
      heard: ["step 1", "samples 1", "step 2", "log"],
    });
    const signal = AbortSignal.abort(new Error("enough"));
    const fails = () => {
      throw new Error("enough");
    };
    expect(await events({ signal }, { ready: fails })).toEqual({ finished: false, heard: [] });
    expect((await events({ signal, recurring: [{ everyNSteps: 1, run: fails }] })).heard).toEqual(["step 1"]);
    await expect(events({}, { ready: fails })).rejects.toThrow("enough");
    await expect(events({ recurring: [{ everyNSteps: 1, run: fails }] })).rejects.toThrow("enough");
  });
});
