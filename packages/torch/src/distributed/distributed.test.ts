// Collectives between real processes against values worked out by hand, and data-parallel gradients against the whole
// batch.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { ones, type Tensor } from "../index.js";
import { DistributedReducer, initProcessGroup, RendezvousStore } from "./index.js";

// The ranks run what tsc made of testing/rank.ts.
const program = join(import.meta.dirname, "../../dist/distributed/testing/rank.js");
const root = mkdtempSync(join(tmpdir(), "collectives-"));
const children = new Set<ChildProcess>();
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

interface Ended {
  code: number | null;
  signal: string | null;
  result: any;
  stderr: string;
  endedAtMs: number;
}

function startRank(name: string, place: string, rank: number, worldSize: number, timeoutMs: number): Promise<Ended> {
  const child = spawn(process.execPath, [program, name, place, String(rank), String(worldSize), String(timeoutMs)], {
    env: { ...process.env, GLOO_SOCKET_IFNAME: "lo", OMP_NUM_THREADS: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.add(child);
  let stdout = "";
  let stderr = "";
  child.stdout!.on("data", (data) => {
    stdout += data;
  });
  child.stderr!.on("data", (data) => {
    stderr += data;
  });
  return new Promise((resolve) => {
    child.on("close", (code, signal) => {
      children.delete(child);
      resolve({
        code,
        signal,
        stderr,
        endedAtMs: performance.now(),
        result: stdout === "" ? undefined : JSON.parse(stdout),
      });
    });
  });
}

let files = 0;
const file = (): string => join(root, `store-${files++}`);

/** All ranks of a case, meeting in a file unless a place is given. */
function runRanks(name: string, worldSize: number, { timeoutMs = 30_000, place = file() } = {}): Promise<Ended[]> {
  return Promise.all(
    Array.from({ length: worldSize }, (_, rank) => startRank(name, place, rank, worldSize, timeoutMs)),
  );
}

describe.each([1, 2, 3])("%i ranks", (worldSize) => {
  test("agree with sums by hand, and their gradients with those of the whole batch", async () => {
    // Two meet at a TCP store that this process serves on a free port, the others in a file.
    const store = worldSize === 2 ? await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true }) : undefined;
    const ended = await runRanks("works", worldSize, store ? { place: `127.0.0.1:${store.port}` } : {});
    store?.close();
    const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
    const values = ranks.map((r) => [r + 1, 10 * (r + 1), 0 - r, 0.5]);
    const square = ([a, b, c, d]: number[]) => [
      [a, b],
      [c, d],
    ];
    const over = (combine: (column: number[]) => number) =>
      square([0, 1, 2, 3].map((i) => combine(values.map((row) => row[i]!))));
    const sum = (column: number[]) => column.reduce((a, b) => a + b, 0);
    const [[a, b], [c, d]] = over(sum) as [[number, number], [number, number]];
    for (const { code, result, stderr } of ended) {
      expect({ code, stderr, error: result?.error }).toEqual({ code: 0, stderr: "", error: undefined });
      expect(result).toMatchObject({
        sum: over(sum),
        avg: over((column) => Math.fround(sum(column) / worldSize)),
        max: over((column) => Math.max(...column)),
        min: over((column) => Math.min(...column)),
        queued: over((column) => Math.fround(sum(column) / worldSize)),
        transposed: [
          [a, c],
          [b, d],
        ],
        negated: over((column) => Math.max(...column.map((value) => 0 - value))),
        counts: [sum(ranks), worldSize],
        broadcast: square(values.at(-1)!),
        gathered: values.map(square),
        many: Array.from({ length: 20 }, (_, i) => sum(ranks.map((r) => i + r))),
        turned: true,
      });
      expect(result.largestGradient).toBeGreaterThan(1e-3);
      expect(result.differences.whole).toBeLessThan(1e-6);
      expect(result.differences.accumulated).toBeLessThan(1e-6);
      // More than one bucket, before and after they were put in the order of the gradients, and all of every parameter.
      expect(Math.min(...result.buckets)).toBeGreaterThan(1);
      expect(result.bytes).toBe(result.parameterBytes);
      expect(result.leaked).toEqual([0, 0]);
      expect(result.unused).toEqual([[1, 1].map(() => (worldSize + 1) / 2), null]);
    }
  });
});

test("ranks with different parameters all learn which one differs", async () => {
  for (const { code, result } of await runRanks("mismatch", 2)) {
    expect(code).toBe(0);
    expect(result.error).toBe(
      "DistributedReducer: parameter 2 is 1.weight float32 [2, 4] on rank 0 but 1.weight float32 [3, 4] on rank 1; start all ranks with the same model",
    );
  }
});

test("a parameter that the loss does not depend on is named", async () => {
  for (const { result } of await runRanks("unused", 2)) {
    expect(result.error).toMatch(
      /^backward failed on rank [01] of 2 \(gloo\): .*does not depend on these parameters: b \(/,
    );
  }
});

describe.concurrent("a rank that is lost", () => {
  test.each([
    ["exits", "allReduce", /another rank has ended/],
    ["lostInBackward", "backward", /another rank has ended/],
    ["hangs", "allReduce", /did not answer within 1000 ms/],
  ])("%s: the other fails within the timeout and says so", async (name, operation, reason) => {
    const timeoutMs = name === "hangs" ? 1000 : 30_000;
    const [alive] = await runRanks(name, 2);
    expect(alive).toMatchObject({ code: 0, signal: null });
    const { error, afterMs } = alive!.result;
    expect(error).toMatch(new RegExp(`^${operation} failed on rank 0 of 2 \\(gloo\\): `));
    expect(error).toMatch(reason);
    expect(error).toMatch(/start all of them again$/);
    expect(error).not.toMatch(/\n|pair\.cc|typically/);
    expect(afterMs).toBeLessThan(timeoutMs + 10_000);
  });

  test("a process exits at once although it waits for another", async () => {
    const [leaving, awaited] = await runRanks("exitsWhileWaiting", 2);
    expect(leaving).toMatchObject({ code: 4, signal: null, stderr: "", result: { left: true } });
    expect(leaving!.endedAtMs).toBeLessThan(awaited!.endedAtMs);
  });

  test("never comes: joining ends within the timeout", async () => {
    const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true });
    const errors = await Promise.all(
      [file(), `127.0.0.1:${store.port}`].map(async (place) => {
        const ended = await startRank("works", place, 0, 2, 700);
        // Nothing but the error: libtorch's own warnings come with stacks of C++.
        expect(ended).toMatchObject({ code: 0, signal: null, stderr: "" });
        return ended.result.error;
      }),
    );
    const failed = "initProcessGroup failed on rank 0 of 2 (gloo): ";
    expect(errors[0]).toContain(`${failed}the other ranks did not answer within 700 ms`);
    expect(errors[1]).toContain(`${failed}rank 1 has not come within 700 ms, and perhaps others;`);
    store.close();
  });

  test("is met in a folder that there is not: that is said at once", async () => {
    const path = join(root, "nowhere", "store");
    await expect(RendezvousStore.file(path, 2)).rejects.toThrow(
      `${path}: cannot be written: the folder does not exist`,
    );
    const initMethod = `file://${path}`;
    await expect(initProcessGroup({ initMethod, rank: 0, worldSize: 2 })).rejects.toThrow(/the folder does not exist$/);
  });

  test("serves no store: that is one line, with what may be wrong", async () => {
    const ended = await startRank("works", "127.0.0.1:1", 1, 2, 700);
    expect(ended).toMatchObject({ code: 0, signal: null, stderr: "" });
    expect(ended.result.error).toMatch(
      /^the store at 127\.0\.0\.1:1 was not reached within 700 ms: [^\n]+; check that the first rank runs there and/,
    );
    const unknown = RendezvousStore.tcp({ host: "nowhere.invalid", port: 0, serves: true, timeoutMs: 700 });
    await expect(unknown).rejects.toThrow(/; this machine does not know the name nowhere\.invalid$/);
  });
});

test("a worker thread may be terminated while it waits for others, who then come", () => {
  const engine = JSON.stringify(new URL("../../dist/distributed/index.js", import.meta.url).href);
  const worker = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(${engine}).then(async ({ initProcessGroup, RendezvousStore }) => {
      const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: workerData, serves: false });
      void initProcessGroup({ store, rank: 0, worldSize: 2 });
      parentPort.postMessage("waits");
    });`;
  const program = `
    import { once } from "node:events";
    import { setTimeout as delay } from "node:timers/promises";
    import { Worker } from "node:worker_threads";
    import { initProcessGroup, RendezvousStore } from ${engine};
    const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true });
    const worker = new Worker(${JSON.stringify(worker)}, { eval: true, execArgv: [], workerData: store.port });
    await once(worker, "message");
    await worker.terminate();
    await initProcessGroup({ store, rank: 1, worldSize: 2 });
    await delay(300); // the thread that waited for this comes back to a worker that is gone
    process.exit(5);`;
  const { status, signal, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    env: { ...process.env, GLOO_SOCKET_IFNAME: "lo", OMP_NUM_THREADS: "1" },
    timeout: 50_000,
  });
  expect([status, signal], stderr).toEqual([5, null]);
});

test("a port that something mute has is given up in time, and the process ends", async () => {
  const mute = createServer(() => {}).listen(0, "127.0.0.1");
  await once(mute, "listening");
  const place = `127.0.0.1:${(mute.address() as AddressInfo).port}`;
  try {
    const ended = await startRank("works", place, 1, 2, 700);
    expect(ended).toMatchObject({ code: 0, signal: null, stderr: "" });
    expect(ended.result.error).toBe(
      `the store at ${place} was not reached within 700 ms: no answer of a store; ` +
        "something else answers there: choose another port",
    );
  } finally {
    mute.close();
  }
});

describe("threads that wait", () => {
  /** A store, and calls that get no answer until they are ended. */
  async function waiting(body: (store: RendezvousStore, startWait: () => Promise<unknown>) => Promise<void>) {
    const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true });
    const sockets: Socket[] = [];
    const mute = createServer((socket) => void sockets.push(socket)).listen(0, "127.0.0.1");
    await once(mute, "listening");
    const { port } = mute.address() as AddressInfo;
    const stop = new AbortController();
    const waits: Promise<unknown>[] = [];
    await body(store, () => {
      const wait = RendezvousStore.tcp({ host: "127.0.0.1", port, serves: false, signal: stop.signal });
      waits.push(wait.catch((error: unknown) => error));
      return waits.at(-1)!;
    });
    stop.abort();
    expect(new Set(await Promise.all(waits))).toEqual(new Set([stop.signal.reason]));
    for (const socket of sockets) socket.destroy();
    mute.close();
    store.close();
  }

  test("are used again: c10d keeps something for every thread that has ever waited", () =>
    waiting(async (store, startWait) => {
      await store.get("key");
      const threads = () => readdirSync("/proc/self/task");
      const before = threads();
      startWait();
      expect(threads()).toEqual(before);
    }));

  test("are as many as there are calls: none waits for another", () =>
    waiting(async (store, startWait) => {
      const settled = vi.fn();
      for (let i = 0; i < 8; i++) startWait().then(settled);
      await store.set("key", "value");
      expect(await store.get("key")).toBe("value");
      expect(settled).not.toHaveBeenCalled();
    }));
});

test("the wait for others can be ended, at either place", async () => {
  const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true });
  const signal = AbortSignal.timeout(50);
  const waits = [
    initProcessGroup({ store, rank: 0, worldSize: 2, timeoutMs: 5000, signal }),
    RendezvousStore.tcp({ host: "127.0.0.1", port: 1, serves: false, timeoutMs: 5000, signal }),
  ];
  for (const wait of waits) expect(await wait.catch((error: unknown) => error)).toBe(signal.reason);
  store.close();
});

test("a store keeps texts for all who reach it", async () => {
  const served = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true });
  const other = await RendezvousStore.tcp({ host: "127.0.0.1", port: served.port, serves: false });
  expect(await other.get("key")).toBe("");
  await served.set("key", "é");
  expect(await other.get("key")).toBe("é");
  await other.set("key", "");
  expect(await served.get("key")).toBe("");
  // torchrun's store outlives the ranks that it starts again.
  const { port } = served;
  const again = await RendezvousStore.tcp({ host: "127.0.0.1", port, serves: false, prefix: "attempt_1" });
  await again.set("key", "other");
  expect([await again.get("key"), await served.get("key")]).toEqual(["other", ""]);
  again.close();
  other.close();
  await expect(other.get("key")).rejects.toThrow("this store was closed");
  served.close();
});

describe("what is asked for is checked before anything is opened", () => {
  const path = join(root, "never");
  const initMethod = `file://${path}`;
  test.each([
    [{ initMethod, rank: 2, worldSize: 2 }, /rank must be between 0 and worldSize − 1 = 1, got 2/],
    [{ initMethod, rank: 0, worldSize: 0 }, /worldSize must be a whole number from 1, got 0/],
    [{ initMethod: "udp://here:1", rank: 0, worldSize: 1 }, /initMethod must be tcp:\/\/host:port/],
    [{ initMethod, rank: 0, worldSize: 1, timeoutMs: 0.5 }, /timeoutMs/],
    [{ initMethod, rank: 0, worldSize: 1, backend: "mpi" as "gloo" }, /backend must be "gloo" or "nccl", got "mpi"/],
  ])("%j", async (options, message) => {
    await expect(initProcessGroup(options)).rejects.toThrow(message);
    expect(existsSync(path)).toBe(false);
  });

  test("the environment gives what the options leave out", async () => {
    const names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"] as const;
    const before = names.map((name) => process.env[name]);
    try {
      for (const name of names) delete process.env[name];
      await expect(initProcessGroup({ rank: 0 })).rejects.toThrow(/worldSize nor the variable WORLD_SIZE is set/);
      Object.assign(process.env, { RANK: "0", WORLD_SIZE: "1", MASTER_ADDR: "127.0.0.1", GLOO_SOCKET_IFNAME: "lo" });
      await expect(initProcessGroup()).rejects.toThrow(/MASTER_PORT is set/);
      process.env.MASTER_PORT = "0"; // any free one: a single rank needs to be found by nobody
      const group = await initProcessGroup();
      expect([group.rank, group.worldSize, group.backend]).toEqual([0, 1, "gloo"]);
      await group.barrier();
      const frozen = ones([1]);
      await expect(DistributedReducer.create(group, [["w", frozen]])).rejects.toThrow(/no parameter requires a grad/);
      const trained: [string, Tensor][] = [["w", frozen.clone().requiresGrad_()]];
      for (const bucketCapMb of [0, -1, 65537, Number.NaN])
        await expect(DistributedReducer.create(group, trained, { bucketCapMb })).rejects.toThrow(/bucketCapMb must be/);
      for (const tensor of [frozen, trained[0]![1]]) tensor.dispose();
      await group.destroy();
      await expect(group.barrier()).rejects.toThrow(/was destroyed/);
    } finally {
      for (const [i, name] of names.entries()) {
        if (before[i] === undefined) delete process.env[name];
        else process.env[name] = before[i];
      }
    }
  });
});
