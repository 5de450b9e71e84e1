/** What is known of the scorers that are a CLIP without their networks. */
import type { DType } from "@miro-t2i/torch";
import type { ClipConfig } from "../networks/clip.js";
import type { KnownFile } from "../pipeline/loading/known-file.js";
import type { ClipCleaning } from "../text/clip-tokenizer.js";
import { CLIP_H, CLIP_L } from "./clip-config.js";
import type { ClipPixels } from "./clip-pixels.js";
import type { Autocast } from "./clip-vision.js";
import type { LoadScorerOptions, ScorerFacts, ScorerLicense, ScorerMemory } from "./scorer.js";

/** What the weights of a CLIP, or their index, may be called; the first that is there is taken. */
export const HUGGING_FACE_WEIGHTS = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
export const OPENAI_CLIP = "openai/clip-vit-large-patch14";
export const AESTHETIC_HEAD = "sac+logos+ava1-l14-linearMSE.pth";
export const AESTHETIC_HEAD_URL =
  "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth";
export const AESTHETIC_FILE: KnownFile = {
  name: AESTHETIC_HEAD,
  url: AESTHETIC_HEAD_URL,
  sizeBytes: 3_714_759,
  sha256: "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
};

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
export interface ClipScorer {
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
  /** How published values are rounded. */
  upstream: { towers: Autocast; cosine: DType };
  license: ScorerLicense;
  /** Of the published file. */
  sizeBytes: number;
  memory: ScorerMemory;
}

export const clipOpenai: ClipScorer = {
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
  upstream: { towers: { products: "bfloat16", stream: "float32" }, cosine: "bfloat16" },
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

export const pickScore: ClipScorer = {
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
  upstream: { towers: { products: "bfloat16", stream: "float32" }, cosine: "bfloat16" },
  license: MIT,
  sizeBytes: 4 * CLIP_H_PARAMETERS,
  memory: { parts: { PickScore: CLIP_H_PARAMETERS }, workingBytes: WORKING_BYTES },
};

export const sciScore: ClipScorer = {
  ...pickScore,
  upstream: { towers: { products: "float16", stream: "float32" }, cosine: "float16" },
  license: APACHE,
  memory: { ...pickScore.memory, parts: { SciScore: CLIP_H_PARAMETERS } },
  key: "sciscore_score",
  name: "SciScore",
  description: "whether a picture obeys the science in a text, tens (SciScore)",
  repository: "Jialuo21/SciScore",
};

/** The two versions of HPSv2, which are not comparable. */
export const HPS = {
  "v2.1": { name: "HPSv2.1", file: "HPS_v2.1_compressed.pt" },
  "v2.0": { name: "HPSv2.0", file: "HPS_v2_compressed.pt" },
} as const;

export const hpsv2: Omit<ClipScorer, "name" | "weights"> = {
  key: "hpsv2_score",
  description: "how much people like a picture for a text, about 0.1 to 0.38 (HPSv2.1; v2.0 with --hps-version v2.0)",
  repository: "xswu/HPSv2",
  shape: CLIP_H,
  cleaning: "openai",
  pixels: "tensor",
  scaled: false,
  syntheticCaption: "short",
  upstream: { towers: { products: "float16", stream: "float16" }, cosine: "float32" },
  license: APACHE,
  sizeBytes: 2 * CLIP_H_PARAMETERS,
  memory: { parts: { HPSv2: CLIP_H_PARAMETERS }, workingBytes: WORKING_BYTES },
};

/** What is known of one without loading it. */
export const clipFacts = (scorer: ClipScorer): ScorerFacts => ({
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
});

/** What is known of the aesthetic predictor without loading it. */
export const aestheticFacts: ScorerFacts = {
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
    {
      name: AESTHETIC_HEAD_URL,
      weights: [AESTHETIC_HEAD],
      sizeBytes: AESTHETIC_FILE.sizeBytes,
      sha256: AESTHETIC_FILE.sha256,
    },
    {
      name: OPENAI_CLIP,
      weights: HUGGING_FACE_WEIGHTS,
      sizeBytes: clipOpenai.sizeBytes,
      givenAs: clipOpenai.key,
    },
  ],
  memory: { parts: { [VISION_L]: CLIP_L_VISION_PARAMETERS }, workingBytes: WORKING_BYTES },
};

/** Its version and how it sees pictures, as a name. */
export function hpsName({ hpsVersion = "v2.1", hpsLetterbox = false }: LoadScorerOptions): string {
  return `${HPS[hpsVersion].name}${hpsLetterbox ? " with letterbox" : ""}`;
}
