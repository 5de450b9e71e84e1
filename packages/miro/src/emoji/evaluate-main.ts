/**
 * `npm run evaluate:emoji -- [--model DIR] …`: the measurement of the bundled model as a command, until `miro evaluate`
 * takes it in.
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { setNumThreads } from "@miro-t2i/torch";
import { loadAutoencoder } from "../autoencoder/index.js";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { writeFileAtomic } from "../files/files.js";
import { encodePng } from "../pictures/png.js";
import type { RgbImage } from "../pictures/rgb.js";
import { bundledModel } from "../pipeline/loading/bundled.js";
import { checkDevice } from "../pipeline/loading/device.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { oneLine, printable } from "../printable.js";
import { loadScorer } from "../rewards/index.js";
import { onStop, surviveLostOutput } from "../surroundings.js";
import { evaluateBestOf } from "./evaluation/best-of.js";
import { EmojiClassifier } from "./evaluation/classifier.js";
import { loadVocabulary, type VocabularySelection } from "./scenes/index.js";
import "./register.js";
import { checkDetector } from "./evaluation/detector-check.js";
import { EVALUATION_PARTS, type EvaluationPart, evaluateEmoji } from "./evaluation/evaluate.js";
import { sampleEvenly } from "./evaluation/sampling.js";

const HELP = `npm run evaluate:emoji -- [options]
  --model DIR         the model to test (default: the bundled one)
  --classifier DIR    the classifier (default: models/emoji-classifier; made by: miro train recipes/emoji-classifier.yaml)
  --output DIR        where result.json and the sheets go (default: runs/emoji-evaluation); written after each part;
                      the other two modes write detector.json and best-of.json
  --parts LIST        of ${EVALUATION_PARTS.join(",")} (default: all)
  --names LIST        names to draw: everyday, animals, core (default: core, what the bundled model knows)
  --limit N           at most N names in each part, chosen by the seed from all over the list
  --steps N  --guidance W  --seed S  --threads N
  --device NAME       cpu, cuda or cuda:N: where the model and the classifier run (default: cpu)
  --reward-prompts N  prompts for each reward target (default 24)
  --check-detector    instead of all that: what the classifier counts and finds in true renders, the most that a model can get
  --pictures N        renders of each kind for --check-detector (default 300)
  --autoencoder DIR   with --check-detector: what the renders go through first (a model's: models/miro-emoji/vae)
  --best-of N         instead of all that: draw N pictures a name, and see whether the best by a scorer is the better one
  --by SCORER         the scorer of --best-of (default: emoji_clip_score)
  --clip-target T     with --best-of: the reward clip_score that is asked for (default 1); below ½ many pictures show something else
`;

/** Seconds between two lines of progress where they cannot be written over each other. */
const PROGRESS_SECONDS = 30;

async function main(signal: AbortSignal): Promise<void> {
  const values = parse();
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const number = (name: keyof typeof values & string, least: number, whole = true): number | undefined => {
    const text = values[name];
    if (typeof text !== "string") return undefined;
    const value = Number(text);
    const fits = text.trim() !== "" && value >= least && (!whole || Number.isSafeInteger(value));
    if (!fits) throw invalid(`--${name}`, `${whole ? "an integer" : "a number"} of at least ${least}`, text);
    return value;
  };
  const seed = number("seed", 0) ?? 0;
  const limit = number("limit", 1);
  const steps = number("steps", 1);
  const guidanceScale = number("guidance", 0, false);
  const rewardPrompts = number("reward-prompts", 1);
  const pictures = number("pictures", 1);
  const bestOf = number("best-of", 1);
  const clipTarget = number("clip-target", 0, false);
  const threads = number("threads", 1);
  const parts = values.parts?.split(",").map(partNamed);
  if (threads !== undefined) setNumThreads(threads);

  const device = checkDevice(values.device, "--device");
  const classifier = EmojiClassifier.fromPretrained(values.classifier).to({ device });
  const labels = loadVocabulary(listNamed(values.names)).map(({ label }) => label);
  const startedAt = performance.now();
  const figures: Record<string, unknown> = { classifier: values.classifier, seed };
  const file = values["check-detector"] ? "detector.json" : bestOf === undefined ? "result.json" : "best-of.json";
  const save = (): string => {
    figures.seconds = Math.round((performance.now() - startedAt) / 1000);
    const json = `${JSON.stringify(figures, null, 2)}\n`;
    writeFileAtomic(join(values.output, file), json, { overwrite: true });
    return json;
  };
  const onProgress = progressLine();
  const common = { seed, onProgress, signal };
  if (values["check-detector"]) {
    const { autoencoder } = values;
    const options = {
      ...common,
      labels,
      ...(pictures !== undefined && { pictures }),
      ...(autoencoder !== undefined && { autoencoder: loadAutoencoder(autoencoder, { device }) }),
    };
    Object.assign(figures, { autoencoder }, await checkDetector(classifier, options));
    process.stdout.write(save());
    return;
  }

  const model = values.model ?? bundledModel();
  if (model === null) throw new MiroError("there is no bundled model; name one with --model DIR");
  const pipeline = await MiroPipeline.fromPretrained(model, { device });
  figures.model = model;
  figures.steps = steps ?? pipeline.defaultSteps;
  figures.guidanceScale = guidanceScale ?? pipeline.defaultGuidanceScale;
  const generate = {
    ...common,
    ...(steps !== undefined && { steps }),
    ...(guidanceScale !== undefined && { guidanceScale }),
  };
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
    const options = {
      ...generate,
      labels,
      ...(parts && { parts }),
      ...(limit !== undefined && { limit }),
      ...(rewardPrompts !== undefined && { rewardPrompts }),
    };
    for await (const { part, figures: found, sheets } of evaluateEmoji(pipeline, classifier, options)) {
      figures[part] = found;
      for (const [name, sheet] of Object.entries(sheets)) writePng(join(values.output, `${name}.png`), sheet);
      save();
    }
  }
  process.stdout.write(save());
}

function parse() {
  try {
    return parseArgs({
      options: {
        model: { type: "string" },
        classifier: { type: "string", default: join("models", "emoji-classifier") },
        output: { type: "string", default: join("runs", "emoji-evaluation") },
        parts: { type: "string" },
        names: { type: "string", default: "core" },
        limit: { type: "string" },
        steps: { type: "string" },
        guidance: { type: "string" },
        seed: { type: "string" },
        device: { type: "string", default: "cpu" },
        threads: { type: "string" },
        "reward-prompts": { type: "string" },
        "check-detector": { type: "boolean", default: false },
        pictures: { type: "string" },
        autoencoder: { type: "string" },
        "best-of": { type: "string" },
        by: { type: "string", default: "emoji_clip_score" },
        "clip-target": { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    throw new InvalidInputError((error as Error).message);
  }
}

function partNamed(name: string): EvaluationPart {
  const part = EVALUATION_PARTS.find((known) => known === name.trim());
  if (part === undefined)
    throw invalid("--parts", `some of ${EVALUATION_PARTS.join(", ")}, with commas between them`, name);
  return part;
}

function listNamed(name: string): VocabularySelection {
  if (name !== "everyday" && name !== "animals" && name !== "core")
    throw invalid("--names", "everyday, animals or core", name);
  return name;
}

function writePng(path: string, { data, width, height }: RgbImage): void {
  writeFileAtomic(path, encodePng(data, width, height), { overwrite: true });
}

/** One line on a terminal that is written over; elsewhere a line now and then. */
function progressLine(): (done: number, total: number) => void {
  const startedAt = performance.now();
  let shownAt = startedAt;
  return (done, total) => {
    const now = performance.now();
    const last = done === total;
    if (!process.stderr.isTTY && !last && now - shownAt < PROGRESS_SECONDS * 1000) return;
    shownAt = now;
    const left = Math.round(((now - startedAt) / 1000 / done) * (total - done));
    const line = `${done}/${total} pictures, ${Math.floor(left / 60)} min ${left % 60} s left`;
    process.stderr.write(process.stderr.isTTY ? `\r${line}  ${last ? "\n" : ""}` : `${line}\n`);
  };
}

const interrupt = new AbortController();
surviveLostOutput();
// The first Ctrl-C stops at the next step and leaves the parts that are done; the second one does not wait.
onStop({ stop: () => interrupt.abort(), stopAtOnce: () => process.exit(130) });
main(interrupt.signal).catch((error: unknown) => {
  if (interrupt.signal.aborted) {
    process.stderr.write("\nInterrupted.\n");
    process.exitCode = 130;
    return;
  }
  process.stderr.write(`error: ${printable(oneLine((error as Error).message, " "))}\n`);
  process.exitCode = error instanceof MiroError ? error.exitCode : 1;
});
