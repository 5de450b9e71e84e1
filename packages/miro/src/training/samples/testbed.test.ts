import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Generator, randn, scope, setNumThreads, type Tensor, tensor } from "@miro-t2i/torch";
import { readNpy, writeNpy } from "@miro-t2i/torch/io";
import { afterAll, describe, expect, it } from "vitest";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { LinearSchedule } from "../../flow/schedule.js";
import { bundledModel } from "../../pipeline/loading/bundled.js";
import { loadCheckpoint } from "../../pipeline/loading/checkpoint.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { prepareTestbed, readEmbeddedTestbed, readTestbed } from "./testbed.js";
import { drawTestbed, testbedSheet } from "./testbed-grids.js";

setNumThreads(1);
const model = bundledModel()!;
const root = mkdtempSync(join(tmpdir(), "miro-testbed-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;

function testbed(metadata: string, list?: string): string {
  const folder = join(root, String(folders++));
  mkdirSync(folder);
  writeFileSync(join(folder, "metadata.csv"), metadata);
  if (list !== undefined) writeFileSync(join(folder, "prompts.txt"), list);
  return folder;
}

const THREE = 'file_name,text\napple.npy,a red apple\nfox,"a fox, asleep"\nstar.npy,three stars\n';

describe("readTestbed", () => {
  it("takes names with and without .npy, in the order of metadata.csv", () => {
    expect(readTestbed(testbed(THREE, "a red apple\na fox, asleep\nthree stars\n"), { count: 3 })).toEqual([
      { file: "apple.npy", text: "a red apple" },
      { file: "fox.npy", text: "a fox, asleep" },
      { file: "star.npy", text: "three stars" },
    ]);
  });

  it.each([
    ["another number", THREE, undefined, /metadata\.csv: expected 80 prompts, found 3; .*`count: 3`/],
    [
      "columns that are not there",
      "name,text\na,b\n",
      undefined,
      /metadata\.csv:1: expected the columns file_name,text/,
    ],
    [
      "a name that leaves the folder",
      "file_name,text\n../a.npy,b\n",
      undefined,
      /prompt 1: expected a file name, found "..\/a/,
    ],
    ["a hidden name", "file_name,text\n..,b\n", undefined, /prompt 1: expected a file name/],
    ["a text twice", "file_name,text\na,x\nb,x\n", undefined, /prompt 2: has the text "x" of prompt 1/],
    ["a name twice", "file_name,text\na,x\na.npy,y\n", undefined, /prompt 2: has the file name a\.npy of prompt 1/],
    ["no text", 'file_name,text\na,"  "\n', undefined, /prompt 1: has no text/],
    ["broken quotes", 'file_name,text\na,"x\n', undefined, /metadata\.csv:2: not valid CSV: /],
    [
      "another list",
      THREE,
      "a red apple\nan owl\nthree stars\n",
      /prompts\.txt, line 2: "an owl" is not .* "a fox, asleep"/,
    ],
    [
      "a shorter list",
      THREE,
      "a red apple\na fox, asleep\n",
      /prompts\.txt, line 3: "nothing" is not .* "three stars"/,
    ],
  ])("refuses %s", (_, metadata, list, message) => {
    const count = String(message).includes("80") ? 80 : null;
    expect(() => readTestbed(testbed(metadata, list), { count })).toThrow(message as RegExp);
  });

  it("finds the eighty of this repository to be right, and to differ in their first fifty characters", () => {
    const own = join(dirname(fileURLToPath(import.meta.url)), "../../../../../datasets/text_prompt_testbed");
    const prompts = readTestbed(own);
    expect(prompts.length).toBe(80);
    expect(new Set(prompts.map(({ text }) => text.slice(0, 50))).size).toBe(80);
    expect(prompts.every(({ file }) => /^\d\d-[a-z0-9-]+\.npy$/.test(file))).toBe(true);
  });
});

describe("prepareTestbed", () => {
  const options = { model, embeddingsName: "bundled", count: 3 };

  it("computes what the pipeline computes, goes on after an interruption, and renews what has changed", async () => {
    const folder = testbed(THREE);
    const stop = new AbortController();
    const interrupted = prepareTestbed({
      ...options,
      folder,
      signal: stop.signal,
      onProgress: (done) => done === 1 && stop.abort(),
    });
    await expect(interrupted).rejects.toThrow();
    const apple = join(folder, "bundled_embeddings", "apple.npy");
    const before = statSync(apple).mtimeMs;
    expect(await prepareTestbed({ ...options, folder })).toMatchObject({ prompts: 3, computed: 2, kept: 1, cut: [] });
    expect(statSync(apple).mtimeMs).toBe(before);

    const pipe = await MiroPipeline.fromPretrained(model, { dtype: "float32" });
    const values = (states: Tensor) => [states.shape, states.dtype, states.flatten().toList()];
    for (const { file, text } of readTestbed(folder, { count: 3 })) {
      const { embeddings } = await pipe.encodePrompt(text);
      scope(() => expect(values(readNpy(join(folder, "bundled_embeddings", file)))).toEqual(values(embeddings)));
      embeddings.dispose();
    }

    writeFileSync(join(folder, "metadata.csv"), THREE.replace("a red apple", "a green apple"));
    const read = () =>
      readEmbeddedTestbed(folder, { embeddingsName: "bundled", width: pipe.config.network.labelDim, count: 3 });
    expect(read).toThrow(/apple\.npy: was not made from "a green apple"; run miro testbed/);
    expect(await prepareTestbed({ ...options, folder })).toMatchObject({ computed: 1, kept: 2 });
    expect(read().map(({ file }) => file)).toEqual(["apple.npy", "fox.npy", "star.npy"]);
    expect(await prepareTestbed({ ...options, folder, textMaxLength: 3 })).toMatchObject({ computed: 3, kept: 0 });
  });

  it("is read without our record, as the published tools leave it; what does not fit is refused by name", async () => {
    const folder = testbed("file_name,text\na,x\n");
    const path = join(folder, "e_embeddings", "a.npy");
    mkdirSync(dirname(path));
    const read = () => readEmbeddedTestbed(folder, { embeddingsName: "e", width: 4, count: 1 });
    expect(read).toThrow(/a\.npy: is not there; run miro testbed/);
    const write = (rows: number[][]) => {
      rmSync(path, { force: true });
      scope(() => writeNpy(path, tensor(rows, { dtype: "float32" })));
    };
    write([[1, 2, 3]]);
    expect(read).toThrow(/a\.npy: expected the shape \(tokens, 4\), found \(1, 3\)/);
    write([[1, 2, 3, Number.NaN]]);
    expect(read).toThrow(/a\.npy: holds values that are not finite/);
    write([[1, 2, 3, 4]]);
    expect(read()[0]!.embeddings.toList()).toEqual([[1, 2, 3, 4]]);
    copyFileSync(path, `${path}.whole`);
    writeFileSync(path, readFileSync(path).subarray(0, 70));
    expect(read).toThrow(/a\.npy/);
  });
});

describe("drawTestbed", () => {
  it("draws what the pipeline draws from the same noise, and no other picture whatever the batches", async () => {
    const folder = testbed(THREE);
    await prepareTestbed({ folder, model, embeddingsName: "bundled", count: 3 });
    const checkpoint = loadCheckpoint(model, { dtype: "float32" });
    const { network, preconditioning, postprocessing: normalization, uncondEmbedding } = checkpoint;
    const { labelDim, numInputChannels: C, dataSize: r } = network.config;
    const prompts = readEmbeddedTestbed(folder, { embeddingsName: "bundled", width: labelDim, count: 3 });
    const autoencoder = loadAutoencoder(join(model, "vae"), { device: "cpu", dtype: "float32" });
    const settings = { steps: 2, guidanceScale: 1.5, seed: 3407, samplesPerPrompt: 4 };
    const draw = (batchSize: number) =>
      drawTestbed({
        ...settings,
        network,
        preconditioning,
        normalization,
        uncondEmbedding,
        autoencoder,
        prompts,
        batchSize,
        schedule: new LinearSchedule({ shift: 1 }),
        rewardTarget: 1,
        maxTextLen: checkpoint.config.settings.max_text_len,
      });
    const grids = await draw(5);
    expect(grids.map(({ text }) => text)).toEqual(["a red apple", "a fox, asleep", "three stars"]);
    const close = (a: Uint8Array, b: Uint8Array) => {
      expect(a.length).toBe(b.length);
      let far = 0;
      for (let i = 0; i < a.length; i++) if (Math.abs(a[i]! - b[i]!) > 1) far++;
      expect(far / a.length).toBeLessThan(1e-3);
    };
    const others = await draw(12);
    for (const [i, { image }] of grids.entries()) close(image.data, others[i]!.image.data);

    // Sample 2 of the second prompt is row 6 of the noise: the lower left quarter of its grid.
    const pipe = await MiroPipeline.fromPretrained(model, { dtype: "float32" });
    const noise = scope(() =>
      randn([12, C, r, r], { generator: new Generator().manualSeed(3407) })
        .narrow(0, 6, 1)
        .clone(),
    );
    const targets = (value: number) => Object.fromEntries(pipe.coherenceKeys.map((key) => [key, value]));
    const { images } = await pipe.generate("a fox, asleep", {
      noise,
      steps: 2,
      guidanceScale: 1.5,
      shift: 1,
      rewardTargets: targets(1),
      negativeRewardTargets: targets(0),
    });
    const { width, data } = images[0]!;
    const grid = grids[1]!.image;
    const quarter = new Uint8Array(data.length);
    for (let y = 0; y < width; y++)
      quarter.set(grid.data.subarray(3 * (width + y) * grid.width).subarray(0, 3 * width), 3 * y * width);
    close(quarter, data);

    const sheet = await testbedSheet(grids, { columns: 2, title: "step 1" });
    expect(sheet.width).toBeGreaterThan(2 * 256);
    for (const t of [noise, ...prompts.map(({ embeddings }) => embeddings)]) t.dispose();
  });
});
