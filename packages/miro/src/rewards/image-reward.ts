/**
 * ImageReward (Xu et al. 2023, "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation"):
 * how well people find that a picture shows a text, about −2.3 to 2.1.
 *
 *   reward = (head(state of [CLS]) − mean) / deviation
 *
 * The text, its first 35 tokens, looks at the picture in every layer of a BERT (networks/blip.ts); the head is the
 * linear chain of linear-head.ts. Networks are computed in the dtype that was asked for, the head in float64. With
 * `precision: "upstream"` they are computed in float32, as the published evaluation does.
 *
 * The published repository has weights and `med_config.json`; the vocabulary is that of `bert-base-uncased`, which
 * comes from its own repository. Beside the weights, `architecture.json`, `med_config.json` and `tokenizer/` replace
 * the published shape and vocabulary.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type DType, noGrad, scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { type TensorFile, tensorFile } from "@miro-t2i/torch/io";
import { z } from "zod";
import { checkName } from "../arguments.js";
import { MiroError } from "../errors.js";
import { parseJsonFile } from "../files/json-file.js";
import { sha256 } from "../files/sha256.js";
import { openTensors } from "../files/tensor-files.js";
import { readBytes } from "../files/whole-files.js";
import { Blip, type BlipConfig, type BlipTower } from "../networks/blip.js";
import { type ByLayer, holding } from "../networks/by-layer.js";
import type { RgbImage } from "../pictures/rgb.js";
import { resolveModel } from "../pipeline/loading/hub.js";
import { WordPieceTokenizer } from "../text/wordpiece-tokenizer.js";
import { type KeyedPicture, keyedPictures, keyedPixels } from "./clip-pixels.js";
import { towerSize } from "./clip-weights.js";
import {
  BERT_VOCABULARY,
  IMAGE_REWARD_KEY,
  IMAGE_REWARD_NAME,
  IMAGE_REWARD_REPOSITORY,
  IMAGE_REWARD_WEIGHTS,
} from "./image-reward-facts.js";
import { KeptFeatures } from "./kept-features.js";
import { type LinearHead, readLinearHead } from "./linear-head.js";
import { fetchFolder, placeOf } from "./published-folder.js";
import { runByLayer } from "./run-by-layer.js";
import type { LoadScorerOptions, ScoreCall, ScorerModel } from "./scorer.js";
import { loadStrictly, type WeightsPlace } from "./strict-weights.js";

const SIDE_FILES = ["med_config.json", "architecture.json", ...WordPieceTokenizer.files];

/** Tokens that BLIP adds to it; ImageReward uses neither. */
const ADDED_TOKENS = ["[DEC]", "[ENC]"];

/** What the rewards of its validation set are brought to zero and one with. */
const MEAN = 0.16717362830052426;
const DEVIATION = 1.0333394966054072;

/** Pictures of one call. */
const BATCH = 16;
/** Pictures whose tokens are kept, of 0.8 MB each in float32. */
const KEPT = 64;

/** The shape of an ImageReward. */
export interface ImageRewardConfig extends BlipConfig {
  /** Outputs of the head's layers. */
  head: readonly number[];
  /** Tokens of a text that are read, `[CLS]` and `[SEP]` included. */
  length: number;
}

/** ViT-L/16 at 224 pixels and BERT-base. */
export const IMAGE_REWARD: ImageRewardConfig = {
  vision: { width: 1024, layers: 24, heads: 16, hidden: 4096, image: 224, patch: 16, eps: 1e-6 },
  text: { width: 768, layers: 12, heads: 12, hidden: 3072, vocabulary: 30_524, positions: 512, eps: 1e-12 },
  head: [1024, 128, 64, 16, 1],
  length: 35,
};

/** Reads the model. */
export async function loadImageReward(options: LoadScorerOptions): Promise<ScorerModel> {
  const folder = await fetchFolder(
    options.weights?.[IMAGE_REWARD_KEY] ?? IMAGE_REWARD_REPOSITORY,
    IMAGE_REWARD_KEY,
    IMAGE_REWARD_WEIGHTS,
    SIDE_FILES,
    options,
  );
  const config = readImageRewardConfig(folder);
  const tokenizer = await imageRewardTokenizer(folder, options);
  if (tokenizer.vocabSize !== config.text.vocabulary)
    throw new MiroError(
      `${folder}: the tokenizer has ${tokenizer.vocabSize} tokens, the text tower ${config.text.vocabulary}; ` +
        "both must be of one model",
    );
  // The published evaluation computes in float32: nothing else is rounded there.
  const dtype = options.precision === "upstream" ? "float32" : options.dtype;
  using file = openTensors(folder, IMAGE_REWARD_WEIGHTS);
  const head = readImageRewardHead(file, config);
  try {
    const place = placeOf({ ...options, dtype }, towerSize(config.vision));
    const blip = await loadBlip(file, config, place, options.signal);
    return new ImageRewardModel(blip, tokenizer, head, config.length);
  } catch (error) {
    head.weight.dispose();
    throw error;
  }
}

const size = z.int().min(1).max(65_536);
const layers = z.int().min(1).max(512);
const eps = z.number().positive().max(1);

const architectureSchema = z.looseObject({
  vision: z
    .looseObject({ width: size, layers, heads: size, image: size, patch: size, mlp: size, layer_norm_eps: eps })
    .partial()
    .default({}),
  /** The width of what goes in, then the outputs. */
  head: z.array(size).min(6).max(6).optional(),
  text_length: z.int().min(2).max(65_536).optional(),
});

const medSchema = z.looseObject({
  hidden_size: size.optional(),
  num_hidden_layers: layers.optional(),
  num_attention_heads: size.optional(),
  intermediate_size: size.optional(),
  vocab_size: z.int().min(8).max(2_000_000).optional(),
  max_position_embeddings: size.optional(),
  layer_norm_eps: eps.optional(),
  hidden_act: z.literal("gelu").optional(),
  add_cross_attention: z.literal(true).optional(),
});

/** The shape of a folder's ImageReward; what its files leave out is as published. @throws MiroError naming the file */
export function readImageRewardConfig(folder: string): ImageRewardConfig {
  checkName("folder", folder, "the name of a folder");
  const { vision: V, text: T, head, length } = IMAGE_REWARD;
  const [architecture, med] = [join(folder, "architecture.json"), join(folder, "med_config.json")];
  const a = existsSync(architecture) ? parseJsonFile(architecture, architectureSchema) : { vision: {} };
  const m = existsSync(med) ? parseJsonFile(med, medSchema) : {};
  const config: ImageRewardConfig = {
    vision: {
      width: a.vision.width ?? V.width,
      layers: a.vision.layers ?? V.layers,
      heads: a.vision.heads ?? V.heads,
      hidden: a.vision.mlp ?? V.hidden,
      image: a.vision.image ?? V.image,
      patch: a.vision.patch ?? V.patch,
      eps: a.vision.layer_norm_eps ?? V.eps,
    },
    text: {
      width: m.hidden_size ?? T.width,
      layers: m.num_hidden_layers ?? T.layers,
      heads: m.num_attention_heads ?? T.heads,
      hidden: m.intermediate_size ?? T.hidden,
      vocabulary: m.vocab_size ?? T.vocabulary,
      positions: m.max_position_embeddings ?? T.positions,
      eps: m.layer_norm_eps ?? T.eps,
    },
    head: a.head?.slice(1) ?? head,
    length: a.text_length ?? length,
  };
  const refuse = (path: string, reason: string) => new MiroError(`${path}: ${reason}`);
  checkHeads(architecture, "vision", config.vision);
  checkHeads(med, "num_attention_heads", config.text);
  const { image, patch } = config.vision;
  if (image % patch !== 0) throw refuse(architecture, `vision: patches of ${patch} pixels do not divide ${image}`);
  if (a.head && a.head[0] !== config.text.width)
    throw refuse(architecture, `head: expected ${config.text.width} first, the width of the text, found ${a.head[0]}`);
  if (config.length > config.text.positions)
    throw refuse(
      architecture,
      `text_length: ${config.length} tokens, but ${med} has ${config.text.positions} positions`,
    );
  return config;
}

function checkHeads(path: string, field: string, { width, heads }: BlipTower): void {
  if (width % heads !== 0) throw new MiroError(`${path}: ${field}: ${heads} heads do not divide a width of ${width}`);
}

/**
 * The vocabulary of a folder; where it has none, that of `bert-base-uncased` from the Hub.
 *
 * @throws MiroError naming the file that is broken, or what to put where
 */
export async function imageRewardTokenizer(
  folder: string,
  { cacheDir, signal }: Pick<LoadScorerOptions, "cacheDir" | "signal">,
): Promise<WordPieceTokenizer> {
  const own = WordPieceTokenizer.fromFolder(folder, ADDED_TOKENS);
  if (own !== null) return own;
  const { repository, file } = BERT_VOCABULARY;
  let path: string;
  try {
    const source = await resolveModel(repository, `weights.${IMAGE_REWARD_KEY}`, { cacheDir, signal });
    await source.fetch([file]);
    path = join(source.folder, file);
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof MiroError)) throw error;
    throw new MiroError(
      `${folder}: has no vocabulary, and that of ${repository} cannot be fetched: ${error.message}. ` +
        `Put its ${file} into ${join(folder, "tokenizer")}`,
      { cause: error },
    );
  }
  const hash = sha256(readBytes(path));
  if (hash !== BERT_VOCABULARY.sha256)
    throw new MiroError(
      `${path}: not the vocabulary of bert-base-uncased: its SHA-256 is ${hash}, expected ${BERT_VOCABULARY.sha256}; ` +
        `put the right ${file} into ${join(folder, "tokenizer")}`,
    );
  return WordPieceTokenizer.fromFile(path, ADDED_TOKENS);
}

const BLIP = "blip.";
const HEAD = "mlp.layers";
/** Positions that count from zero, and BLIP's projections, which ImageReward does not use. */
const UNUSED = /^blip\.(?:text_encoder\.embeddings\.position_ids|(?:vision|text)_proj\.(?:weight|bias))$/;

/**
 * The networks.
 * @throws MiroError naming the file and the tensors that do not fit; FormatError for infinite values; the signal's
 *   reason when it is aborted
 */
export async function loadBlip(
  file: TensorFile,
  config: BlipConfig,
  place: WeightsPlace,
  signal?: AbortSignal,
): Promise<Blip> {
  const { vision, text } = config;
  const layout = {
    what: "this ImageReward",
    size: towerSize(vision) + towerSize(text) + text.vocabulary * text.width,
    stored: (name: string) => ({ keys: publishedKeys(name) }),
    ignored: (key: string) => UNUSED.test(key) || key.startsWith(`${HEAD}.`),
  };
  return loadStrictly(() => new Blip(config), file, place, layout, signal);
}

function publishedKeys(name: string): string[] {
  const fused = /^(.+\.)(attention\.qkv|crossattention\.(?:query|kv))\.(weight|bias)$/.exec(name);
  if (!fused) return [BLIP + name];
  const [, layer, module, end] = fused;
  const [attention, parts] = FUSED[module!]!;
  return parts.map((part) => `${BLIP}${layer}${attention}.self.${part}.${end}`);
}

const FUSED: Record<string, [attention: string, parts: string[]]> = {
  "attention.qkv": ["attention", ["query", "key", "value"]],
  "crossattention.query": ["crossattention", ["query"]],
  "crossattention.kv": ["crossattention", ["key", "value"]],
};

/** The head, folded. @throws MiroError naming the file and the tensor */
export function readImageRewardHead(file: TensorFile, { head, text }: ImageRewardConfig): LinearHead {
  const part = tensorFile({
    path: file.path,
    keys: () => file.keys().filter((key) => key.startsWith("mlp.")),
    has: (key) => file.has(key),
    info: (key) => file.info(key),
    copyInPieces: (key, target) => file.copyInPieces(key, target),
  });
  return readLinearHead(part, HEAD, text.width, head);
}

class ImageRewardModel implements ScorerModel {
  readonly name = IMAGE_REWARD_NAME;
  readonly batchSize = BATCH;
  readonly dtype: DType;
  readonly #blip: Blip;
  readonly #tokenizer: WordPieceTokenizer;
  readonly #head: LinearHead;
  readonly #length: number;
  readonly #kept = new KeptFeatures(KEPT);

  constructor(blip: Blip, tokenizer: WordPieceTokenizer, head: LinearHead, length: number) {
    this.dtype = blip.dtype;
    this.#blip = blip;
    this.#tokenizer = tokenizer;
    this.#head = head;
    this.#length = length;
  }

  truncates(caption: string): boolean {
    return this.#tokenizer.truncates(caption, this.#length);
  }

  async score(images: readonly RgbImage[], captions: readonly string[], { signal }: ScoreCall = {}): Promise<number[]> {
    const { image: side } = this.#blip.config.vision;
    const seen = keyedPictures(images, side, "pillow");
    // A picture that stands beside several captions is looked at once.
    const distinct = new Map(seen.map((picture) => [picture.key, picture]));
    using image_NVW = await this.#kept.of([...distinct.values()], [...distinct.keys()], (missing) =>
      runByLayer(this.#encodeImages(missing), signal),
    );
    const places = new Map([...distinct.keys()].map((key, n) => [key, n]));
    const of = seen.map(({ key }) => places.get(key)!);
    using state_BW = await runByLayer(this.#encodeTexts(captions, image_NVW, of), signal);
    return noGrad(() => scope(() => this.#rewards(state_BW)));
  }

  /** Tokens of pictures (N, V, W) */
  *#encodeImages(pictures: readonly KeyedPicture[]): ByLayer<Tensor> {
    const { device, config } = this.#blip;
    const pixels = scope(() => {
      const each = pictures.map((picture) => keyedPixels(picture, config.vision.image, "pillow"));
      return stack(each).to({ device });
    });
    return yield* holding([pixels], this.#blip.encodeImageByLayer(pixels));
  }

  /** States of [CLS] (B, W) of texts that look at pictures. @param of the picture of each */
  *#encodeTexts(captions: readonly string[], image_NVW: Tensor, of: readonly number[]): ByLayer<Tensor> {
    const { device } = this.#blip;
    const { ids, mask } = this.#tokenizer.encodeBatch(captions, this.#length);
    const of_B = tensor(BigInt64Array.from(of, BigInt), { dtype: "int64" });
    const asked = [ids, mask, of_B].map((rows) => rows.to({ device })) as [Tensor, Tensor, Tensor];
    const [ids_BT, mask_BT, picture_B] = asked;
    const layers = this.#blip.encodeTextByLayer(ids_BT, mask_BT, image_NVW, picture_B);
    return (yield* holding(asked, layers)).select(1, 0);
  }

  #rewards(state_BW: Tensor): number[] {
    const { weight, bias } = this.#head;
    const values = state_BW.to({ device: "cpu", dtype: "float64" }).matmul(weight).data() as Float64Array;
    return Array.from(values, (value) => (value + bias - MEAN) / DEVIATION);
  }

  dispose(): void {
    this.#kept.dispose();
    this.#head.weight.dispose();
    this.#blip.dispose();
  }
}
