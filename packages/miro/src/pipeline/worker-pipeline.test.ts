/** A pipeline in a thread draws what one on the main thread does, and leaves the event loop alone. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { memory, randn } from "@miro-t2i/torch";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import { turnsOfLoop } from "../pictures/testing/turns-of-loop.js";
import { MiroPipeline } from "./pipeline.js";
import type { WorkerPipeline } from "./worker-pipeline.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));
const load = { dtype: "float32", textEncoder: `${tiny}/text_encoder`, vae: `${tiny}/vae` } as const;
const options = { steps: 3, guidanceScale: 1, seed: 3 };
let pipe: MiroPipeline;
let worker: WorkerPipeline;

/** Draws, with nothing else that keeps the process alive, and leaves the pipeline behind, in the middle of a stream. */
const FORGETFUL = `
import { MiroPipeline } from ${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)};
const pipe = await MiroPipeline.fromPretrained(process.env.MODEL, JSON.parse(process.env.LOAD));
const first = await pipe.stream("a cat", { steps: 2, imagesPerPrompt: 2, seed: 5 }).next();
console.log(first.value.seed);
pipe.generate("a cat", { steps: 2 }).then(({ images }) => console.log(images.length));
`;

/** Draws, and prints which functions that keep a thread waiting are called while the pictures become files. */
const SAVING = `
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import zlib from "node:zlib";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { MiroPipeline, readImageFile } from ${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)};
const pipe = await MiroPipeline.fromPretrained(process.env.MODEL, JSON.parse(process.env.LOAD));
const { images } = await pipe.generate("a cat", { steps: 1, guidanceScale: 1 });
processIdentity(); // read once from /proc, which is no disk
const called = [];
const watch = (object, name) => {
  const real = object[name];
  object[name] = (...args) => {
    called.push(name);
    return real(...args);
  };
};
for (const module of [fs, zlib]) for (const name of Object.keys(module)) if (name.endsWith("Sync")) watch(module, name);
watch(process, "dlopen");
syncBuiltinESMExports();
for (const format of ["png", "webp", "jpg"]) {
  const file = process.argv[1] + "/new/folder/a." + format;
  await images[0].save(file);
  await images[0].save(file);
  await readImageFile(file);
}
for (const format of ["png", "webp", "jpeg"]) await images[0].toBuffer(format);
console.log(JSON.stringify(called));
await pipe.dispose();
`;

beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, load);
  worker = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, { ...load, worker: true });
});
afterAll(async () => {
  await pipe.dispose();
  await worker.dispose();
});

describe("a pipeline in a thread", () => {
  it("knows of its checkpoint what one on the main thread does", () => {
    for (const key of ["name", "device", "dtype", "coherenceKeys", "defaultSteps", "latentShape", "config"] as const)
      expect(worker[key]).toEqual(pipe[key]);
  });

  it("draws the same pictures, with the same settings", async () => {
    const [a, b] = await Promise.all(
      [pipe, worker].map((one) => one.generate(["a cat", "a fox"], { ...options, imagesPerPrompt: 2 })),
    );
    expect(b!.images.map(({ data }) => data)).toEqual(a!.images.map(({ data }) => data));
    expect(b!.images.map(({ settings }) => settings)).toEqual(a!.images.map(({ settings }) => settings));
    expect(await worker.describe("a cat", options)).toEqual(await pipe.describe("a cat", options));
  });

  it("stops waiting for its files when a call that draws nothing is aborted, here and on the main thread", async () => {
    const own = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, load);
    try {
      for (const call of [
        (signal: AbortSignal) => own.describe("a cat", { ...options, signal }),
        (signal: AbortSignal) => worker.describe("a cat", { ...options, signal }),
        (signal: AbortSignal) => own.textEncoder({ signal }),
        (signal: AbortSignal) => own.encodePrompt("a cat", { signal }),
      ]) {
        const abort = new AbortController();
        const waiting = call(abort.signal);
        abort.abort(new Error("enough"));
        await expect(waiting).rejects.toThrow("enough");
        await expect(call(abort.signal)).rejects.toThrow("enough");
      }
      expect(await own.describe("a cat", options)).toHaveLength(1);
    } finally {
      await own.dispose();
    }
  });

  it("reports steps with previews, pictures and warnings, and waits for its callbacks", async () => {
    const heard: string[] = [];
    let busy = false;
    await worker.generate("a cat ".repeat(100), {
      ...options,
      previewEvery: 2,
      onStep: async ({ step, steps, previews }) => {
        expect(busy).toBe(false);
        busy = true;
        await new Promise((resolve) => setTimeout(resolve, 5));
        busy = false;
        heard.push(`step ${step + 1}/${steps}${previews ? ` ${previews[0]!.width}` : ""}`);
      },
      onImage: ({ seed }, index) => void heard.push(`image ${index} seed ${seed}`),
      onWarning: (warning) => void heard.push(warning),
    });
    expect(heard).toContain("step 2/3 8");
    expect(heard.filter((what) => what.startsWith("step"))).toHaveLength(3);
    expect(heard.at(-1)).toBe("image 0 seed 3");
    expect(heard[0]).toMatch(/^the prompt|^prompt/);
  });

  it("refuses what is wrong as one on the main thread does, and tensors", async () => {
    const error = (await worker
      .generate("a cat", { rewardTargets: { beauty: 1 } })
      .catch((e) => e)) as InvalidInputError;
    expect(error).toBeInstanceOf(InvalidInputError);
    expect(error.stack).toContain("worker-pipeline.test.ts"); // who called, below where it arose
    expect(error.parameter).toBe("rewardTargets");
    expect(error.message).toMatch(/this checkpoint was not trained on beauty/);
    await expect(worker.generate("a cat", { steps: 0 })).rejects.toThrow("steps: expected an integer of at least 1");
    const noise = randn([1, ...pipe.latentShape]);
    await expect(worker.generate("a cat", { noise } as object)).rejects.toThrow(/^noise: expected nothing with/);
    noise.dispose();
  });

  it("stops within a step, with the signal's reason", async () => {
    const abort = new AbortController();
    const steps: number[] = [];
    const drawing = worker.generate("a cat", {
      ...options,
      steps: 1000,
      signal: abort.signal,
      onStep: ({ step }) => {
        steps.push(step);
        if (step === 2) abort.abort(new Error("enough"));
      },
    });
    await expect(drawing).rejects.toThrow("enough");
    expect(steps.length).toBeLessThanOrEqual(4);
    await worker.generate("a cat", options); // and goes on with the next call
  });

  it("stops within a step when nobody listens to its steps", async () => {
    const drawing = worker.generate("a cat", { ...options, steps: 100_000, signal: AbortSignal.timeout(20) });
    await expect(drawing).rejects.toThrow(/timeout/);
  });

  it("leaves the queue at once when a call that waits is aborted, and disturbs no other", async () => {
    const abort = new AbortController();
    let at = 0;
    const running = worker.generate("a cat", {
      ...options,
      steps: 100,
      onStep: ({ step }) => {
        at = step;
        if (step === 2) abort.abort(new Error("gone"));
      },
    });
    const waiting = worker.generate("a fox", { ...options, signal: abort.signal });
    const behind = worker.generate("a fox", options);
    await expect(waiting).rejects.toThrow("gone");
    expect(at).toBeLessThan(6);
    const [{ images: first }, { images }] = await Promise.all([running, behind]);
    expect(first).toHaveLength(1);
    expect(images[0]!.data).toEqual((await pipe.generate("a fox", options)).images[0]!.data);
  });

  it("takes one signal for many calls without a warning, here and on the main thread", async () => {
    const warnings: string[] = [];
    const hear = ({ name }: Error) => void warnings.push(name);
    process.on("warning", hear);
    try {
      const { signal } = new AbortController();
      for (const one of [pipe, worker])
        await Promise.all(Array.from({ length: 12 }, () => one.describe("a cat", { ...options, signal })));
      expect(warnings).toEqual([]);
    } finally {
      process.off("warning", hear);
    }
  });

  it("ends with the error of a callback", async () => {
    const onStep = () => {
      throw new Error("broken callback");
    };
    await expect(worker.generate("a cat", { ...options, onStep })).rejects.toThrow("broken callback");
  });

  it("ends the call alone with the error of a callback that nobody waits for", async () => {
    const long = "a cat ".repeat(100); // is cut, with a warning
    const fail = () => {
      throw new Error("from onWarning");
    };
    for (const onWarning of [fail, async () => fail()])
      await expect(worker.generate([long, "a cat"], { steps: 100_000, onWarning })).rejects.toThrow("from onWarning");
    expect((await worker.generate("a cat", { steps: 1 })).images).toHaveLength(1);
  });

  it("takes turns between calls, picture by picture", async () => {
    const order: string[] = [];
    const draw = (name: string, count: number) =>
      worker.generate(name, { ...options, imagesPerPrompt: count, onImage: () => void order.push(name) });
    await Promise.all([draw("a", 4), draw("b", 2), draw("c", 1)]);
    expect(order.join("")).toBe("abcabaa");
  });

  it("draws one call after another with lowMemory, and who waits can give up", async () => {
    const own = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, { ...load, worker: true, lowMemory: true });
    const abort = new AbortController();
    const draw = (signal?: AbortSignal) =>
      own.generate(["a cat", "a fox"], { ...options, ...(signal && { signal }), onStep: () => abort.abort() });
    const [first, left, last] = await Promise.allSettled([draw(), draw(abort.signal), draw()]);
    expect(left).toMatchObject({ status: "rejected", reason: abort.signal.reason });
    const { images } = await pipe.generate(["a cat", "a fox"], options);
    for (const result of [first, last] as PromiseFulfilledResult<Awaited<ReturnType<typeof draw>>>[])
      expect(result.value.images.map(({ data }) => data)).toEqual(images.map(({ data }) => data));
    await own.dispose();
  });

  it("streams pictures as they are asked for, and ends when the loop is left", async () => {
    const seeds: (number | null)[] = [];
    for await (const { seed } of worker.stream("a cat", { ...options, imagesPerPrompt: 5 })) {
      seeds.push(seed);
      if (seeds.length === 2) break;
    }
    expect(seeds).toEqual([3, 4]);
    const all: (number | null)[] = [];
    for await (const { seed } of worker.stream("a cat", { ...options, imagesPerPrompt: 3 })) all.push(seed);
    expect(all).toEqual([3, 4, 5]);
    const none = worker.stream("a cat", { steps: 0 });
    await expect(none.next()).rejects.toThrow("steps: expected");
  });

  it("leaves the event loop free", async () => {
    const many = { ...options, steps: 30 };
    const beside = await turnsOfLoop(() => worker.generate("a cat", many));
    const here = await turnsOfLoop(() => pipe.generate("a cat", many));
    expect(beside.turns).toBeGreaterThan(5 * here.turns);
  });

  it("makes files of its pictures without a call that waits for the disk, an encoder or a library", () => {
    const folder = mkdtempSync(join(tmpdir(), "miro-aside-"));
    try {
      const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", SAVING, folder], {
        cwd: fileURLToPath(new URL(".", import.meta.url)), // where packages are found
        encoding: "utf8",
        env: { ...process.env, MODEL: `${tiny}/checkpoint`, LOAD: JSON.stringify({ ...load, worker: true }) },
      });
      expect(stderr).toBe("");
      expect(JSON.parse(stdout)).toEqual([]);
      expect(readdirSync(join(folder, "new", "folder")).sort()).toEqual(["a.jpg", "a.png", "a.webp"]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("keeps a program alive while it draws, and no longer, also one that does not dispose of it", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", FORGETFUL], {
      cwd: fileURLToPath(new URL(".", import.meta.url)), // where packages are found
      encoding: "utf8",
      timeout: 50_000, // it would run for ever
      env: { ...process.env, MODEL: `${tiny}/checkpoint`, LOAD: JSON.stringify({ ...load, worker: true }) },
    });
    expect([status, stdout, stderr]).toEqual([0, "5\n1\n", ""]);
  });

  it("rejects what runs and what comes when it is disposed of", async () => {
    const own = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, { ...load, worker: true });
    const drawing = own.generate("a cat", { ...options, steps: 100_000 });
    const left = [drawing, own.describe("a cat")].map((call) => call.catch((error: unknown) => error));
    await own.dispose();
    for (const error of [...(await Promise.all(left)), await own.generate("a cat").catch((error: unknown) => error)]) {
      expect(error).toBeInstanceOf(MiroError);
      expect(error).not.toBeInstanceOf(InvalidInputError); // what servers answer with status 400
      expect((error as Error).message).toMatch(/it was disposed of/);
    }
    await own.dispose();
  });

  it("that cannot be loaded says why, and leaves no thread", async () => {
    const threads = readdirSync("/proc/self/task").length;
    const loading = MiroPipeline.fromPretrained(`${tiny}/nothing`, { worker: true });
    await expect(loading).rejects.toBeInstanceOf(InvalidInputError);
    await expect.poll(() => readdirSync("/proc/self/task").length).toBeLessThanOrEqual(threads);
  });

  it("leaves no memory, thread or file behind when it is disposed of in the middle of its work", async () => {
    const held = () => ({
      threads: readdirSync("/proc/self/task").length,
      descriptors: readdirSync("/proc/self/fd").length,
      maps: readFileSync("/proc/self/maps", "utf8").split(tiny).length,
      liveBytes: memory.stats().liveBytes,
    });
    const drawAndLeave = async () => {
      const own = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, { ...load, worker: true, threads: 2 });
      const drawing = new Promise<void>((begun, reject) => {
        const onStep = () => void setImmediate(begun); // the next step is computed then
        own.generate("a cat", { ...options, steps: 100_000, onStep }).catch(reject);
      });
      await drawing;
      await own.dispose();
    };
    await drawAndLeave(); // loads what a process loads once
    const before = held();
    for (let i = 0; i < 3; i++) await drawAndLeave();
    for (const what of ["threads", "descriptors", "maps", "liveBytes"] as const)
      await expect.poll(() => held()[what], { message: what }).toBeLessThanOrEqual(before[what]);
  });
});
