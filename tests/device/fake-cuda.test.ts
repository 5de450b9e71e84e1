// What runs on a device "cuda" without a GPU (scripts/device/fake-cuda.mjs): where tensors are, and who waits.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const preload = pathToFileURL(join(root, "scripts", "device", "fake-cuda.mjs")).href;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "fake-cuda-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Finding {
  kind: string;
  what: string;
  site: string;
  times: number;
}

/** Runs a module that prints JSON. */
function onFakeCuda(source: string): { printed: unknown; found: Finding[] } {
  const log = join(folder, "found.jsonl");
  rmSync(log, { force: true });
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["--import", preload, "--input-type=module", "-e", source],
    { cwd: root, encoding: "utf8", env: { ...process.env, FAKE_CUDA_LOG: log, OMP_NUM_THREADS: "1" } },
  );
  if (status !== 0) throw new Error(stderr);
  const lines = readFileSync(log, "utf8").split("\n");
  return { printed: JSON.parse(stdout), found: lines.filter((line) => line).map((line) => JSON.parse(line)) };
}

const timesOf = (found: readonly Finding[], kind: string, what = /./) =>
  found.reduce((sum, one) => sum + (one.kind === kind && what.test(one.what) ? one.times : 0), 0);

const PIPELINE = `
  import { MiroPipeline } from "miro-t2i";
  const pipe = await MiroPipeline.fromPretrained("miro-emoji", { device: "cuda" });`;

describe("a pipeline", () => {
  test.each(["euler", "euler_ancestral"])("%s asks of every step whether it is done", (sampler) => {
    const { found } = onFakeCuda(`${PIPELINE}
      await pipe.generate("a fox", { steps: 10, sampler: "${sampler}" });
      console.log(null);`);
    // No at first, and then yes.
    expect(timesOf(found, "poll", /^an event$/)).toBe(2 * 10);
    expect(timesOf(found, "mix")).toBe(0);
  });

  test("previews latents that lie on the CPU, as generate returns them", () => {
    const { printed, found } = onFakeCuda(`${PIPELINE}
      const { latents } = await pipe.generate(["a fox", "a bell"], { steps: 2, keepLatents: true });
      console.log(JSON.stringify([latents.device, ...pipe.preview(latents).map(({ width }) => width)]));`);
    expect(printed).toEqual(["cpu", 32, 32]);
    expect(timesOf(found, "mix")).toBe(0);
  });

  test("encodes the texts of a call in one batch, and one by one where they must not depend on each other", () => {
    const { printed } = onFakeCuda(`${PIPELINE}
      const { encoder } = await pipe.textEncoder();
      const forward = encoder.forward.bind(encoder);
      const shapes = [];
      encoder.forward = (ids, mask) => (shapes.push(ids.shape[0]), forward(ids, mask));
      for (const deterministic of [false, true])
        await pipe.generate(["a fox", "a bell", "a fox"], { steps: 1, negativePrompt: ["a cat", "", ""], deterministic });
      console.log(JSON.stringify(shapes));`);
    expect(printed).toEqual([4, 1, 1, 1, 1]);
  });
});

test("pictures that do not fit in memory together are decoded fewer at a time, now and later", () => {
  const { printed } = onFakeCuda(`${PIPELINE}
    import { TorchError } from "@miro-t2i/torch";
    const { autoencoder } = pipe;
    const decode = autoencoder.decode.bind(autoencoder);
    const tried = [];
    autoencoder.decode = (z) => {
      tried.push(z.size(0));
      if (z.size(0) > 3) throw new TorchError("CUDA out of memory. Tried to allocate 2.00 GiB");
      return decode(z);
    };
    const draw = (imagesPerPrompt) => pipe.generate("a fox", { steps: 1, imagesPerPrompt, batchSize: 16 });
    const [first, second] = [await draw(10), await draw(4)];
    console.log(JSON.stringify([first.images.length, second.images.length, tried]));`);
  expect(printed).toEqual([10, 4, [10, 5, 3, 3, 3, 1, 3, 1]]);
});

test("what a GPU can do at best is measured by waiting for that one, not for the first", () => {
  const { found } = onFakeCuda(`
    import { measurePeakFlops } from "./packages/miro/dist/training/logging/peak-flops.js";
    measurePeakFlops({ device: "cuda:0", dtype: "bfloat16" });
    console.log(null);`);
  expect(new Set(found.filter(({ kind }) => kind === "wait").map(({ what }) => what))).toEqual(
    new Set(["synchronize 0"]),
  );
});

test("batches of emoji scenes are sent without stopping the device", () => {
  const { found } = onFakeCuda(`
    import { loadRecipe, runTraining } from "miro-t2i/training";
    const data = { samples: 64, shard_size: 64, cache: "${join(folder, "cache")}", "scenes.everyday": 0 };
    const trainer = { device: "cuda", max_steps: 3, batch_size: 4 };
    const values = { data, trainer, samples: { every_n_steps: 0 }, lr_scheduler: { warmup_steps: 1, total_steps: 9 } };
    const overrides = Object.entries(values).flatMap(([section, of]) =>
      Object.entries(of).map(([key, value]) => section + "." + key + "=" + value));
    const recipe = loadRecipe("emoji", ["data.scenes.vocabulary=everyday", ...overrides]);
    await runTraining({ recipe, output: "${join(folder, "run")}" });
    console.log(null);`);
  const copies = found.filter(({ kind, site }) => kind === "copy" && site.includes("loop/trainer"));
  expect(copies).toEqual([]);
  // The texts, and then all the rest.
  expect(timesOf(found, "queued", /^copyBeside/)).toBe(2 * 3);
  expect(timesOf(found, "mix")).toBe(0);
});

test("a picture is reduced to what a network looks at on the CPU, and sent when it is small", () => {
  const { found } = onFakeCuda(`
    import { zeros } from "@miro-t2i/torch";
    import { loadScorer } from "miro-t2i";
    import { EmojiClassifier } from "./packages/miro/dist/emoji/evaluation/classifier.js";
    const picture = { width: 2000, height: 1500, data: new Uint8Array(2000 * 1500 * 3) };
    const scorer = await loadScorer("emoji_clip_score", { device: "cuda" });
    await scorer.score([picture], ["a fox"]);
    EmojiClassifier.fromPretrained("models/emoji-classifier").to({ device: "cuda" }).classify(zeros([1, 3, 1500, 1500]));
    console.log(null);`);
  const own = found.filter(({ site }) => site.startsWith("packages/miro/")); // not the weights
  expect(timesOf(own, "copy", /less than 64 Ki values/)).toBeGreaterThan(0);
  expect(timesOf(own, "copy", /64 Ki and more/)).toBe(0);
  expect(timesOf(found, "mix")).toBe(0);
});
