/**
 * Calls that TypeScript would refuse and JavaScript does not: one clear error each, never the engine's own TypeError.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memory, zeros } from "@miro-t2i/torch";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../errors.js";
import * as root from "../index.js";

type Wrong = any;
const { bestOf, MiroPipeline } = root;
/** All that the package exports, for calls that its types refuse. */
const miro: Wrong = root;
const picture = { width: 2, height: 2, data: new Uint8Array(12) };
const planned = () => miro.planPictures([{ prompt: "a fox", options: { steps: 1 } }], { seed: 1 });
const before = process.cwd();
let elsewhere: string;
let pipe: Wrong;
let worker: Wrong;
beforeAll(async () => {
  elsewhere = mkdtempSync(join(tmpdir(), "miro-elsewhere-"));
  process.chdir(elsewhere);
  pipe = await MiroPipeline.fromPretrained();
  worker = await MiroPipeline.fromPretrained(undefined, { worker: true });
});
afterAll(async () => {
  process.chdir(before);
  rmSync(elsewhere, { recursive: true, force: true });
  await Promise.all([pipe.dispose(), worker.dispose()]);
});

it("the bundled model is meant by no name and by its own, from any folder", async () => {
  await using named = await MiroPipeline.fromPretrained("miro-emoji");
  expect([pipe.name, named.name]).toEqual(["miro-emoji", "miro-emoji"]);
  const [a] = await pipe.describe("a fox");
  const [b] = await named.describe("a fox");
  expect(a).toEqual(b);
  expect(a.weights.checkpoint.source).toBe("bundled");
});

const load: Wrong = MiroPipeline.fromPretrained;
describe("wrong calls", () => {
  it.each<[string, () => unknown, RegExp]>([
    ["a model that is a URL", () => load(new URL("file:///models")), /^model: expected a folder, .* received a URL$/],
    ["options in place of the model", () => load({ device: "cpu" }), /^model: expected a folder/],
    ["an empty name", () => load(""), /^model: expected a folder/],
    ["loading with a number", () => load(undefined, 5), /^options: expected an object of options, received 5$/],
    ["a number as options", () => pipe.generate("a", 5), /^options: expected an object of options, received 5$/],
    ["null as options", () => pipe.generate("a", null), /^options: expected an object of options, received null$/],
    [
      "a signal as options",
      () => pipe.generate("a", new AbortController().signal),
      /^options: .* received an AbortSignal$/,
    ],
    ["options not waited for", () => pipe.stream("a", Promise.resolve({})).next(), /^options: .* received a Promise$/],
    ["a list as options", () => pipe.describe("a", []), /^options: expected an object of options, received \[\]$/],
    [
      "parts that are none",
      () => new (MiroPipeline as Wrong)("miro-emoji"),
      /^parts: expected .*MiroPipeline\.fromPretrained/,
    ],
    ["no prompt", () => pipe.generate(undefined), /^prompt: expected a text or a list of texts, received undefined$/],
    ["no prompts", () => pipe.generate([]), /^prompt: expected a text or a list of texts, received \[\]$/],
    [
      "a number among prompts",
      () => pipe.generate(["a", 5]),
      /^prompt: expected a text or a list of texts, received 5$/,
    ],
    [
      "a typed array for a list",
      () => pipe.generate("a", { seed: new Uint32Array(1) }),
      /^seed: expected an integer of at least 0, or a list of such, one per picture, received a Uint32Array$/,
    ],
    ["no bytes for a picture", () => pipe.generate("a", { image: Buffer.alloc(0) }), /^image: expected a picture file/],
    [
      "bytes of no picture",
      () => pipe.generate("a", { image: Buffer.from("text") }),
      /^image: no JPEG, PNG, .* \(4 bytes\)$/,
    ],
    ["a stream of nothing", () => pipe.stream(null).next(), /^prompt: expected a text/],
    ["latents that are none", async () => pipe.decode([1]), /^latents: expected a tensor \(B, 4, 32, 32\)/],
    ["latents of another shape", async () => pipe.preview(zeros([4, 2, 2])), /^latents: expected a tensor/],
    ["a number to encode", () => pipe.encodePrompt(5), /^prompt: expected a text, received 5$/],
    ["no prompt for a thread", () => worker.generate(), /^prompt: expected a text or a list of texts, received/],
    ["what no thread can be sent", () => worker.generate(() => {}), /^prompt: expected a text or a list of texts/],
    ["null as options of a thread", () => worker.generate("a", null), /^options: expected an object of options/],
    ["null as options of a thread's stream", () => worker.stream("a", null).next(), /^options: expected an object of/],
    ["a number as those", () => worker.stream("a", 3).next(), /^options: expected an object of options, received 3/],
    ["no signal for it", () => worker.stream("a", { signal: {} }).next(), /^signal: expected an AbortSignal, received/],
    ["null to describe in a thread", () => worker.describe("a", null), /^options: expected an object of options/],
    ["a stream of nothing in a thread", () => worker.stream(null).next(), /^prompt: expected a text/],
    ["no threads", () => load(undefined, { threads: 0 }), /^threads: expected an integer of at least 1, received 0$/],
    ["a choice without a pipeline", () => bestOf(undefined as Wrong, "a"), /^pipe: expected a MiroPipeline/],
    ["a choice without a prompt", () => bestOf(pipe, undefined as Wrong), /^prompt: expected a text/],
    ["a choice with null as options", () => bestOf(pipe, "a", null as Wrong), /^options: expected an object/],
    [
      "tensors of a thread",
      () => worker.decode(zeros([1])),
      /^decode: stays in the thread .* without \{ worker: true \}/,
    ],
    ["the network of a thread", () => worker.network, /^network: stays in the thread/],
    ["a sheet of nothing", () => miro.contactSheet(), /^images: expected a list of at least one picture/],
    ["a sheet of no picture", () => miro.contactSheet([]), /^images: expected a list of at least one picture/],
    [
      "a sheet of what is none",
      () => miro.contactSheet([picture, 5]),
      /^images\.1: expected \{ width, height, data \}/,
    ],
    ["a sheet without columns", () => miro.contactSheet([picture], { columns: 0 }), /^columns: expected an integer/],
    ["a sheet with an unknown option", () => miro.contactSheet([picture], { cols: 2 }), /^cols: expected one of/],
    ["a format in the place of texts", () => miro.encodeImage(picture, "png"), /^text: expected a list of/],
    ["texts that are none", () => miro.encodeImage(picture, [{ keyword: 5 }]), /^text: expected a list of/],
    ["a picture's file without a name", () => miro.readImageFile(), /^path: expected the name of a picture's file/],
    ["a file's name in the place of texts", () => miro.readSettings("a.png"), /^text: expected a list of/],
    ["settings that are none", () => miro.settingsToText({}), /^settings: expected settings of a picture/],
    ["a picture without pixels", () => new miro.GeneratedImage(), /^image: expected \{ width, height, data \}/],
    ["a picture without settings", () => new miro.GeneratedImage(picture), /^settings: expected settings of/],
    ["no requests", () => miro.planPictures(), /^requests: expected a list of/],
    ["prompts as requests", () => miro.planPictures(["a fox"], { seed: 1 }), /^requests\.0: expected \{ prompt, opt/],
    ["a plan without options", () => miro.planPictures([], undefined), /^options: expected an object \{ seed/],
    ["a plan without a seed", () => miro.planPictures([], {}), /^seed: expected the first picture's seed, or null/],
    ["a prompt file without a name", () => miro.readPromptFile(5), /^promptFile: expected the name of a file/],
    ["a request of nothing", () => new miro.DrawRequest({}), /^options: expected \{ pictures, … \}/],
    ["a request without a pipeline", () => new miro.DrawRequest({ pictures: planned() }).draw(), /^pipe: expected a/],
    [
      "a request in a thread",
      () => new miro.DrawRequest({ pictures: planned() }).draw(worker),
      /^plan: stays in the thread of the pipeline; load it without \{ worker: true \}/,
    ],
    ["a sampler without a name", () => miro.registerSampler(), /^sampler: expected a name/],
    ["a sampler without a method", () => miro.registerSampler("own", {}), /^own: expected a method \{ order, /],
    ["no scorer", () => miro.loadScorer(), /^scorer: expected the key of a scorer, received undefined$/],
    ["a text in the place of files", () => miro.scoreFiles("a.png"), /^paths: expected a list of files and folders/],
    ["a folder that is none", () => miro.listModels({ cacheDir: 5 }), /^cacheDir: expected a folder, received 5$/],
  ])("refuse %s", async (_, call, message) => {
    const error = await (async () => call())().catch((reason: Error) => reason);
    expect(error).toBeInstanceOf(InvalidInputError);
    expect((error as Error).message).toMatch(message);
  });

  it("take what cannot be changed", async () => {
    const options = {
      rewardTargets: [{ sharpness: 1 }, { sharpness: 0 }],
      negativePrompt: ["b", "c"],
      seed: [1, 2],
      guidanceWindow: [0, null],
    } as const;
    const prompts = ["a", "b"] as const;
    expect((await (pipe as root.MiroPipeline).describe(prompts, options)).map(({ seed }) => seed)).toEqual([1, 2]);
  });
});

it("a pipeline that was disposed of says so, whatever is asked of it", async () => {
  memory.collect(); // what other tests have forgotten
  const loaded = memory.stats().liveTensors;
  const gone: Wrong = await MiroPipeline.fromPretrained();
  const latents = zeros([1, ...gone.latentShape]);
  await Promise.all([gone.dispose(), gone[Symbol.asyncDispose]()]);
  const calls: (() => unknown)[] = [
    () => gone.generate("a fox"),
    () => gone.stream("a fox").next(),
    () => gone.describe("a fox"),
    () => gone.encodePrompt("a fox"),
    () => gone.textEncoder(),
    () => gone.network,
    () => gone.autoencoder,
    () => gone.decode(latents),
    () => gone.preview(latents),
  ];
  for (const call of calls) {
    const error = await (async () => call())().catch((reason: Error) => reason);
    expect(error).toBeInstanceOf(MiroError);
    expect(error).not.toBeInstanceOf(InvalidInputError); // what servers answer with status 400
    expect((error as Error).message).toMatch(/^pipeline: it was disposed of; load another one/);
  }
  latents.dispose();
  expect(memory.stats().liveTensors).toBeLessThanOrEqual(loaded);
});
