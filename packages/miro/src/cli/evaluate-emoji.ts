/** `npm run evaluate:emoji`: the measurement of the bundled model, by a classifier of its own things. */
import "./extensions.js";
import { join } from "node:path";
import { setNumThreads } from "@miro-t2i/torch";
import { z } from "zod";
import { loadAutoencoder } from "../autoencoder/index.js";
import { clock } from "../duration.js";
import { evaluateBestOf } from "../emoji/evaluation/best-of.js";
import { EmojiClassifier } from "../emoji/evaluation/classifier.js";
import { checkDetector } from "../emoji/evaluation/detector-check.js";
import { EVALUATION_PARTS, evaluateEmoji } from "../emoji/evaluation/evaluate.js";
import { sampleEvenly } from "../emoji/evaluation/sampling.js";
import { loadVocabulary } from "../emoji/scenes/vocabulary.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { counted } from "../numbers.js";
import { commaSeparated, field, flag } from "../options.js";
import { generateSchema } from "../pipeline/generate-options.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { checkDevice } from "../pipeline/loading/device.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { pinnedModel } from "../pipeline/loading/run-model.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { sheetPng } from "../pipeline/settings.js";
import { DEFAULT_SCORER, loadScorer } from "../rewards/registry.js";
import { quietOptions } from "./common-options.js";
import { runMeasuringProgram } from "./measuring-program.js";
import { Pace, type Progress } from "./progress.js";

const text = z.string().optional();
const count = z.int().min(1).optional();

const schema = z.strictObject({
  ...quietOptions.shape,
  model: field(text, {
    expected: "a folder or a repository",
    help: "the model to test: a release folder, a run of miro train (its newest checkpoint) or a repository",
    flag: "--model <repo|dir>",
    otherwise: "the bundled one",
  }),
  classifier: field(z.string().default(join("models", "emoji-classifier")), {
    expected: "a folder",
    help: "the classifier; made by: miro train emoji-classifier",
    flag: "--classifier <dir>",
  }),
  output: field(z.string().default(join("runs", "emoji-evaluation")), {
    expected: "a folder",
    help: "where result.json and the sheets go, after each part; the other two modes write detector.json and best-of.json",
    flag: "--output <dir>",
    writes: "folder",
  }),
  parts: field(z.array(z.enum(EVALUATION_PARTS)).min(1).optional(), {
    expected: `some of ${EVALUATION_PARTS.join(", ")}, with commas between them`,
    help: `of ${EVALUATION_PARTS.join(", ")}, separated by commas`,
    flag: "--parts <list>",
    parse: commaSeparated,
    otherwise: "all",
  }),
  names: field(z.enum(["everyday", "animals", "core"]).default("core"), {
    expected: "everyday, animals or core",
    help: "names to draw; core is what the bundled model knows",
    flag: "--names <list>",
  }),
  limit: field(count, {
    expected: "an integer of at least 1",
    help: "at most so many names in each part, chosen by the seed from all over the list",
    flag: "--limit <n>",
  }),
  steps: generateSchema.shape.steps,
  guidanceScale: generateSchema.shape.guidanceScale,
  seed: field(z.int().min(0).default(0), {
    expected: "an integer of at least 0",
    help: "seed of the names and of the pictures",
    flag: "--seed <n>",
  }),
  threads: loadSchema.shape.threads,
  device: loadSchema.shape.device,
  rewardPrompts: field(count, {
    expected: "an integer of at least 1",
    help: "prompts for each reward target",
    flag: "--reward-prompts <n>",
    otherwise: "24",
  }),
  checkDetector: flag(
    "instead of all that: what the classifier counts and finds in true renders, the most that a model can get",
    "--check-detector",
  ),
  pictures: field(count, {
    expected: "an integer of at least 1",
    help: "renders of each kind for --check-detector",
    flag: "--pictures <n>",
    otherwise: "300",
  }),
  autoencoder: field(text, {
    expected: "a folder",
    help: "with --check-detector: what the renders go through first (a model's: models/miro-emoji/vae)",
    flag: "--autoencoder <dir>",
  }),
  bestOf: field(count, {
    expected: "an integer of at least 1",
    help: "instead of all that: draw so many pictures a name, and see whether the best by a scorer is the better one",
    flag: "--best-of <n>",
  }),
  by: field(z.string().default(DEFAULT_SCORER), {
    expected: "the key of a scorer",
    help: "the scorer of --best-of",
    flag: "--by <scorer>",
  }),
  clipTarget: field(z.number().min(0).optional(), {
    expected: "a number of at least 0",
    help: "with --best-of: the reward clip_score that is asked for; below ½ many pictures show something else",
    flag: "--clip-target <t>",
    otherwise: "1",
  }),
});

/** How an evaluation is stopped, and whom it tells what. */
interface Surroundings {
  signal: AbortSignal;
  onProgress: (done: number, total: number) => void;
  onMessage: (message: string) => void;
}

/** Seconds between two lines of progress where they cannot be written over each other. */
const PROGRESS_SECONDS = 30;

/** @returns the figures as JSON, which are in their file */
async function evaluate(
  values: z.output<typeof schema>,
  { signal, onProgress, onMessage }: Surroundings,
): Promise<string> {
  const { seed, limit, steps, guidanceScale, rewardPrompts, pictures, bestOf, clipTarget, threads, parts } = values;
  if (threads !== undefined) setNumThreads(threads);

  const device = checkDevice(values.device);
  const classifier = EmojiClassifier.fromPretrained(values.classifier).to({ device });
  const labels = loadVocabulary(values.names).map(({ label }) => label);
  const startedAt = performance.now();
  const figures: Record<string, unknown> = { classifier: values.classifier, seed };
  const file = values.checkDetector ? "detector.json" : bestOf === undefined ? "result.json" : "best-of.json";
  const save = (): string => {
    figures.seconds = Math.round((performance.now() - startedAt) / 1000);
    const json = `${JSON.stringify(figures, null, 2)}\n`;
    writeFileAtomic(join(values.output, file), json, { overwrite: true });
    return json;
  };
  const common = { seed, onProgress, signal };
  if (values.checkDetector) {
    const { autoencoder } = values;
    const options = {
      ...common,
      labels,
      pictures,
      ...(autoencoder !== undefined && { autoencoder: loadAutoencoder(autoencoder, { device }) }),
    };
    Object.assign(figures, { autoencoder }, await checkDetector(classifier, options));
    return save();
  }

  const model = pinnedModel(modelOrBundled(values.model), onMessage);
  const pipeline = await MiroPipeline.fromPretrained(model, { device });
  figures.model = model;
  figures.steps = steps ?? pipeline.defaultSteps;
  figures.guidanceScale = guidanceScale ?? pipeline.defaultGuidanceScale;
  const generate = { ...common, steps, guidanceScale };
  if (bestOf !== undefined) {
    const scorer = await loadScorer(values.by, { device });
    const result = await evaluateBestOf(pipeline, classifier, scorer, {
      ...generate,
      n: bestOf,
      labels: sampleEvenly(labels, limit ?? labels.length, seed),
      ...(clipTarget !== undefined && { rewardTargets: { clip_score: clipTarget } }),
    });
    scorer.dispose();
    Object.assign(figures, result);
  } else {
    const options = { ...generate, labels, parts, limit, rewardPrompts };
    for await (const { part, figures: found, sheets } of evaluateEmoji(pipeline, classifier, options)) {
      figures[part] = found;
      for (const [name, sheet] of Object.entries(sheets))
        writeFileAtomic(join(values.output, `${name}.png`), sheetPng(sheet, name), { overwrite: true });
      save();
    }
  }
  return save();
}

/** A bar on a terminal; elsewhere a line now and then; nothing under `--quiet`. */
function shownBy(progress: Progress, quiet: boolean): (done: number, total: number) => void {
  const pace = new Pace();
  let shownAt = performance.now();
  return (done, total) => {
    progress.update("drawing", done, total, { count: `${done}/${counted(total, "picture")}` });
    const left = pace.left(done, total);
    const isDue = done === total || performance.now() - shownAt >= PROGRESS_SECONDS * 1000;
    if (quiet || process.stderr.isTTY || !isDue) return;
    shownAt = performance.now();
    process.stderr.write(`${done}/${counted(total, "picture")}${left === null ? "" : `, ${clock(left)} left`}\n`);
  };
}

process.exitCode = await runMeasuringProgram({
  name: "npm run evaluate:emoji --",
  summary: "Measures the bundled model: what it draws is named by a classifier of the same things.",
  schema,
  kept: ({ output }) => `parts that are done are in ${output}`,
  run: (options, { signal, progress, note }) =>
    evaluate(options, { signal, onProgress: shownBy(progress, options.quiet), onMessage: note }),
});
