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
 * and heads in float32 or wider.
 */
import { noGrad, scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { InvalidInputError, MiroError } from "../errors.js";
import type { Clip, ClipConfig, ClipVision } from "../networks/clip.js";
import type { RgbImage } from "../pictures/rgb.js";
import { type ClipCleaning, ClipTokenizer } from "../text/clip-tokenizer.js";
import { CLIP_H, CLIP_L, readClipConfig } from "./clip-config.js";
import { type ClipPixels, clipPixels } from "./clip-pixels.js";
import { loadClip, loadClipVision, towerSize } from "./clip-weights.js";
import { type LinearHead, readLinearHead } from "./linear-head.js";
import { fetchFolder, placeOf } from "./published-folder.js";
import type { LoadScorerOptions, ScorerLicense, ScorerMemory, ScorerModel, ScorerSpec } from "./scorer.js";
import { openTensors } from "./tensor-files.js";

/** Pictures of one call. */
const BATCH = 16;
/** Captions whose features are kept. */
const CACHED_TEXTS = 256;

const HUGGING_FACE_WEIGHTS = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
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
const OPENAI_CLIP = "openai/clip-vit-large-patch14";
const AESTHETIC_HEAD = "sac+logos+ava1-l14-linearMSE.pth";
const AESTHETIC_HEAD_URL =
  "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth";

const MIT: ScorerLicense = { name: "MIT", nonCommercial: false };
const APACHE: ScorerLicense = { name: "Apache-2.0", nonCommercial: false };
const CLIP_L_PARAMETERS = 427_616_513;
const CLIP_L_VISION_PARAMETERS = 303_966_208;
const CLIP_H_PARAMETERS = 986_109_441;
/** The part that CLIP and the aesthetic predictor share. */
const VISION_L = "CLIP ViT-L/14, pictures";
/** Of a batch of pictures in the larger tower. */
const WORKING_BYTES = 400e6;

/** One of the scorers that compare picture and text. */
interface ClipScorer {
  key: string;
  name: string;
  description: string;
  repository: string;
  weights: readonly string[];
  shape: ClipConfig;
  cleaning: ClipCleaning;
  pixels: ClipPixels;
  /** Whether the cosine is multiplied by the model's scale. */
  scaled: boolean;
  syntheticCaption: "short" | "long";
  license: ScorerLicense;
  /** Of the published file. */
  sizeBytes: number;
  memory: ScorerMemory;
}

const clipOpenai: ClipScorer = {
  key: "clip_openai",
  name: "CLIP ViT-L/14",
  description: "how well picture and text agree, about 15 to 35 (OpenAI's CLIP ViT-L/14)",
  repository: OPENAI_CLIP,
  weights: HUGGING_FACE_WEIGHTS,
  shape: CLIP_L,
  cleaning: "hugging-face",
  pixels: "transformers",
  scaled: true,
  syntheticCaption: "long",
  license: MIT,
  sizeBytes: 1_710_540_580,
  memory: {
    parts: {
      [VISION_L]: CLIP_L_VISION_PARAMETERS,
      "CLIP ViT-L/14, text": CLIP_L_PARAMETERS - CLIP_L_VISION_PARAMETERS,
    },
    workingBytes: WORKING_BYTES,
  },
};

const pickScore: ClipScorer = {
  key: "pick_a_score_score",
  name: "PickScore v1",
  description: "which picture people pick for a text, about 17 to 25 (PickScore)",
  repository: "yuvalkirstain/PickScore_v1",
  weights: HUGGING_FACE_WEIGHTS,
  shape: CLIP_H,
  cleaning: "hugging-face",
  pixels: "transformers",
  scaled: true,
  syntheticCaption: "short",
  license: MIT,
  sizeBytes: 4 * CLIP_H_PARAMETERS,
  memory: { parts: { PickScore: CLIP_H_PARAMETERS }, workingBytes: WORKING_BYTES },
};

const sciScore: ClipScorer = {
  ...pickScore,
  license: APACHE,
  memory: { ...pickScore.memory, parts: { SciScore: CLIP_H_PARAMETERS } },
  key: "sciscore_score",
  name: "SciScore",
  description: "whether a picture obeys the science in a text, tens (SciScore)",
  repository: "Jialuo21/SciScore",
};

/** The two versions of HPSv2, which are not comparable. */
const HPS = {
  "v2.1": { name: "HPSv2.1", file: "HPS_v2.1_compressed.pt" },
  "v2.0": { name: "HPSv2.0", file: "HPS_v2_compressed.pt" },
} as const;

const hpsv2: Omit<ClipScorer, "name" | "weights"> = {
  key: "hpsv2_score",
  description: "how much people like a picture for a text, about 0.1 to 0.38 (HPSv2.1; v2.0 with --hps-version v2.0)",
  repository: "xswu/HPSv2",
  shape: CLIP_H,
  cleaning: "openai",
  pixels: "tensor",
  scaled: false,
  syntheticCaption: "short",
  license: APACHE,
  sizeBytes: 2 * CLIP_H_PARAMETERS,
  memory: { parts: { HPSv2: CLIP_H_PARAMETERS }, workingBytes: WORKING_BYTES },
};

const clipSpec = (scorer: ClipScorer): ScorerSpec => ({
  key: scorer.key,
  name: scorer.name,
  description: scorer.description,
  stage: "rewards",
  usesText: true,
  pixels: "stored",
  onRequest: true,
  ...(scorer.scaled && { stored: { divisor: 100, offset: 0 } }),
  syntheticCaption: scorer.syntheticCaption,
  license: scorer.license,
  repositories: [{ name: scorer.repository, weights: scorer.weights, sizeBytes: scorer.sizeBytes }],
  memory: scorer.memory,
  load: (options) => loadClipScorer(scorer, options),
});

/** The specs, as `registerScorer` takes them. */
export const clipScorerSpecs: readonly ScorerSpec[] = [
  clipSpec(clipOpenai),
  {
    key: "aesthetic_score",
    name: "LAION aesthetic predictor",
    description: "how beautiful people find a picture, about 1 to 10 (LAION's predictor on CLIP ViT-L/14)",
    stage: "rewards",
    usesText: false,
    pixels: "stored",
    onRequest: true,
    stored: { divisor: 10, offset: 0 },
    license: { name: "Apache-2.0 (head), MIT (CLIP)", nonCommercial: false },
    repositories: [
      { name: AESTHETIC_HEAD_URL, weights: [AESTHETIC_HEAD], sizeBytes: 3_714_759 },
      {
        name: OPENAI_CLIP,
        weights: HUGGING_FACE_WEIGHTS,
        sizeBytes: clipOpenai.sizeBytes,
        givenAs: clipOpenai.key,
      },
    ],
    memory: { parts: { [VISION_L]: CLIP_L_VISION_PARAMETERS }, workingBytes: WORKING_BYTES },
    load: loadAesthetic,
  },
  clipSpec(pickScore),
  {
    ...clipSpec({ ...hpsv2, name: HPS["v2.1"].name, weights: [HPS["v2.1"].file, HPS["v2.0"].file] }),
    modelName: hpsName,
    load: (options) => {
      const { file } = HPS[options.hpsVersion ?? "v2.1"];
      const pixels = options.hpsLetterbox ? "letterbox" : hpsv2.pixels;
      return loadClipScorer({ ...hpsv2, name: hpsName(options), weights: [file], pixels }, options);
    },
  },
  clipSpec(sciScore),
];

function hpsName({ hpsVersion = "v2.1", hpsLetterbox = false }: LoadScorerOptions): string {
  return `${HPS[hpsVersion].name}${hpsLetterbox ? " with letterbox" : ""}`;
}

async function loadClipScorer(scorer: ClipScorer, options: LoadScorerOptions): Promise<ScorerModel> {
  const { clip, tokenizer } = await loadTowers(scorer, options);
  return new ClipModel(scorer, clip, tokenizer);
}

/** Both towers of a CLIP, its tokenizer, and the file that the weights were read from. */
export interface ClipTowers {
  clip: Clip;
  tokenizer: ClipTokenizer;
  path: string;
}

/** OpenAI's CLIP for other uses than scoring. @param options its weights are those of `clip_openai` */
export function loadOpenaiClip(options: LoadScorerOptions, cleaning: ClipCleaning): Promise<ClipTowers> {
  return loadTowers({ ...clipOpenai, cleaning }, options);
}

async function loadTowers(scorer: ClipScorer, options: LoadScorerOptions): Promise<ClipTowers> {
  const { key, repository, weights, shape, cleaning } = scorer;
  const folder = await fetchFolder(options.weights?.[key] ?? repository, key, weights, SIDE_FILES, options);
  const config = readClipConfig(folder, shape);
  const tokenizer = ClipTokenizer.fromFolder(folder, cleaning);
  if (tokenizer.vocabSize !== config.text.vocabulary)
    throw new MiroError(
      `${folder}: the tokenizer has ${tokenizer.vocabSize} tokens, the text tower ${config.text.vocabulary}; ` +
        "both must be of one model",
    );
  using file = openTensors(folder, weights);
  const clip = loadClip(file, config, placeOf(options, towerSize(config.vision)));
  return { clip, tokenizer, path: file.path };
}

async function loadAesthetic(options: LoadScorerOptions): Promise<ScorerModel> {
  const head = options.weights?.aesthetic_score;
  if (head === undefined)
    throw new InvalidInputError(
      `aesthetic_score: needs the folder of its head, ${AESTHETIC_HEAD}, from ` +
        "https://github.com/christophschuhmann/improved-aesthetic-predictor; give it with --weights aesthetic_score=DIR",
    );
  const headFolder = await fetchFolder(head, "aesthetic_score", [AESTHETIC_HEAD], [], options);
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
    using file = openTensors(towerFolder, HUGGING_FACE_WEIGHTS);
    return new AestheticModel(loadClipVision(file, config, placeOf(options, towerSize(config.vision))), folded);
  } catch (error) {
    folded.weight.dispose();
    throw error;
  }
}

/** Pixels of several pictures in one batch: (B, 3, S, S) */
function pixelBatch(images: readonly RgbImage[], side: number, kind: ClipPixels, device: string): Tensor {
  return stack(images.map((image) => clipPixels(image, side, kind))).to({ device });
}

function unit(x_BD: Tensor): Tensor {
  return x_BD.div(x_BD.square().sum(-1, { keepdim: true }).sqrt());
}

class ClipModel implements ScorerModel {
  readonly name: string;
  readonly batchSize = BATCH;
  readonly #scorer: ClipScorer;
  readonly #clip: Clip;
  readonly #tokenizer: ClipTokenizer;
  readonly #scale: number;
  /** Features of captions (D), of unit length; the one that was used last is the last. */
  readonly #texts = new Map<string, Tensor>();

  constructor(scorer: ClipScorer, clip: Clip, tokenizer: ClipTokenizer) {
    this.name = scorer.name;
    this.#scorer = scorer;
    this.#clip = clip;
    this.#tokenizer = tokenizer;
    this.#scale = scorer.scaled ? Math.exp(clip.logitScale.item() as number) : 1;
  }

  score(images: readonly RgbImage[], captions: readonly string[]): number[] {
    return noGrad(() =>
      scope(() => {
        const { image } = this.#clip.config.vision;
        const device = this.#clip.logitScale.device;
        const image_BD = unit(this.#clip.encodeImage(pixelBatch(images, image, this.#scorer.pixels, device)));
        const text_BD = this.#textFeatures(captions);
        const cosines = image_BD.mul(text_BD).sum(-1).to({ device: "cpu" }).data() as Float32Array;
        return Array.from(cosines, (cosine) => this.#scale * cosine);
      }),
    );
  }

  #textFeatures(captions: readonly string[]): Tensor {
    const missing = [...new Set(captions)].filter((caption) => !this.#texts.has(caption));
    if (missing.length > 0)
      scope(() => {
        const { ids, ends } = this.#tokenizer.encodeBatch(missing, this.#clip.config.text.context);
        const device = this.#clip.logitScale.device;
        const ends_B = tensor(BigInt64Array.from(ends, BigInt), { dtype: "int64" });
        const text_BD = unit(this.#clip.encodeText(ids.to({ device }), ends_B.to({ device })));
        missing.forEach((caption, i) => {
          this.#texts.set(caption, text_BD.select(0, i).clone().keep());
        });
      });
    const features = captions.map((caption) => {
      const feature = this.#texts.get(caption)!;
      this.#texts.delete(caption);
      this.#texts.set(caption, feature);
      return feature;
    });
    const stacked = stack(features);
    for (const [caption, feature] of this.#texts) {
      if (this.#texts.size <= CACHED_TEXTS) break;
      feature.dispose();
      this.#texts.delete(caption);
    }
    return stacked;
  }

  dispose(): void {
    for (const feature of this.#texts.values()) feature.dispose();
    this.#texts.clear();
    this.#clip.dispose();
  }
}

class AestheticModel implements ScorerModel {
  readonly name = "LAION aesthetic predictor";
  readonly batchSize = BATCH;
  readonly #vision: ClipVision;
  readonly #head: LinearHead;
  readonly #device: string;

  constructor(vision: ClipVision, head: LinearHead) {
    this.#vision = vision;
    this.#head = head;
    this.#device = vision.stateDict().get("class_embedding")!.device;
  }

  score(images: readonly RgbImage[]): number[] {
    return noGrad(() =>
      scope(() => {
        const features_BD = this.#vision.forward(pixelBatch(images, this.#vision.config.image, "pillow", this.#device));
        const norms_B1 = features_BD.square().sum(-1, { keepdim: true }).sqrt();
        // A feature of zeros stays one, as in the published scorer.
        const unit_BD = features_BD.div(norms_B1.add(norms_B1.eq(0).float()));
        const scores = unit_BD.to({ device: "cpu", dtype: "float64" }).matmul(this.#head.weight).data() as Float64Array;
        return Array.from(scores, (score) => score + this.#head.bias);
      }),
    );
  }

  dispose(): void {
    this.#head.weight.dispose();
    this.#vision.dispose();
  }
}
