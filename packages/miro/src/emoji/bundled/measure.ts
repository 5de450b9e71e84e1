/** Measures the bundled model for its card, part by part; parts that are measured already are not measured again. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { makeFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { contactSheet, type RgbImage } from "../../pictures/rgb.js";
import { sharp } from "../../pictures/sharp.js";
import { readReleaseConfig, samplerDefaults } from "../../pipeline/loading/release-config.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { EmojiClassifier } from "../evaluation/classifier.js";
import { checkDetector } from "../evaluation/detector-check.js";
import { type EmojiEvaluationOptions, type EvaluationPart, evaluateEmoji } from "../evaluation/evaluate.js";
import { rewardChart } from "../evaluation/reward-axes.js";
import { loadVocabulary, type VocabularySelection } from "../scenes/vocabulary.js";
import {
  asEarlier,
  CARD_PARTS,
  type CardPart,
  digestOf,
  FIGURES_FILE,
  type Figures,
  isWhole,
  readFigures,
  type WholeFigures,
} from "./figures.js";

const SEED = 0;
const JPEG_QUALITY = 90;
/** Pictures in a row of the sheet of samples. */
const COLUMNS = 4;

type Amount = Pick<EmojiEvaluationOptions, "limit" | "rewardPrompts"> & {
  parts: [EvaluationPart];
  names?: VocabularySelection;
};

/** How much of each part: every third name, all everyday ones, and samples for what takes many pictures a name. */
const AMOUNTS: Record<Exclude<CardPart, "detector">, Amount> = {
  everyThird: { parts: ["retrieval"], limit: 328 },
  everyday: { parts: ["retrieval"], names: "everyday" },
  hundred: { parts: ["retrieval"], limit: 100 },
  counts: { parts: ["counts"], limit: 40 },
  relations: { parts: ["relations"], limit: 40 },
  aliases: { parts: ["aliases"], limit: 100 },
  rewards: { parts: ["rewards"], limit: 100, rewardPrompts: 8 },
  edges: { parts: ["edges"], limit: 100 },
  samples: { parts: ["samples"] },
};
/** Renders of each kind that tell what a perfect model would get. */
const RENDERS = 150;

/** Pictures of the card that the evaluation makes, by the names of their files. */
export const CARD_PICTURES = { rewards: "rewards.png", unchosen: "unchosen.jpg", samples: "samples.png" } as const;

/** What is measured, with what, and where it goes. */
export interface MeasureOptions {
  /** The model's folder. */
  model: string;
  /** The folder of the classifier that judges. */
  classifier: string;
  /** Folder of the figures and the pictures; what it holds of the same weights is kept. */
  output: string;
  /** Prompts of the sheet of samples. */
  examples: readonly string[];
  /** The figures of the edition before, null where there is none. */
  before: Figures | null;
  onProgress?: (part: string, done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Measures what is not measured yet. Each part is written as soon as it is done, so that an interrupted evaluation
 * goes on where it was.
 * @throws AbortError when the signal stops it
 */
export async function measureForCard(options: MeasureOptions): Promise<WholeFigures> {
  const { model, output, signal, onProgress } = options;
  const settings = { ...samplerDefaults(readReleaseConfig(model).settings), seed: SEED };
  const digest = digestOf(model, options.classifier);
  const found = readFigures(output);
  const isSame = found?.digest === digest && isDeepStrictEqual(found.settings, settings);
  const figures: Figures = isSame ? found : { digest, settings, ...editionAfter(options.before, digest), parts: {} };
  const save = () =>
    writeFileAtomic(join(output, FIGURES_FILE), `${JSON.stringify(figures, null, 1)}\n`, { overwrite: true });
  const open = CARD_PARTS.filter((part) => figures.parts[part] === undefined);
  const hasPictures = Object.values(CARD_PICTURES).every((name) => existsSync(join(output, name)));
  if (open.length === 0 && hasPictures && isSame) return whole(figures);

  makeFolder(output);
  const classifier = EmojiClassifier.fromPretrained(options.classifier);
  await using pipeline = await MiroPipeline.fromPretrained(model, { signal });
  // The pictures of the captions that nobody chose come with their part.
  if (!existsSync(join(output, CARD_PICTURES.unchosen)) && !open.includes("samples")) open.push("samples");
  for (const part of open) {
    const common = {
      seed: SEED,
      onProgress: (done: number, total: number) => onProgress?.(part, done, total),
      signal,
    };
    if (part === "detector") {
      const autoencoder = loadAutoencoder(join(model, "vae"));
      const checked = await checkDetector(classifier, { ...common, pictures: RENDERS, autoencoder });
      figures.parts.detector = withoutLists(checked) as WholeFigures["parts"]["detector"];
    } else {
      const { names = "core", ...amount } = AMOUNTS[part];
      const labels = loadVocabulary(names).map(({ label }) => label);
      for await (const { figures: drawn, sheets } of evaluateEmoji(pipeline, classifier, {
        ...common,
        ...amount,
        labels,
      })) {
        Object.assign(figures.parts, { [part]: part === "samples" ? drawn : withoutLists(drawn) });
        if (part === "samples") await writePicture(output, CARD_PICTURES.unchosen, sheets.samples!);
      }
    }
    save();
  }
  const all = whole(figures);
  await writePicture(output, CARD_PICTURES.rewards, await rewardChart(all.parts.rewards).toImage());
  const prompts = [...options.examples];
  const { images } = await pipeline.generate(prompts, { seed: SEED, signal });
  await writePicture(output, CARD_PICTURES.samples, contactSheet(images, { columns: COLUMNS }));
  save();
  return all;
}

/** Edition and figures to compare with: those of the same weights again, or one after those of others. */
function editionAfter(before: Figures | null, digest: string): Pick<Figures, "edition" | "earlier"> {
  if (before === null) return { edition: 1, earlier: null };
  if (before.digest === digest || !isWhole(before)) return { edition: before.edition, earlier: before.earlier };
  return { edition: before.edition + 1, earlier: asEarlier(before) };
}

function whole(figures: Figures): WholeFigures {
  if (!isWhole(figures)) throw new TypeError("parts are missing");
  return figures;
}

/** Figures without the lists of what was confused, which grow with the number of pictures. */
function withoutLists(value: object): object {
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, one]) => {
      if (key === "confusions" || key === "wrong") return [];
      return [[key, typeof one === "object" && one !== null && !Array.isArray(one) ? withoutLists(one) : one]];
    }),
  );
}

/** A sheet by the ending of its file: JPEG, or PNG of at most 256 colours, which is half as large. */
async function writePicture(folder: string, name: string, image: RgbImage): Promise<void> {
  const { width, height, data } = image;
  const pixels = sharp(data, { raw: { width, height, channels: 3 } });
  const bytes = name.endsWith(".png") ? pixels.png({ palette: true }) : pixels.jpeg({ quality: JPEG_QUALITY });
  writeFileAtomic(join(folder, name), await bytes.toBuffer(), { overwrite: true });
}
