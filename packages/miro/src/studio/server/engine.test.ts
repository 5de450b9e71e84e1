// Which models are in memory, with threads that load nothing.
import * as os from "node:os";
import { cuda, TorchError } from "@miro-t2i/torch";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { bundledModel } from "../../pipeline/loading/bundled.js";
import { Engine, type LoadCall } from "./engine.js";

const GIB = 2 ** 30;
/** What the next calls of `load` do: an error to throw, else nothing. */
const failures: Error[] = [];
let loads = 0;

vi.mock("node:os", async (original) => {
  const real = await original<typeof os>();
  return { ...real, freemem: vi.fn(real.freemem) };
});
vi.mock("../../threads/thread.js", () => ({
  Thread: class {
    async call(method: string, argument: unknown): Promise<unknown> {
      if (method !== "load") return undefined;
      loads++;
      const failure = failures.shift();
      if (failure) throw failure;
      return (argument as LoadCall).options.device ?? "cpu";
    }
    async end(): Promise<void> {}
  },
}));

const freemem = vi.mocked(os.freemem);
beforeEach(() => {
  loads = 0;
  vi.spyOn(cuda, "isAvailable").mockReturnValue(true);
  vi.spyOn(cuda, "deviceCount").mockReturnValue(2);
  const device = { name: "GPU", memoryBytes: 80 * GIB, capability: [9, 0] as const };
  vi.spyOn(cuda, "devices").mockReturnValue([device, { ...device, memoryBytes: 40 * GIB }]);
});
afterEach(() => {
  vi.restoreAllMocks();
  failures.length = 0;
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
    freemem.mockReturnValue(0);
    const engine = await open("cuda:1");
    allocated({ 0: 80 * GIB, 1: 30 * GIB });
    for (const id of [A, B]) await engine.warm(id);
    expect(loaded(engine)).toEqual([A, B]);
    await engine.close();

    freemem.mockReturnValue(1000 * GIB);
    const full = await open("cuda:1");
    allocated({ 0: 0, 1: 39.9 * GIB });
    for (const id of [A, B]) await full.warm(id);
    expect(loaded(full)).toEqual([B]);
    await full.close();
  });

  it("are freed by the memory of the host on a CPU", async () => {
    freemem.mockReturnValue(1000 * GIB);
    const engine = await open("cpu");
    await engine.warm(A);
    freemem.mockReturnValue(0);
    await engine.warm(B);
    expect(loaded(engine)).toEqual([B]);
    await engine.close();
  });

  it("make room for one that ran out of memory, which is tried once more", async () => {
    allocated({});
    const outOfMemory = () => new TorchError("CUDA out of memory. Tried to allocate 2.00 GiB");
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
});
