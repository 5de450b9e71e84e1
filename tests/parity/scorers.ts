/**
 * The published scorers against a recording of `make_scorer_reference.py`: pixels, token ids, features, logits and
 * scores. Features are compared absolutely, since they are of unit length, and so are logits, whose scale is about 100.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { cat, noGrad, scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { decodeImage, resizeThenCrop } from "miro-t2i/data";
import {
  type Box,
  COLOURS,
  ColourClassifier,
  cutOut,
  judgeFile,
  type Mask,
  type NamedVerdict,
} from "miro-t2i/evaluation";
import { Tokenizer } from "miro-t2i/networks";
import {
  CLIP_H,
  CLIP_L,
  type Clip,
  type ClipPixels,
  ClipTokenizer,
  cleanVqaCaption,
  clipPixels,
  imageRewardTokenizer,
  loadBlip,
  loadClip,
  loadJinaClip,
  loadScorer,
  loadVqa,
  openTensors,
  readClipConfig,
  readImageRewardConfig,
  readImageRewardHead,
  readJinaConfig,
  readLinearHead,
  readVqaConfig,
  VQA_WEIGHTS,
  vqaLabels,
  vqaRow,
} from "miro-t2i/rewards";
import { compareDetector, type RecordedDetector } from "./detector.js";
import { Absolute, type Row } from "./report.js";

type RgbImage = Awaited<ReturnType<typeof decodeImage>>;

const FEATURES = 1e-5;
const LOGITS = 1e-4;
const PIXELS = 4e-6;
const MEAN = [0.48145466, 0.4578275, 0.40821073];
const STD = [0.26862954, 0.26130258, 0.27577711];

interface Recording {
  folder: string;
  captions: string[];
  odd_captions: string[];
  scored_pictures: string[];
  cases: { detector?: RecordedDetector } & Record<
    string,
    {
      odd_ids?: number[][];
      published_sizes?: Record<string, string>;
      classes?: string[];
      objects?: Record<string, { box: Box; crop_sha256: string }>;
    } & VqaCase
  >;
}

/** What is recorded of VQAScore beside tensors. */
interface VqaCase {
  pictures?: string[];
  captions?: string[];
  odd_ids?: number[][];
  cleaned_captions?: string[];
  rows?: number[][];
  label_ids?: number[];
}

/** The scorers that are a CLIP: their case, and how they differ. */
const CLIPS = [
  { key: "clip_openai", of: "clip_openai", shape: CLIP_L, pixels: "transformers", cleaning: "hugging-face" },
  { key: "pick_a_score_score", of: "pick_score", shape: CLIP_H, pixels: "transformers", cleaning: "hugging-face" },
  { key: "sciscore_score", of: "sciscore", shape: CLIP_H, pixels: "transformers", cleaning: "hugging-face" },
  { key: "hpsv2_score", of: "hpsv2", shape: CLIP_H, pixels: "tensor", cleaning: "openai" },
] as const;
const WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "HPS_v2.1_compressed.pt"];

/** Whether a folder holds a recording of scorers. */
export function isScorerRecording(folder: string): boolean {
  return existsSync(join(folder, "scorers.json"));
}

/** All comparisons that the recording allows. */
export async function compareScorers(folder: string): Promise<Row[]> {
  const recording: Recording = { folder, ...JSON.parse(readFileSync(join(folder, "scorers.json"), "utf8")) };
  const pictures = new Map<string, RgbImage>();
  const picture = async (name: string) => {
    const known = pictures.get(name) ?? (await decodeImage(readFileSync(join(folder, "pictures", `${name}.png`)), {}));
    pictures.set(name, known);
    return known;
  };
  const rows: Row[] = [];
  if (recording.cases.preprocess) rows.push(...(await comparePixels(recording, picture)));
  const scored = await Promise.all(recording.scored_pictures.map(picture));
  for (const clip of CLIPS) if (recording.cases[clip.of]) rows.push(...(await compareClip(recording, clip, scored)));
  if (recording.cases.clip_jina) rows.push(...(await compareJina(recording, scored)));
  if (recording.cases.aesthetic) rows.push(...(await compareAesthetic(recording, scored)));
  if (recording.cases.geneval) rows.push(compareRules(recording));
  if (recording.cases.colour) rows.push(...(await compareColours(recording, await picture("square"))));
  if (recording.cases.vqa) rows.push(...(await compareVqa(recording, picture)));
  const { detector } = recording.cases;
  if (detector) rows.push(...(await compareDetector(folder, detector, picture)));
  if (recording.cases.image_reward) rows.push(...(await compareImageReward(recording, scored)));
  return rows;
}

async function comparePixels(
  { folder, cases }: Recording,
  picture: (name: string) => Promise<RgbImage>,
): Promise<Row[]> {
  const recorded = readSafetensors(join(folder, "preprocess", "reference.safetensors"));
  const bytes = new Different("pixels of Pillow");
  const floats = new Absolute("pixels of tensors", PIXELS);
  const padded = async (side: number, name: string) => {
    const image = await picture(name);
    return scope(() => {
      const planes = clipPixels(image, side, "square");
      const [mean, std] = [MEAN, STD].map((values) => tensor(Float32Array.from(values)).view(3, 1, 1));
      const levels = planes.mul(std!).add(mean!).mul(255).round().to("uint8");
      return levels.permute(1, 2, 0).contiguous().data() as Uint8Array;
    });
  };
  const crop = async (family: string, side: string, name: string) =>
    resizeThenCrop(await picture(name), Number(side), "bicubic", family === "B" ? "down" : "even", "pillow-13");
  for (const [key, expected] of recorded) {
    const [family, side, name] = key.split(".") as [string, string, string];
    if (key.split(".").length !== 3) continue;
    if (family === "V") {
      bytes.add(key, Buffer.compare(await padded(Number(side), name), expected.data() as Uint8Array) !== 0);
    } else if (family === "A" || family === "B") {
      const { data } = await crop(family, side, name);
      bytes.add(key, Buffer.compare(data, expected.data() as Uint8Array) !== 0);
    } else if (family === "letterbox" || (family === "C" && expected.ndim === 3)) {
      const kind = family === "C" ? "tensor" : "letterbox";
      const image = await picture(name);
      scope(() => floats.add(key, clipPixels(image, Number(side), kind), expected));
    } else if (family === "C" && name !== "positions") {
      // 64 sampled values of each channel, then the mean.
      const where = [...(recorded.get("C.224.positions")!.data() as BigInt64Array)].map(Number);
      const image = await picture(name);
      scope(() => {
        const planes = clipPixels(image, 224, "tensor").data() as Float32Array;
        const plane = 224 * 224;
        const values = [0, 1, 2].flatMap((channel) => [
          ...where.map((at) => planes[channel * plane + at]!),
          planes.subarray(channel * plane, (channel + 1) * plane).reduce((sum, value) => sum + value, 0) / plane,
        ]);
        floats.add(key, tensor(Float32Array.from(values)).view(3, -1), expected);
      });
    }
  }
  for (const [key, digest] of Object.entries(cases.preprocess!.published_sizes ?? {})) {
    const [family, side, name] = key.split(".") as [string, string, string];
    if (!"ABDV".includes(family) || !existsSync(join(folder, "pictures", `${name}.png`))) continue;
    const data = family === "V" ? await padded(Number(side), name) : (await crop(family, side, name)).data;
    bytes.add(key, createHash("sha256").update(data).digest("hex") !== digest);
  }
  dispose(recorded);
  return [bytes.row(), floats.row()];
}

async function compareClip(
  { folder, captions, odd_captions, cases, scored_pictures }: Recording,
  { key, of, shape, pixels, cleaning }: (typeof CLIPS)[number],
  scored: readonly RgbImage[],
): Promise<Row[]> {
  const home = join(folder, of);
  const recorded = readSafetensors(join(home, "reference.safetensors"));
  const config = readClipConfig(home, shape);
  const tokenizer = ClipTokenizer.fromFolder(home, cleaning);
  const ids = new Different(`${of}: token ids`);
  const rows = recorded.get("text.ids")!;
  const width = rows.size(1);
  const flat = [...(rows.data() as BigInt64Array)].map(Number);
  const cutRow = (text: string) => {
    const all = tokenizer.encode(text);
    const row = all.length > 77 ? [...all.slice(0, 76), tokenizer.endId] : all;
    return cleaning === "openai" ? row.slice(0, row.indexOf(tokenizer.endId) + 1) : row;
  };
  captions.forEach((caption, i) => {
    const row = cutRow(caption);
    ids.add(caption, String(row) !== String(flat.slice(i * width, i * width + row.length)));
  });
  odd_captions.forEach((caption, i) => {
    ids.add(caption, String(cutRow(caption)) !== String(cases[of]!.odd_ids![i]));
  });
  const features = new Absolute(`${of}: features`, FEATURES);
  const logits = new Absolute(`${of}: logits`, key === "hpsv2_score" ? FEATURES : LOGITS);
  const expected = recorded.get("logits") ?? recorded.get("cosine")!;
  {
    using file = openTensors(home, WEIGHTS);
    const clip = await loadClip(file, config, { device: "cpu", dtype: "float32" });
    noGrad(() =>
      scope(() => {
        const image = unit(clip.encodeImage(pixelsOf(scored, config.vision.image, pixels)));
        const text = unit(encodeTexts(clip, tokenizer, captions));
        features.add("image.normalised", image, recorded.get("image.normalised")!);
        features.add("text.normalised", text, recorded.get("text.normalised")!);
        const scale = key === "hpsv2_score" ? 1 : Math.exp(clip.logitScale.item() as number);
        logits.add("pictures x captions", image.matmul(text.t()).mul(scale), expected);
      }),
    );
    clip.dispose();
  }
  using scorer = await loadScorer(key, { weights: { [key]: home }, dtype: "float32" });
  const scores = await scorer.score(scored, captions.slice(0, scored.length));
  scores.forEach((score, i) => {
    scope(() => logits.add(`${scored_pictures[i]}: score`, tensor([score]), expected.select(0, i).narrow(0, i, 1)));
  });
  dispose(recorded);
  return [ids.row(), features.row(), logits.row()];
}

async function compareJina(
  { folder, captions, odd_captions, cases, scored_pictures }: Recording,
  scored: readonly RgbImage[],
): Promise<Row[]> {
  const home = join(folder, "clip_jina");
  const recorded = readSafetensors(join(home, "reference.safetensors"));
  const config = readJinaConfig(home);
  const tokenizer = await Tokenizer.fromFile(home);
  const ids = new Different("clip_jina: token ids");
  const encode = (caption: string) => tokenizer.encode(caption, { maxLength: config.context });
  const rows = captions.map(encode);
  const width = recorded.get("text.ids")!.size(1);
  const flat = [...(recorded.get("text.ids")!.data() as BigInt64Array)].map(Number);
  captions.forEach((caption, i) => {
    const row = flat.slice(i * width, (i + 1) * width).filter((id) => id !== config.padId);
    ids.add(caption, String(rows[i]) !== String(row));
  });
  odd_captions.forEach((caption, i) => {
    ids.add(caption, String(encode(caption)) !== String(cases.clip_jina!.odd_ids![i]));
  });
  const features = new Absolute("clip_jina: features", FEATURES);
  const logits = new Absolute("clip_jina: logits", LOGITS);
  const expected = recorded.get("logits")!;
  {
    using file = openTensors(home, WEIGHTS);
    const clip = await loadJinaClip(file, config, { device: "cpu", dtype: "float32" });
    noGrad(() =>
      scope(() => {
        const image = unit(clip.vision.forward(pixelsOf(scored, config.vision.image, "pillow")));
        const text = unit(clip.text.forward(rows, config.padId));
        features.add("image.normalised", image, recorded.get("image.normalised")!);
        features.add("text.normalised", text, recorded.get("text.normalised")!);
        const scale = Math.exp(clip.logitScale.item() as number);
        logits.add("pictures x captions", image.matmul(text.t()).mul(scale), expected);
      }),
    );
    clip.dispose();
  }
  using scorer = await loadScorer("clip_score", { weights: { clip_score: home }, dtype: "float32" });
  const scores = await scorer.score(scored, captions.slice(0, scored.length));
  scores.forEach((score, i) => {
    scope(() => logits.add(`${scored_pictures[i]}: score`, tensor([score]), expected.select(0, i).narrow(0, i, 1)));
  });
  dispose(recorded);
  return [ids.row(), features.row(), logits.row()];
}

async function compareAesthetic({ folder, scored_pictures }: Recording, scored: readonly RgbImage[]): Promise<Row[]> {
  const home = join(folder, "aesthetic");
  const recorded = readSafetensors(join(home, "reference.safetensors"));
  const probes = recorded.get("head.probes")!;
  const scores = new Absolute("aesthetic: scores", FEATURES);
  {
    using file = openTensors(home, ["sac+logos+ava1-l14-linearMSE.pth"]);
    const head = readLinearHead(file, "layers", probes.size(1));
    scope(() => {
      const values = probes.to({ dtype: "float64" }).matmul(head.weight).add(head.bias);
      scores.add("head.probes", values, recorded.get("head.probe_scores")!);
      const folded = recorded.get("head.folded_weight");
      if (folded) scores.add("head.folded_weight", head.weight, folded);
    });
    head.weight.dispose();
  }
  using scorer = await loadScorer("aesthetic_score", {
    weights: { aesthetic_score: home, clip_openai: join(folder, "clip_openai") },
    dtype: "float32",
  });
  const values = await scorer.score(scored, []);
  values.forEach((value, i) => {
    scope(() => scores.add(`${scored_pictures[i]}: score`, tensor([value]), recorded.get("raw")!.narrow(0, i, 1)));
  });
  dispose(recorded);
  return [scores.row()];
}

/** GenEval's verdicts and reasons on recorded scenes. */
function compareRules({ folder }: Recording): Row {
  const path = join(folder, "geneval", "rules.json");
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: NamedVerdict[] };
  const verdicts = new Different("geneval: verdicts and reasons");
  judgeFile(path).forEach(({ name, correct, reason }, i) => {
    const recorded = cases[i]!;
    verdicts.add(name, name !== recorded.name || correct !== recorded.correct || reason !== recorded.reason);
  });
  return verdicts.row();
}

/** GenEval's colours: what is seen of each object, the classifier's weights, its logits and answers. */
async function compareColours({ folder, cases }: Recording, image: RgbImage): Promise<Row[]> {
  const { classes = [], objects = {} } = cases.colour!;
  const recorded = readSafetensors(join(folder, "colour", "reference.safetensors"));
  const bytes = new Different("geneval: pixels of cut objects");
  const logits = new Absolute("geneval: logits of colours", LOGITS);
  const weights = new Absolute("geneval: weights of colours", FEATURES);
  const answers = new Different("geneval: colours");
  const names = Object.keys(objects);
  const seen = await Promise.all(names.map((name) => maskedObject(join(folder, "colour"), name, objects[name]!.box)));
  for (const [label, options] of [
    ["", {}],
    [".original", { background: "original" }],
    [".uncropped", { crop: false }],
  ] as const) {
    using classifier = await ColourClassifier.load({ clip: join(folder, "clip_openai"), dtype: "float32", ...options });
    const expected = recorded.get(`logits${label}`)!;
    const pixels = recorded.get(`pixels_uint8${label}`)!;
    const side = pixels.size(1);
    seen.forEach(({ box, mask }, o) => {
      const cut = cutOut(image, box, mask, options);
      const { data } = resizeThenCrop(cut, side, "bicubic", "even", "pillow-13");
      const same = scope(() => Buffer.compare(data, pixels.select(0, o).contiguous().data() as Uint8Array) === 0);
      bytes.add(`${names[o]}${label}`, !same);
      const digest = createHash("sha256").update(cut.data).digest("hex");
      if (label === "") bytes.add(`${names[o]}, whole`, digest !== objects[names[o]!]!.crop_sha256);
    });
    for (const [c, name] of classes.entries()) {
      const found = await classifier.classify(image, seen, name);
      const own = await classifier.weightsOf(name);
      scope(() => {
        if (label === "") weights.add(name, own, recorded.get("classifier")!.select(0, c));
        const rows = tensor(Float32Array.from(found.flatMap((one) => one.logits))).view(found.length, -1);
        logits.add(`${name}${label}`, rows, expected.select(0, c));
        const right = recorded.get(`answer${label}`)!.select(0, c).toList() as (number | bigint)[];
        found.forEach(({ colour }, o) => {
          answers.add(`${name}, ${names[o]}${label}`, colour !== COLOURS[Number(right[o])]);
        });
      });
    }
  }
  dispose(recorded);
  return [bytes.row(), weights.row(), logits.row(), answers.row()];
}

async function maskedObject(folder: string, name: string, box: Box): Promise<{ box: Box; mask: Mask }> {
  const { width, height, data } = await decodeImage(readFileSync(join(folder, `mask_${name}.png`)), {});
  const bits = new Uint8Array(Math.ceil((width * height) / 8));
  for (let at = 0; at < width * height; at++) if (data[3 * at]! > 0) bits[at >> 3]! |= 128 >> (at & 7);
  return { box, mask: { width, height, bits } };
}

/** States are not of unit length: they are compared relative to the largest of the recorded ones. */
async function compareVqa(
  { folder, odd_captions, cases }: Recording,
  picture: (name: string) => Promise<RgbImage>,
): Promise<Row[]> {
  const home = join(folder, "vqa");
  const { captions, cleaned_captions, rows, label_ids, odd_ids, pictures } = cases.vqa as Required<VqaCase>;
  const recorded = readSafetensors(join(home, "reference.safetensors"));
  const tokenizer = await Tokenizer.fromFile(home);
  const ids = new Different("vqa: token ids");
  captions.forEach((caption, i) => {
    ids.add(caption, cleanVqaCaption(caption) !== cleaned_captions[i]);
    ids.add(caption, String(vqaRow(tokenizer, caption)) !== String(rows[i]));
  });
  odd_captions.forEach((caption, i) => {
    ids.add(caption, String(tokenizer.encode(caption)) !== String(odd_ids[i]));
  });
  ids.add("Yes", String(vqaLabels(tokenizer)) !== String(label_ids));
  const features = new Absolute("vqa: features", FEATURES);
  const logits = new Absolute("vqa: logits", LOGITS);
  const scores = new Absolute("vqa: scores", FEATURES);
  const images = await Promise.all(pictures.map(picture));
  {
    using file = openTensors(home, VQA_WEIGHTS);
    const config = readVqaConfig(home);
    using networks = await loadVqa(file, config, { device: "cpu", dtype: "float32" }, { streamed: false });
    noGrad(() =>
      scope(() => {
        const { tower, projector, t5 } = networks;
        const compare = (key: string, actual: Tensor) => {
          const expected = recorded.get(key)!;
          const scale = expected.abs().max();
          features.add(key, actual.div(scale), expected.div(scale));
        };
        /** What was recorded of a tensor is its beginning. */
        const begin = (actual: Tensor, key: string) =>
          recorded.get(key)!.shape.reduce((part, size, dim) => part.narrow(dim, 0, size), actual);
        const patches = tower!.patches(pixelsOf(images.slice(0, 2), config.vision.image, "square"));
        const projected = projector.forward(patches);
        compare("image.features", begin(patches, "image.features"));
        compare("image.projected", begin(projected, "image.projected"));
        const spliced = rows.map((row) => {
          const at = row.indexOf(-200);
          return cat([t5.embed(row.slice(0, at)), projected.select(0, 0), t5.embed(row.slice(at + 1))], 0);
        });
        const lengths = spliced.map((row) => row.size(0));
        const encoded = t5.encode({ states: cat(spliced, 0), lengths });
        const start = lengths.slice(0, 3).reduce((sum, length) => sum + length, 0);
        compare("embeddings.picture0.caption3", spliced[3]!);
        compare("encoder.picture0.caption3", encoded.states.narrow(0, start, lengths[3]!));
        const decoded = t5.decode(encoded, label_ids, config.startId);
        compare("decoder.picture0", decoded);
        const key = "logits.picture0";
        logits.add(key, begin(t5.logits(decoded), key), recorded.get(key)!);
      }),
    );
  }
  using scorer = await loadScorer("vqa_score", { weights: { vqa_score: home }, dtype: "float32" });
  for (const [k, image] of images.entries()) {
    const values = await scorer.score(
      captions.map(() => image),
      captions,
    );
    scope(() => scores.add(pictures[k]!, tensor(values), recorded.get("score")!.select(0, k)));
  }
  dispose(recorded);
  return [ids.row(), features.row(), logits.row(), scores.row()];
}

/** States are not of unit length: they are compared relative to the largest of the recorded ones. */
async function compareImageReward(
  { folder, captions, odd_captions, cases, scored_pictures }: Recording,
  scored: readonly RgbImage[],
): Promise<Row[]> {
  const home = join(folder, "image_reward");
  const recorded = readSafetensors(join(home, "reference.safetensors"));
  const config = readImageRewardConfig(home);
  const tokenizer = await imageRewardTokenizer(home, {});
  const ids = new Different("image_reward: token ids");
  const tokens = recorded.get("text.ids")!;
  const batch = tokenizer.encodeBatch([...captions, "word ".repeat(100)], config.length);
  const masks = batch.mask.narrow(0, 0, captions.length);
  const given = [tokens, recorded.get("text.mask")!].map((rows) => [...(rows.data() as BigInt64Array)].map(Number));
  const own = [batch.ids.data() as BigInt64Array, batch.mask.data() as Uint8Array].map((row) => [...row].map(Number));
  const row = (values: readonly number[], i: number) => values.slice(i * config.length, (i + 1) * config.length).join();
  captions.forEach((caption, i) => {
    ids.add(
      caption,
      own.some((values, k) => row(values, i) !== row(given[k]!, i)),
    );
  });
  odd_captions.forEach((caption, i) => {
    const row = [...(tokenizer.encodeBatch([caption], config.length).ids.data() as BigInt64Array)];
    ids.add(caption, row.join() !== cases.image_reward!.odd_ids![i]!.join());
  });
  const features = new Absolute("image_reward: features", FEATURES);
  const addStates = (name: string, actual: Tensor, expected: Tensor) => {
    const largest = Math.max(1, expected.abs().max().item() as number);
    features.add(name, actual.div(largest), expected.div(largest));
  };
  const rewards = new Absolute("image_reward: rewards", LOGITS);
  {
    using file = openTensors(home, ["ImageReward.pt"]);
    const head = readImageRewardHead(file, config);
    const blip = await loadBlip(file, config, { device: "cpu", dtype: "float32" });
    noGrad(() =>
      scope(() => {
        const image = blip.encodeImage(pixelsOf(scored, config.vision.image, "pillow"));
        const expected = recorded.get("image.tokens")!;
        addStates("image.tokens", image.narrow(1, 0, expected.size(1)), expected);
        const states = scored.map((_, k) => blip.encodeText(tokens, masks, image.narrow(0, k, 1)));
        addStates("text.last_hidden", states[0]!.narrow(0, 0, 2), recorded.get("text.last_hidden.picture0")!);
        const pooled = stack(states.map((state) => state.select(1, 0)));
        addStates("pooled", pooled, recorded.get("pooled")!);
        const values = pooled.to({ dtype: "float64" }).matmul(head.weight).add(head.bias);
        rewards.add("mlp", values, recorded.get("mlp")!);
      }),
    );
    head.weight.dispose();
    blip.dispose();
  }
  using scorer = await loadScorer("image_reward_score", { weights: { image_reward_score: home }, dtype: "float32" });
  const expected = recorded.get("reward")!;
  for (const [i, image] of scored.entries()) {
    const scores = await scorer.score(new Array<RgbImage>(captions.length).fill(image), captions);
    const name = `${scored_pictures[i]}: scores`;
    scope(() => rewards.add(name, tensor(scores, { dtype: "float64" }), expected.select(0, i)));
  }
  dispose(recorded);
  return [ids.row(), features.row(), rewards.row()];
}

function pixelsOf(images: readonly RgbImage[], side: number, kind: ClipPixels): Tensor {
  return stack(images.map((image) => clipPixels(image, side, kind)));
}

function encodeTexts(clip: Clip, tokenizer: ClipTokenizer, texts: readonly string[]): Tensor {
  const { ids, ends } = tokenizer.encodeBatch(texts);
  return clip.encodeText(ids, tensor(BigInt64Array.from(ends, BigInt), { dtype: "int64" }));
}

function unit(x: Tensor): Tensor {
  return x.div(x.square().sum(-1, { keepdim: true }).sqrt());
}

function dispose(tensors: ReadonlyMap<string, Tensor>): void {
  for (const one of tensors.values()) one.dispose();
}

/** A row of things that are equal or not. */
class Different {
  #compared = 0;
  #different = 0;
  #worst = "";
  constructor(readonly check: string) {}

  add(name: string, differs: boolean): void {
    this.#compared++;
    if (!differs) return;
    this.#different++;
    this.#worst ||= name.slice(0, 40);
  }

  row(): Row {
    const { check } = this;
    const ok = this.#compared > 0 && this.#different === 0;
    return {
      check,
      compared: this.#compared,
      figure: this.#different,
      measure: "different",
      bound: 0,
      worst: this.#worst,
      ok,
    };
  }
}
