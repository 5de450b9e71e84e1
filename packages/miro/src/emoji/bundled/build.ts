/**
 * The folder of the bundled model from a run: weights in half precision, text encoder, autoencoder, configuration with
 * the sampler's defaults, names, figures, pictures and card.
 */
import { copyFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError } from "../../errors.js";
import { filledLines } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { replaceFolder } from "../../files/whole-folders.js";
import { BUNDLED_MODEL as NAME } from "../../pipeline/loading/bundled.js";
import { countParameters } from "../../pipeline/loading/checkpoint.js";
import { readReleaseConfig } from "../../pipeline/loading/release-config.js";
import { isRun } from "../../pipeline/loading/run-checkpoint.js";
import { sheetPng } from "../../pipeline/settings.js";
import { checkOutput, convertToRelease } from "../../release/convert.js";
import { openSource } from "../../release/open-source.js";
import { runChart } from "../../training/logging/run-chart.js";
import { readRunLog } from "../../training/logging/run-log.js";
import { copyFrozenParts } from "../../training/state/export.js";
import { loadVocabulary } from "../scenes/vocabulary.js";
import { releaseVocabulary } from "../scenes/vocabulary-file.js";
import { fillCard, readPartFigures } from "./card.js";
import { FIGURES_FILE, readFigures } from "./figures.js";
import { CARD_PICTURES, type MeasureOptions, measureForCard } from "./measure.js";
import { namesFile } from "./names.js";

/** What the folder is made from, and where it goes. */
export interface BuildOptions extends Pick<MeasureOptions, "classifier" | "onProgress" | "signal"> {
  /** A run, or a release folder. */
  network: string;
  /** Folder of the autoencoder, where it is another than the network was trained with. */
  vae?: string | undefined;
  /** The edition before: its figures are compared with; its examples and its curve of the loss are taken over. */
  before: string;
  /** Text of the card with names of figures in double braces. */
  template: string;
  /** Runs whose loss the card shows; default: that of the network, if it is a run. */
  logs?: readonly string[] | undefined;
  /** Folder of what is measured; what it holds of the same weights is not measured again. */
  measurements: string;
  output: string;
  overwrite: boolean;
  onMessage?: (message: string) => void;
}

const EXAMPLES = "examples.txt";
const LOSS = "loss.png";

/** Makes the folder; it is there as a whole or as it was. @throws MiroError naming what is missing */
export async function buildBundledModel(options: BuildOptions): Promise<void> {
  const { network, vae, before, classifier, measurements, output, overwrite, onMessage } = options;
  checkOutput(output, overwrite, network);
  const template = readTextFile(options.template);
  const examples = readTextFile(join(before, EXAMPLES));
  const loss = await lossPicture(options);
  await replaceFolder(output, async (folder) => {
    await prepare(folder, { network, vae, onMessage, signal: options.signal });
    const figures = await measureForCard({
      model: folder,
      classifier,
      output: measurements,
      examples: filledLines(examples).map(({ text }) => text.trim()),
      before: readFigures(before),
      ...(options.onProgress && { onProgress: options.onProgress }),
      ...(options.signal && { signal: options.signal }),
    });
    for (const name of [FIGURES_FILE, ...Object.values(CARD_PICTURES)])
      copyFileSync(join(measurements, name), join(folder, name));
    const card = fillCard(template, {
      config: readReleaseConfig(folder),
      parameters: countParameters(folder),
      things: loadVocabulary("core").length,
      figures,
      parts: readPartFigures(folder, classifier),
    });
    const texts = { "README.md": card, "NAMES.md": namesFile(NAME), "vocabulary.json": releaseVocabulary("core") };
    for (const [name, text] of Object.entries({ ...texts, [EXAMPLES]: examples }))
      writeFileAtomic(join(folder, name), text, { overwrite: true });
    if (loss !== null) writeFileAtomic(join(folder, LOSS), loss, { overwrite: true });
  });
}

/** Network, text encoder and autoencoder in half precision, as they are measured and released. */
async function prepare(
  folder: string,
  { network, vae, onMessage, signal }: Pick<BuildOptions, "network" | "vae" | "onMessage" | "signal">,
): Promise<void> {
  using source = openSource(network, { onMessage });
  onMessage?.(`${source.path}: ${source.average}${source.step === null ? "" : `, step ${source.step}`}`);
  await convertToRelease(source, {
    output: folder,
    dtype: "float16",
    maxShardBytes: Number.MAX_SAFE_INTEGER,
    overwrite: true,
    card: {},
    signal,
    onFilled: async (filled) => {
      if (vae !== undefined) await copyFrozenParts({ autoencoder: vae }, filled, { half: true, signal });
    },
  });
  for (const part of ["text_encoder", "vae"])
    if (!existsSync(join(folder, part)))
      throw new InvalidInputError(`${network}: its ${part} is not a folder; train with parts that are folders`);
  // Of a release in general; this one has a card of its own.
  for (const name of ["README.md", "release.json"]) rmSync(join(folder, name));
}

/** The loss without reweighting, as logs call it and as early ones did. */
const RAW_LOSSES = ["train/raw_loss", "raw_loss"];

/** The curve of the loss; the earlier edition's where no log says another, null where that has none. */
async function lossPicture({ network, logs, before }: BuildOptions): Promise<Uint8Array | null> {
  const runs = logs ?? (isRun(network) ? [network] : []);
  if (runs.length > 0) {
    const read = runs.map(readRunLog);
    const keys = RAW_LOSSES.filter((key) => read.some(({ series }) => series.has(key)));
    const { drawing } = runChart(read, { keys: keys.length > 0 ? keys : RAW_LOSSES });
    return sheetPng(await drawing.toImage(), "curves of runs");
  }
  const path = join(before, LOSS);
  return existsSync(path) ? readFileSync(path) : null;
}
