// Which models are in memory, with threads that load nothing.
import { cuda, TorchError } from "@miro-t2i/torch";
import * as limits from "@miro-t2i/torch/limits";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { bundledModel } from "../../pipeline/loading/bundled.js";
import { type DrawCall, type DrawListeners, type DrawnEvent, Engine, type LoadCall } from "./engine.js";

const GIB = 2 ** 30;
/** What the next calls of `load` do: an error to throw, else nothing. */
const failures: Error[] = [];
let loads = 0;
/** The pictures that each call of `draw` was asked for, and those after which it runs out of memory. */
const drawings: number[][] = [];
const shortages: number[] = [];
/** Threads that are there, the newest last. */
const threads: { hasEnded: boolean }[] = [];
const outOfMemory = () => new TorchError("CUDA out of memory. Tried to allocate 2.00 GiB");

vi.mock("@miro-t2i/torch/limits", async (original) => {
  const real = await original<typeof limits>();
  return { ...real, availableMemory: vi.fn(real.availableMemory) };
});
vi.mock("../../threads/thread.js", () => ({
  Thread: class {
    hasEnded = false;
    constructor() {
      threads.push(this);
    }
    async call(method: string, argument: unknown, { on }: { on?: DrawListeners } = {}): Promise<unknown> {
      if (this.hasEnded) throw new Error("the thread has ended");
      if (method === "draw") return this.draw(argument as DrawCall, on!);
      if (method !== "load") return undefined;
      loads++;
      const failure = failures.shift();
      if (failure) throw failure;
      return (argument as LoadCall).options.device ?? "cpu";
    }
    async draw({ pictures }: DrawCall, on: DrawListeners): Promise<void> {
      drawings.push(pictures.map(({ index }) => index));
      const most = shortages.shift() ?? pictures.length;
      for (const { index } of pictures.slice(0, most)) await on.picture({ index } as DrawnEvent);
      if (most < pictures.length) throw outOfMemory();
    }
    async end(): Promise<void> {}
  },
}));

const available = vi.mocked(limits.availableMemory);
beforeEach(() => {
  loads = 0;
  vi.spyOn(cuda, "isAvailable").mockReturnValue(true);
  vi.spyOn(cuda, "deviceCount").mockReturnValue(2);
  const device = { name: "GPU", memoryBytes: 80 * GIB, capability: [9, 0] as const };
  vi.spyOn(cuda, "devices").mockReturnValue([device, { ...device, memoryBytes: 40 * GIB }]);
});
afterEach(() => {
  vi.restoreAllMocks();
  failures.length = drawings.length = shortages.length = threads.length = 0;
});

/** The same model under two names. */
const [A, B] = ["miro-emoji", bundledModel()!];
const open = (device: string) => Engine.open({ models: [A, B], device });
const loaded = (engine: Engine) => [A, B].filter((id) => engine.isLoaded(id));
const allocated = (of: Record<number, number>) =>
  vi.spyOn(cuda, "memory").mockImplementation((device = 0) => {
    const allocatedBytes = of[device] ?? 0;
    return { allocatedBytes, reservedBytes: allocatedBytes, peakBytes: allocatedBytes };
  });

describe("models in memory", () => {
  it("are freed for another one by the memory of their GPU, not of the host", async () => {
    available.mockReturnValue(0);
    const engine = await open("cuda:1");
    allocated({ 0: 80 * GIB, 1: 30 * GIB });
    for (const id of [A, B]) await engine.warm(id);
    expect(loaded(engine)).toEqual([A, B]);
    await engine.close();

    available.mockReturnValue(1000 * GIB);
    const full = await open("cuda:1");
    allocated({ 0: 0, 1: 39.9 * GIB });
    for (const id of [A, B]) await full.warm(id);
    expect(loaded(full)).toEqual([B]);
    await full.close();
  });

  it("are freed by the memory that the host or its container has left on a CPU", async () => {
    available.mockReturnValue(1000 * GIB);
    const engine = await open("cpu");
    await engine.warm(A);
    available.mockReturnValue(0);
    await engine.warm(B);
    expect(loaded(engine)).toEqual([B]);
    await engine.close();
  });

  it("make room for one that ran out of memory, which is tried once more", async () => {
    allocated({});
    const engine = await open("cuda");
    failures.push(outOfMemory());
    await expect(engine.warm(A)).rejects.toThrow(/out of memory/); // nothing can be freed for it
    expect(loads).toBe(1);
    await engine.warm(A);

    failures.push(outOfMemory());
    await engine.warm(B);
    expect([loads, loaded(engine)]).toEqual([4, [B]]);

    failures.push(outOfMemory(), outOfMemory());
    await expect(engine.warm(A)).rejects.toThrow(/out of memory/);
    expect([loads, loaded(engine)]).toEqual([6, []]);

    await engine.warm(B);
    failures.push(new TorchError("a file is broken"));
    await expect(engine.warm(A)).rejects.toThrow(/broken/);
    expect([loads, loaded(engine)]).toEqual([8, [B]]);
    await engine.close();
  });

  const draw = async (engine: Engine, id: string, count: number) => {
    const drawn: number[] = [];
    const pictures = Array.from({ length: count }, (_, index) => ({ index }) as DrawCall["pictures"][number]);
    const picture = ({ index }: DrawnEvent) => void drawn.push(index);
    await engine.draw(id, { pictures, edits: [] }, { picture }, new AbortController().signal);
    return drawn;
  };

  it("make room for one that runs out of memory while it draws, which draws what is missing", async () => {
    allocated({});
    const engine = await open("cuda");
    await engine.warm(B);
    await engine.warm(A);
    shortages.push(2);
    expect(await draw(engine, A, 4)).toEqual([0, 1, 2, 3]);
    expect([drawings, loaded(engine)]).toEqual([
      [
        [0, 1, 2, 3],
        [2, 3],
      ],
      [A],
    ]);
    shortages.push(1);
    await expect(draw(engine, A, 4)).rejects.toThrow(/out of memory/); // nothing is left that could be freed
    await engine.close();
  });

  it("are loaded again when their thread has ended by itself", async () => {
    allocated({});
    const engine = await open("cuda");
    expect(await draw(engine, A, 1)).toEqual([0]);
    threads.at(-1)!.hasEnded = true;
    expect(await draw(engine, A, 2)).toEqual([0, 1]);
    expect([loads, threads.length, loaded(engine)]).toEqual([2, 2, [A]]);
    await engine.close();
  });
});
