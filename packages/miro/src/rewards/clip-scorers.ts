/**
 * The scorers that are a CLIP: how well a picture shows a text, as the cosine of their features.
 *
 *   clip_openai         exp(s) cos(image, text)   OpenAI's ViT-L/14 (Radford et al. 2021)
 *   pick_a_score_score  exp(s) cos(image, text)   PickScore (Kirstain et al. 2023), ViT-H/14 tuned on people's choices
 *   sciscore_score      exp(s) cos(image, text)   SciScore (Li et al. 2025), ViT-H/14 tuned on scientific reasoning
 *   hpsv2_score         cos(image, text)          Human Preference Score v2 (Wu et al. 2023), ViT-H/14
 *   aesthetic_score     head(image / ‖image‖)     LAION's aesthetic predictor on OpenAI's ViT-L/14, about 1 to 10
 *
 * s is the learned scale of the file. Towers are computed in the dtype that was asked for, features, norms, products
 * and heads in float32 or wider. With `precision: "upstream"` they are rounded where the published evaluation rounds
 * them on a GPU (SciScore, which it does not have: where the published data sets' preparation does):
 *
 *   clip_openai, pick_a_score_score   towers in mixed precision (autocast) with bfloat16; cosine and score in bfloat16
 *   sciscore_score                    the same with float16
 *   hpsv2_score                       towers in mixed precision with float16; cosine in float32
 *   aesthetic_score                   tower and features in float16; norm and head in float32
 */
import { type DType, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { InvalidInputError, MiroError } from "../errors.js";
import { openTensors, readScalar } from "../files/tensor-files.js";
import { message, option } from "../message.js";
import { type ByLayer, holding } from "../networks/by-layer.js";
import type { Clip, ClipText } from "../networks/clip.js";
import type { RgbImage } from "../pictures/rgb.js";
import { fetchKnownFile } from "../pipeline/loading/known-file.js";
import { type ClipCleaning, ClipTokenizer } from "../text/clip-tokenizer.js";
import { CLIP_L, readClipConfig } from "./clip-config.js";
import {
  AESTHETIC_FILE,
  AESTHETIC_HEAD,
  AESTHETIC_HEAD_URL,
  type ClipScorer,
  clipOpenai,
  HUGGING_FACE_WEIGHTS,
  OPENAI_CLIP,
} from "./clip-facts.js";
import { type Autocast, holdVision, inFloat32, type VisionFeatures, within } from "./clip-vision.js";
import { loadClip, loadClipText, towerSize } from "./clip-weights.js";
import { type LinearHead, readLinearHead } from "./linear-head.js";
import { fetchFolder, placeOf } from "./published-folder.js";
import { runByLayer } from "./run-by-layer.js";
import type { LoadScorerOptions, ScoreCall, ScorerModel } from "./scorer.js";
import type { Hold } from "./shared.js";
import { TextFeatures } from "./text-features.js";

/** Pictures of one call. */
const BATCH = 16;

/** What says how the weights are to be used; a folder may lack any of these. */
const SIDE_FILES = [
  "config.json",
  "open_clip_config.json",
  "merges.txt",
  "tokenizer.json",
  "tokenizer/merges.txt",
  "tokenizer/tokenizer.json",
  "tokenizer/bpe_simple_vocab_16e6.txt.gz",
];

/** Reads one of the CLIPs. */
export async function loadClipScorer(scorer: ClipScorer, options: LoadScorerOptions): Promise<ScorerModel> {
  const { folder, config, tokenizer } = await openFolder(scorer, options);
  const isRounded = options.precision === "upstream";
  const place = placeOf(isRounded ? { ...options, dtype: "float32" } : options, towerSize(config.vision));
  using file = openTensors(folder, scorer.weights);
  const vision = await holdVision(file, config, place, options.signal);
  try {
    const text = await loadClipText(file, config, place, options.signal);
    const scale = scorer.scaled ? Math.exp(readScalar(file, "logit_scale")) : 1;
    return new ClipModel(scorer, vision, text, tokenizer, { scale, isRounded });
  } catch (error) {
    vision.dispose();
    throw error;
  }
}

/** Both towers of a CLIP, its tokenizer, and the file that the weights were read from. */
export interface ClipTowers {
  clip: Clip;
  tokenizer: ClipTokenizer;
  path: string;
}

/** OpenAI's CLIP for other uses than scoring. @param options its weights are those of `clip_openai` */
export async function loadOpenaiClip(options: LoadScorerOptions, cleaning: ClipCleaning): Promise<ClipTowers> {
  const { folder, config, tokenizer } = await openFolder({ ...clipOpenai, cleaning }, options);
  using file = openTensors(folder, clipOpenai.weights);
  const place = placeOf(options, towerSize(config.vision));
  const clip = await loadClip(file, config, place, options.signal);
  return { clip, tokenizer, path: file.path };
}

async function openFolder({ key, repository, weights, shape, cleaning }: ClipScorer, options: LoadScorerOptions) {
  const folder = await fetchFolder(options.weights?.[key] ?? repository, key, weights, SIDE_FILES, options);
  const config = readClipConfig(folder, shape);
  const tokenizer = ClipTokenizer.fromFolder(folder, cleaning);
  if (tokenizer.vocabSize !== config.text.vocabulary)
    throw new MiroError(
      `${folder}: the tokenizer has ${tokenizer.vocabSize} tokens, the text tower ${config.text.vocabulary}; ` +
        "both must be of one model",
    );
  return { folder, config, tokenizer };
}

/** Reads the aesthetic predictor and its tower. */
export async function loadAesthetic(options: LoadScorerOptions): Promise<ScorerModel> {
  const head = options.weights?.aesthetic_score;
  const headFolder =
    head === undefined
      ? await fetchHead(options)
      : await fetchFolder(head, "aesthetic_score", [AESTHETIC_HEAD], [], options);
  const towerFolder = await fetchFolder(
    options.weights?.clip_openai ?? OPENAI_CLIP,
    "clip_openai",
    HUGGING_FACE_WEIGHTS,
    SIDE_FILES,
    options,
  );
  const config = readClipConfig(towerFolder, CLIP_L);
  using headFile = openTensors(headFolder, [AESTHETIC_HEAD]);
  const folded = readLinearHead(headFile, "layers", config.joint);
  try {
    const isRounded = options.precision === "upstream";
    const place = placeOf(isRounded ? { ...options, dtype: "float16" } : options, towerSize(config.vision));
    using file = openTensors(towerFolder, HUGGING_FACE_WEIGHTS);
    return new AestheticModel(await holdVision(file, config, place, options.signal), folded, isRounded);
  } catch (error) {
    folded.weight.dispose();
    throw error;
  }
}

/** The folder of the published head, which is no repository of the Hub. */
async function fetchHead(options: LoadScorerOptions): Promise<string> {
  try {
    return await fetchKnownFile(AESTHETIC_FILE, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new InvalidInputError(
      message`aesthetic_score: needs the folder of its head, ${AESTHETIC_HEAD}: ${error}; download it from ${AESTHETIC_HEAD_URL} and give its folder with ${option("weights", "aesthetic_score=DIR")}`,
      { cause: error },
    );
  }
}

/** Of unit length. */
function unit(x_BD: Tensor): Tensor {
  return x_BD.div(norm(x_BD));
}

/** (B, D) → (B, 1) */
function norm(x_BD: Tensor): Tensor {
  return x_BD.square().sum(-1, { keepdim: true }).sqrt();
}

class ClipModel implements ScorerModel {
  readonly name: string;
  readonly batchSize = BATCH;
  readonly dtype: DType;
  readonly #scorer: ClipScorer;
  readonly #vision: Hold<VisionFeatures>;
  readonly #text: ClipText;
  readonly #tokenizer: ClipTokenizer;
  readonly #scale: number;
  readonly #mixed: Autocast | null;
  readonly #cosine: DType;
  /** Of unit length, in float32. */
  readonly #texts = new TextFeatures((captions, signal) => this.#encode(captions, signal));

  constructor(
    scorer: ClipScorer,
    vision: Hold<VisionFeatures>,
    text: ClipText,
    tokenizer: ClipTokenizer,
    { scale, isRounded }: { scale: number; isRounded: boolean },
  ) {
    this.name = scorer.name;
    this.#scorer = scorer;
    this.#vision = vision;
    this.#text = text;
    this.#tokenizer = tokenizer;
    this.#scale = scale;
    this.#mixed = isRounded ? scorer.upstream.towers : null;
    this.#cosine = isRounded ? scorer.upstream.cosine : "float32";
    this.dtype = this.#mixed?.products ?? vision.value.dtype;
  }

  truncates(caption: string): boolean {
    return this.#tokenizer.encode(caption).length > this.#text.config.text.context;
  }

  async score(images: readonly RgbImage[], captions: readonly string[], { signal }: ScoreCall = {}): Promise<number[]> {
    const asked = { mixed: this.#mixed, signal };
    using features_BD = await this.#vision.value.of(images, this.#scorer.pixels, asked);
    using text_BD = await this.#texts.of(captions, signal);
    return noGrad(() =>
      scope(() => {
        const image_BD = unit(features_BD);
        if (this.#cosine === "float32") {
          const cosines = image_BD.mul(text_BD).sum(-1).to({ device: "cpu" }).data() as Float32Array;
          return Array.from(cosines, (cosine) => this.#scale * cosine);
        }
        const rounded = (x: Tensor) => x.to({ dtype: this.#cosine });
        const cosines_B = rounded(rounded(image_BD).float().mul(rounded(text_BD).float()).sum(-1));
        const scores_B = cosines_B.mul(Math.fround(this.#scale));
        return Array.from(scores_B.float().to({ device: "cpu" }).data() as Float32Array);
      }),
    );
  }

  /** Features of captions (B, D) of unit length, in float32 */
  async #encode(captions: readonly string[], signal: AbortSignal | undefined): Promise<Tensor> {
    const { device } = this.#text.logitScale;
    const layers = inFloat32(this.#encodeByLayer(captions));
    using features_BD = await runByLayer(layers, signal, (body) => within(this.#mixed, device, body));
    return noGrad(() => scope(() => unit(features_BD)));
  }

  *#encodeByLayer(captions: readonly string[]): ByLayer<Tensor> {
    const { device } = this.#text.logitScale;
    const { ids, ends } = this.#tokenizer.encodeBatch(captions, this.#text.config.text.context);
    const ids_BT = ids.to({ device });
    const ends_B = tensor(BigInt64Array.from(ends, BigInt), { dtype: "int64" }).to({ device });
    return yield* holding([ids_BT, ends_B], this.#text.encodeTextByLayer(ids_BT, ends_B));
  }

  dispose(): void {
    this.#texts.dispose();
    this.#text.dispose();
    this.#vision.dispose();
  }
}

/** Features shorter than this are not made longer by the published evaluation. */
const LEAST_NORM = 1e-6;

class AestheticModel implements ScorerModel {
  readonly name = "LAION aesthetic predictor";
  readonly batchSize = BATCH;
  readonly dtype: DType;
  readonly #vision: Hold<VisionFeatures>;
  readonly #head: LinearHead;
  readonly #isRounded: boolean;

  constructor(vision: Hold<VisionFeatures>, head: LinearHead, isRounded: boolean) {
    this.#vision = vision;
    this.#head = head;
    this.#isRounded = isRounded;
    this.dtype = vision.value.dtype;
  }

  async score(
    images: readonly RgbImage[],
    _captions: readonly string[],
    { signal }: ScoreCall = {},
  ): Promise<number[]> {
    using features_BD = await this.#vision.value.of(images, "pillow", { signal });
    return noGrad(() =>
      scope(() => {
        const scores_B = this.#judge(this.#isRounded ? features_BD.to({ dtype: "float16" }).float() : features_BD);
        const scores = scores_B.to({ device: "cpu", dtype: "float64" }).data() as Float64Array;
        return Array.from(scores, (score) => score + this.#head.bias);
      }),
    );
  }

  #judge(features_BD: Tensor): Tensor {
    const norms_B1 = norm(features_BD);
    if (this.#isRounded) {
      const unit_BD = features_BD.div(norms_B1.clamp({ min: LEAST_NORM }));
      return unit_BD.to({ device: "cpu" }).matmul(this.#head.weight.float());
    }
    // A feature of zeros stays one, as in the published scorer.
    const unit_BD = features_BD.div(norms_B1.add(norms_B1.eq(0).float()));
    return unit_BD.to({ device: "cpu", dtype: "float64" }).matmul(this.#head.weight);
  }

  dispose(): void {
    this.#head.weight.dispose();
    this.#vision.dispose();
  }
}
