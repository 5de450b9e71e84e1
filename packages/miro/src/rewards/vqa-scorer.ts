/**
 * VQAScore (Lin et al. 2024, "Evaluating Text-to-Visual Generation with Image-to-Text Generation"): the probability
 * that CLIP-FlanT5 answers "Yes" to the question whether a picture shows a caption,
 *
 *   score = exp(mean over the answer's tokens of log P(token | picture, question, tokens before))
 *
 *   picture → square on the mean colour → ViT-L/14-336, states before the last block → projector ─┐
 *   question → embeddings, with a place for the picture ─────────────────────────────────────────┴→ T5
 *
 * The vision tower and T5 are computed in the dtype that was asked for, the projector, norms, attention and the output
 * head in float32. With `precision: "upstream"` all weights are bfloat16 and the logits are rounded to it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cat, cuda, itemSize, noGrad, scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { availableMemory } from "@miro-t2i/torch/limits";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { formatSize } from "../files/sizes.js";
import { openTensors } from "../files/tensor-files.js";
import { type ByLayer, holding } from "../networks/by-layer.js";
import type { ClipVisionTower } from "../networks/clip.js";
import type { RgbImage } from "../pictures/rgb.js";
import { cudaIndex } from "../pipeline/loading/device.js";
import { resolveModel } from "../pipeline/loading/hub.js";
import type { T5Rows } from "../text/t5-stack.js";
import { Tokenizer } from "../text/tokenizer.js";
import { CLIP_L_336, readClipConfig } from "./clip-config.js";
import { clipPixels } from "./clip-pixels.js";
import { loadClipTower } from "./clip-weights.js";
import { fetchFolder, placeOf } from "./published-folder.js";
import { runByLayer } from "./run-by-layer.js";
import type { LoadScorerOptions, ScoreCall, ScorerModel } from "./scorer.js";
import type { WeightsPlace } from "./strict-weights.js";
import { countVqaParameters, readVqaConfig, type VqaConfig } from "./vqa-config.js";
import {
  VQA_KEY,
  VQA_NAME,
  VQA_REPOSITORY,
  VQA_TOKENIZER,
  VQA_TOKENIZER_KEY,
  VQA_TOKENIZER_REPOSITORY,
  VQA_TOWER_KEY,
  VQA_TOWER_REPOSITORY,
  VQA_WEIGHTS,
} from "./vqa-facts.js";
import { IMAGE_ID, vqaLabels, vqaRow, vqaTruncates } from "./vqa-text.js";
import { checkVqa, loadVqa, type VqaNetworks, vqaTokens } from "./vqa-weights.js";

/** Pictures of one call. */
const BATCH = 16;
/** Tokens of a question that memory is kept for. */
const QUESTION_TOKENS = 192;

/** @param freeBytes memory that may be used; default: what the device has left */
export async function loadVqaScorer(options: LoadScorerOptions, freeBytes?: number): Promise<ScorerModel> {
  const { weights = {}, dtype, precision, onMessage } = options;
  if (dtype === "float16")
    throw invalid("dtype", `float32, bfloat16 or auto for ${VQA_KEY} (T5 overflows in float16)`, dtype);
  const folder = await fetchFolder(
    weights[VQA_KEY] ?? VQA_REPOSITORY,
    VQA_KEY,
    VQA_WEIGHTS,
    ["config.json", "architecture.json", VQA_TOKENIZER],
    options,
  );
  const config = readVqaConfig(folder);
  const tokenizer = await loadTokenizer(folder, options);
  const file = openTensors(folder, VQA_WEIGHTS);
  let kept = false;
  try {
    checkVqa(file, config);
    const tokens = vqaTokens(file, config);
    if (tokenizer.vocabSize > tokens)
      throw new MiroError(
        `${folder}: the tokenizer has ${tokenizer.vocabSize} tokens, T5 ${tokens}; both must be of one model`,
      );
    const parameters = countVqaParameters(config, tokens);
    const asked = placeOf(options, parameters.blocks);
    const rounded = precision === "upstream";
    const place: WeightsPlace = { ...asked, dtype: rounded || asked.dtype === "float16" ? "bfloat16" : asked.dtype };
    const streamed = chooseStreaming(config, tokens, place, freeBytes ?? freeOn(place.device), onMessage);
    const networks = await loadVqa(file, config, place, { streamed, signal: options.signal });
    kept = streamed;
    try {
      const tower = networks.tower ?? (await loadTower(config, place, options));
      return new VqaModel(config, { ...networks, tower }, tokenizer, { ...place, rounded });
    } catch (error) {
      networks[Symbol.dispose]();
      throw error;
    }
  } finally {
    if (!kept) file[Symbol.dispose]();
  }
}

/** Bytes that a device has left. */
function freeOn(device: string): number {
  const gpu = cudaIndex(device);
  return gpu === null ? availableMemory() : cuda.devices()[gpu]!.memoryBytes - cuda.memory(gpu).allocatedBytes;
}

/** The tokenizer beside the weights, else the published one of FLAN-T5, which all sizes share. */
async function loadTokenizer(
  folder: string,
  { weights = {}, cacheDir, signal }: LoadScorerOptions,
): Promise<Tokenizer> {
  const given = weights[VQA_TOKENIZER_KEY];
  if (given === undefined && existsSync(join(folder, VQA_TOKENIZER))) return Tokenizer.fromFile(folder);
  const name = given ?? VQA_TOKENIZER_REPOSITORY;
  const source = await resolveModel(name, `weights.${VQA_TOKENIZER_KEY}`, { cacheDir, signal });
  if (!source.files.includes(VQA_TOKENIZER)) throw new InvalidInputError(`${name}: holds no ${VQA_TOKENIZER}`);
  await source.fetch([VQA_TOKENIZER]);
  return Tokenizer.fromFile(source.folder);
}

async function loadTower(config: VqaConfig, place: WeightsPlace, options: LoadScorerOptions): Promise<ClipVisionTower> {
  const name = options.weights?.[VQA_TOWER_KEY] ?? VQA_TOWER_REPOSITORY;
  const folder = await fetchFolder(name, VQA_TOWER_KEY, VQA_WEIGHTS, ["config.json"], options);
  const { vision } = readClipConfig(folder, CLIP_L_336);
  if (vision.width !== config.vision.width)
    throw new MiroError(
      `${folder}: the vision tower has a width of ${vision.width}, CLIP-FlanT5 takes ${config.vision.width}`,
    );
  using file = openTensors(folder, VQA_WEIGHTS);
  return await loadClipTower(file, vision, place, { signal: options.signal });
}

/** Whether the blocks of T5 are read from the disk for each batch. @throws MiroError when even that takes too much */
function chooseStreaming(
  config: VqaConfig,
  tokens: number,
  { device, dtype }: WeightsPlace,
  freeBytes: number,
  onMessage: LoadScorerOptions["onMessage"],
): boolean {
  const { t5, vision } = config;
  const { blocks, encoderBlock, decoderBlock, embedding, projector, tower } = countVqaParameters(config, tokens);
  const width = itemSize(dtype);
  const rows = BATCH * ((vision.image / vision.patch) ** 2 + QUESTION_TOKENS);
  const always = width * (tower + embedding) + 4 * (projector + embedding) + 4 * rows * (3 * t5.dFf + 8 * t5.dModel);
  const resident = always + width * blocks;
  const least = always + width * Math.max(encoderBlock, decoderBlock);
  if (resident <= freeBytes) return false;
  if (least > freeBytes)
    throw new MiroError(
      `${VQA_KEY}: needs ${formatSize(least)} of memory on ${device} in ${dtype}, with its layers read from disk one by one; ` +
        `${formatSize(freeBytes)} are free`,
    );
  onMessage?.(
    `${VQA_KEY}: needs ${formatSize(resident)} of memory on ${device} in ${dtype}, ${formatSize(freeBytes)} are free; ` +
      "its layers are read from disk for each batch, which is slow",
  );
  return true;
}

class VqaModel implements ScorerModel {
  readonly name = VQA_NAME;
  readonly batchSize = BATCH;
  readonly dtype: WeightsPlace["dtype"];
  readonly #config: VqaConfig;
  readonly #networks: VqaNetworks & { tower: ClipVisionTower };
  readonly #tokenizer: Tokenizer;
  readonly #device: string;
  readonly #labels: number[];
  /** Whether logits are bfloat16, as those that published scores come from. */
  readonly #rounded: boolean;

  constructor(
    config: VqaConfig,
    networks: VqaNetworks & { tower: ClipVisionTower },
    tokenizer: Tokenizer,
    { device, dtype, rounded }: WeightsPlace & { rounded: boolean },
  ) {
    this.#rounded = rounded;
    this.dtype = dtype;
    this.#config = config;
    this.#networks = networks;
    this.#tokenizer = tokenizer;
    this.#device = device;
    this.#labels = vqaLabels(tokenizer);
  }

  truncates(caption: string): boolean {
    return vqaTruncates(this.#tokenizer, caption);
  }

  async score(images: readonly RgbImage[], captions: readonly string[], { signal }: ScoreCall = {}): Promise<number[]> {
    using images_BTd = await runByLayer(this.#see(images), signal);
    using decoded_BLd = await runByLayer(this.#answer(images_BTd, captions), signal);
    return noGrad(() =>
      scope(() => {
        const exact_BLV = this.#networks.t5.logits(decoded_BLd);
        const logits_BLV = this.#rounded ? exact_BLV.to({ dtype: "bfloat16" }).float() : exact_BLV;
        const labels = tensor(BigInt64Array.from(this.#labels, BigInt), { dtype: "int64", device: this.#device });
        const index_BL1 = labels.view(1, -1, 1).expand(images.length, -1, 1);
        const mean_B = logits_BLV.logSoftmax(-1).gather(-1, index_BL1).mean([1, 2]);
        return Array.from(mean_B.to({ device: "cpu" }).data() as Float32Array, Math.exp);
      }),
    );
  }

  /** Pictures as T5 reads them (B, T, d) */
  *#see(images: readonly RgbImage[]): ByLayer<Tensor> {
    const { tower, projector } = this.#networks;
    const pixels = scope(() => {
      const each = images.map((image) => clipPixels(image, tower.config.image, "square"));
      return stack(each).to({ device: this.#device });
    });
    const patches_BTW = yield* holding([pixels], tower.patchesByLayer(pixels));
    return projector.forward(patches_BTW.float());
  }

  /** Last states of the decoder (B, L, d) for the questions whether the pictures show the captions. */
  *#answer(images_BTd: Tensor, captions: readonly string[]): ByLayer<Tensor> {
    const { t5 } = this.#networks;
    const texts = this.#texts(images_BTd, captions);
    const encoded = yield* holding([texts.states], t5.encodeByLayer(texts));
    const decoded = t5.decodeByLayer(encoded, this.#labels, this.#config.startId);
    return yield* holding([encoded.states], decoded);
  }

  /** Questions with their pictures in them. */
  #texts(images_BTd: Tensor, captions: readonly string[]): T5Rows {
    const { t5 } = this.#networks;
    return scope(() => {
      const rows: Tensor[] = captions.map((caption, i) => {
        const ids = vqaRow(this.#tokenizer, caption);
        const at = ids.indexOf(IMAGE_ID);
        return cat([t5.embed(ids.slice(0, at)), images_BTd.select(0, i), t5.embed(ids.slice(at + 1))], 0);
      });
      return { states: cat(rows, 0), lengths: rows.map((row) => row.size(0)) };
    });
  }

  dispose(): void {
    this.#networks.tower.dispose();
    this.#networks[Symbol.dispose]();
  }
}
