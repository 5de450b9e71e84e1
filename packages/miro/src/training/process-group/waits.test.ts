import { describe, expect, it } from "vitest";
import { Activity, type Doing } from "./activity.js";
import { signKey, Watch, waitAmong } from "./waits.js";

const inside = (begun: number, sinceMs: number): Doing => ({
  begun,
  isInside: true,
  what: `the gradients of step ${begun}`,
  sinceMs,
});
const busy = (begun: number, sinceMs: number, what = "computing"): Doing => ({ begun, isInside: false, what, sinceMs });
const heard = (doing: Doing) => ({ doing, silentMs: 100 });
const silent = (doing: Doing | null) => ({ doing, silentMs: 40_000 });

describe("who is waited for", () => {
  const told = (...ranks: Parameters<typeof waitAmong>[0]) => waitAmong(ranks, 30_000)?.text ?? null;

  it("is nobody while all compute, and while the wait is short", () => {
    expect(told(heard(busy(3, 90_000)), heard(busy(3, 90_000)))).toBeNull();
    expect(told(heard(inside(4, 29_000)), heard(busy(3, 29_000)))).toBeNull();
  });

  it("is nobody where all are in the same operation, which takes long", () => {
    expect(told(heard(inside(4, 90_000)), heard(inside(4, 80_000)))).toBeNull();
  });

  it("is who has not come, with what it does", () => {
    expect(told(heard(busy(3, 31_000, "drawing the samples of step 3")), heard(inside(4, 30_400)))).toBe(
      "rank 1 has waited 30 s in the gradients of step 4 for rank 0 (drawing the samples of step 3 for 31 s)",
    );
  });

  it("is who gives no sign of life, wherever it was", () => {
    const text =
      "rank 0 has waited 45 s in the gradients of step 4 for rank 1 " +
      "(no sign of life for 40 s: stopped, or its machine is away)";
    for (const last of [inside(4, 41_000), busy(4, 41_000), busy(3, 41_000), null])
      expect(told(heard(inside(4, 45_000)), silent(last))).toBe(text);
  });

  it("is not who has left the operation already", () => {
    expect(told(heard(inside(4, 45_000)), heard(busy(4, 1000)))).toBeNull();
  });

  it("are some of many by name", () => {
    const late = Array.from({ length: 7 }, () => heard(busy(3, 50_000)));
    expect(told(...late, heard(inside(4, 45_000)))).toMatch(
      /^rank 7 has waited 45 s in .* for rank 0 \(.*\), rank 1 \(.*\), rank 2 \(computing for 50 s\), 4 others$/,
    );
  });

  it("is told once, and again when the wait has doubled", () => {
    const watch = new Watch({ get: async () => "" }, 2, 600_000);
    const due = [10, 30, 31, 59, 60, 100, 121].filter((s) => watch.isDue({ begun: 4, waitedMs: s * 1000 }));
    expect(due).toEqual([30, 60, 121]);
    expect(watch.isDue({ begun: 5, waitedMs: 30_000 })).toBe(true);
  });

  it("is found in the signs that lie in the store", async () => {
    const signs = new Map([
      [signKey(0), JSON.stringify({ number: 7, ...inside(4, 31_000) })],
      [signKey(1), JSON.stringify({ number: 7, ...busy(3, 31_000, "waiting for the data of step 4") })],
    ]);
    const watch = new Watch({ get: async (key) => signs.get(key) ?? "" }, 2, 600_000);
    expect(await watch.look()).toMatchObject({ rank: 0, begun: 4 });
    expect(await watch.look()).toBeNull();
  });
});

it("another thread reads what a process does, cut where it is long", () => {
  const activity = new Activity();
  const other = new Activity(activity.memory);
  activity.note("opening the data");
  expect(other.read()).toMatchObject({ begun: 0, isInside: false, what: "opening the data" });
  activity.enter("a barrier");
  expect(other.read()).toMatchObject({ begun: 1, isInside: true, what: "a barrier" });
  activity.wait("the sums of step 1");
  expect(other.read()).toMatchObject({ begun: 1, isInside: true, what: "the sums of step 1" });
  activity.note("é".repeat(1000));
  expect(other.read()).toMatchObject({ begun: 1, isInside: false, what: "é".repeat(128) });
  expect(other.read().sinceMs).toBeGreaterThanOrEqual(0);
});
