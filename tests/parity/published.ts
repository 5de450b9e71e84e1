/**
 * Values that the authors of scorers published, for whoever has their weights and pictures:
 *
 *   image_reward_score  the example of ImageReward's repository: one prompt, four pictures
 *   clip_score          jina-clip-v2's model card: one text, with and without the prefix of retrieval, two pictures
 *   aesthetic_score     what the head says of vectors, computed from the published file in float64
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { noGrad, scope, stack, type Tensor } from "@miro-t2i/torch";
import { decodeImage } from "miro-t2i/data";
import { Tokenizer } from "miro-t2i/networks";
import { clipPixels, loadJinaClip, loadScorer, openTensors, readJinaConfig, readLinearHead } from "miro-t2i/rewards";
import { Absolute, type Row } from "./report.js";

type RgbImage = Awaited<ReturnType<typeof decodeImage>>;

/** What there is to compare with. */
export interface PublishedOptions {
  /** Folders of the published weights by scorer. */
  weights: Readonly<Record<string, string>>;
  /** Folder of the published pictures. */
  pictures?: string | undefined;
}

/** What was compared, and what is missing for the rest. */
export interface PublishedResult {
  rows: Row[];
  lacks: string[];
}

interface Example {
  key: string;
  /** What the folder of the weights must hold, and where that comes from. */
  weights: string;
  /** Names of the pictures, and where they come from. */
  pictures: readonly string[];
  picturesFrom: string;
  compare(home: string, images: readonly RgbImage[]): Promise<Row[]>;
}

const EXAMPLES: readonly Example[] = [
  {
    key: "image_reward_score",
    weights: "ImageReward.pt and med_config.json of THUDM/ImageReward",
    pictures: ["1.webp", "2.webp", "3.webp", "4.webp"],
    picturesFrom: "https://github.com/THUDM/ImageReward, assets/images",
    compare: compareImageReward,
  },
  {
    key: "clip_score",
    weights: "the files of jinaai/jina-clip-v2",
    pictures: ["beach1.jpg", "beach2.jpg"],
    picturesFrom: "the model card of jinaai/jina-clip-v2",
    compare: compareJina,
  },
  {
    key: "aesthetic_score",
    weights: "sac+logos+ava1-l14-linearMSE.pth of christophschuhmann/improved-aesthetic-predictor",
    pictures: [],
    picturesFrom: "",
    compare: async (home) => [compareHead(home)],
  },
];

/** The scorers that values are published of. */
export const PUBLISHED_KEYS: readonly string[] = EXAMPLES.map(({ key }) => key);

/** Everything that the weights and pictures allow. */
export async function comparePublished({ weights, pictures }: PublishedOptions): Promise<PublishedResult> {
  const [rows, lacks]: [Row[], string[]] = [[], []];
  for (const example of EXAMPLES) {
    const { key } = example;
    const home = weights[key];
    if (home === undefined || !statSync(home, { throwIfNoEntry: false })?.isDirectory()) {
      lacks.push(`${key}: needs --weights ${key}=DIR, a folder with ${example.weights}`);
      continue;
    }
    const missing = example.pictures.filter((name) => pictures === undefined || !existsSync(join(pictures, name)));
    if (missing.length > 0) {
      lacks.push(`${key}: needs --pictures DIR with ${missing.join(", ")} from ${example.picturesFrom}`);
      continue;
    }
    const read = (name: string) => decodeImage(readFileSync(join(pictures!, name)), {});
    rows.push(...(await example.compare(home, await Promise.all(example.pictures.map(read)))));
  }
  return { rows, lacks };
}

/** Decoding and resizing decide here; the published values were computed on a GPU. */
const REWARDS = 1e-3;

async function compareImageReward(home: string, images: readonly RgbImage[]): Promise<Row[]> {
  const prompt = "a painting of an ocean with clouds and birds, day time, low depth field effect";
  const published = [0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492];
  using scorer = await loadScorer("image_reward_score", { weights: { image_reward_score: home }, dtype: "float32" });
  const scores = await scorer.score(
    images,
    images.map(() => prompt),
  );
  const row = new Absolute("image_reward: published rewards", REWARDS);
  scores.forEach((score, i) => {
    row.addNumber(`${i + 1}.webp`, score, published[i]!);
  });
  return [row.row()];
}

/** Computed with PyTorch in float32. */
const COSINES = 2e-3;
/** Of the card itself, computed in a browser with reduced precision. */
const REDUCED = 1e-2;

async function compareJina(home: string, images: readonly RgbImage[]): Promise<Row[]> {
  const query = "beautiful sunset over the beach";
  const prefix = "Represent the query for retrieving evidence documents: ";
  const config = readJinaConfig(home);
  const tokenizer = await Tokenizer.fromFile(home);
  using file = openTensors(home, ["model.safetensors", "pytorch_model.bin"]);
  const clip = await loadJinaClip(file, config, { device: "cpu", dtype: "float32" });
  const [plain, prefixed] = [
    new Absolute("clip_jina: published cosines", COSINES),
    new Absolute("clip_jina: published cosines with the prefix", REDUCED),
  ];
  noGrad(() =>
    scope(() => {
      const pixels = stack(images.map((image) => clipPixels(image, config.vision.image, "pillow")));
      const image = unit(clip.vision.forward(pixels));
      const rows = [query, prefix + query].map((text) => tokenizer.encode(text, { maxLength: config.context }));
      const text = unit(clip.text.forward(rows, config.padId));
      const cosines = [...(text.matmul(image.t()).data() as Float32Array)];
      const between = image.matmul(image.t()).select(0, 0).select(0, 1).item() as number;
      plain.addNumber("beach1.jpg", cosines[0]!, 0.33037);
      plain.addNumber("beach2.jpg", cosines[1]!, 0.33828);
      plain.addNumber("beach1.jpg and beach2.jpg", between, 0.9288);
      prefixed.addNumber("beach1.jpg", cosines[2]!, 0.2953);
      prefixed.addNumber("beach2.jpg", cosines[3]!, 0.31836);
      prefixed.addNumber("beach1.jpg and beach2.jpg", between, 0.93445);
    }),
  );
  clip.dispose();
  return [plain.row(), prefixed.row()];
}

const HEAD = 1e-9;

function compareHead(home: string): Row {
  using file = openTensors(home, ["sac+logos+ava1-l14-linearMSE.pth"]);
  const head = readLinearHead(file, "layers", 768);
  const row = new Absolute("aesthetic: published head", HEAD);
  scope(() => {
    const weight = head.weight.data() as Float64Array;
    const score = (vector: readonly number[]) => {
      const norm = Math.hypot(...vector);
      return vector.reduce((sum, value, i) => sum + (value / norm) * weight[i]!, head.bias);
    };
    const axis = (at: number) => Array.from({ length: 768 }, (_, i) => (i === at ? 1 : 0));
    row.addNumber("bias", head.bias, 5.236645844819847);
    row.addNumber("norm of the weight", Math.hypot(...weight), 17.99562477643365);
    row.addNumber("all components alike", score(new Array(768).fill(1)), 4.883284854377319);
    row.addNumber("first axis", score(axis(0)), 4.545052400553648);
    row.addNumber("second axis", score(axis(1)), 4.679651977640099);
    row.addNumber("last axis", score(axis(767)), 5.4516540161965565);
    row.addNumber("sines", score(Array.from({ length: 768 }, (_, i) => Math.sin(i))), 5.8678693313957915);
  });
  head.weight.dispose();
  return row.row();
}

function unit(x: Tensor): Tensor {
  return x.div(x.square().sum(-1, { keepdim: true }).sqrt());
}
