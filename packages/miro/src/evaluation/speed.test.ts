import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { measureSpeed } from "./speed.js";

let pipe: MiroPipeline;
beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained();
});
afterAll(() => pipe.dispose());

describe("the speed of a pipeline", () => {
  it("is measured for each number of pictures, the first call of each uncounted, steps within calls", async () => {
    const calls: string[] = [];
    const speeds = await measureSpeed(pipe, {
      batches: [1, 2],
      rounds: 2,
      steps: 3,
      onProgress: (done, total) => calls.push(`${done}/${total}`),
    });
    expect(calls).toEqual(["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]);
    expect(speeds.map(({ batch, steps }) => [batch, steps])).toEqual([
      [1, 3],
      [2, 3],
    ]);
    for (const { batch, call, step, rest, picturesPerSecond } of speeds) {
      for (const { min, median, max } of [call, step, rest]) {
        expect(min).toBeGreaterThanOrEqual(0);
        expect(median).toBeGreaterThanOrEqual(min);
        expect(max).toBeGreaterThanOrEqual(median);
      }
      expect(step.min * 2).toBeLessThan(call.max);
      expect(picturesPerSecond).toBeCloseTo(batch / call.median, 9);
    }
  });

  it("of a single step is that of the call", async () => {
    const [alone] = await measureSpeed(pipe, { rounds: 1, steps: 1 });
    expect(alone!.step).toEqual(alone!.call);
  });

  it("stops by its signal and refuses wrong numbers by name", async () => {
    const signal = AbortSignal.abort();
    await expect(measureSpeed(pipe, { signal })).rejects.toThrow(signal.reason);
    await expect(measureSpeed(pipe, { batches: [0] })).rejects.toThrow(/^batches\.0: expected integers of at least 1/);
    await expect(measureSpeed(pipe, { rounds: 0 })).rejects.toThrow(/^rounds: expected an integer of at least 1/);
  });
});
