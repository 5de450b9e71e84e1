/** `npm run evaluate:emoji -- [--model DIR] …`: the retrieval test as a command, until `miro evaluate` takes it in. */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MiroError } from "../errors.js";
import { bundledModel } from "../pipeline/bundled.js";
import { writeFileAtomic } from "../pipeline/files.js";
import { encodePng } from "../pipeline/pictures/png.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { loadScorer } from "../rewards/index.js";
import { evaluateBestOf } from "./emoji-best-of.js";
import { EmojiClassifier } from "./emoji-classifier.js";
import { evaluateRetrieval } from "./emoji-retrieval.js";

const HELP = `npm run evaluate:emoji -- [options]
  --model DIR         the model to test (default: the bundled one)
  --classifier DIR    the judge (default: models/emoji-classifier; made by: miro train recipes/emoji-classifier.yaml)
  --output DIR        where result.json and the two sheets go (default: runs/emoji-retrieval)
  --steps N  --guidance W  --seed S
  --reward-prompts N  prompts for each reward target (default 24; 0 leaves the reward axes out)
  --best-of N         instead of all that: draw N pictures a name, and see whether the best by a scorer is the better one
  --by SCORER         the scorer of --best-of (default: clip_score)
  --clip-target T     with --best-of: the clip_score that is asked for (default 1); below ½ many pictures show something else
  --limit N           only the first N names
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: "string" },
      classifier: { type: "string", default: join("models", "emoji-classifier") },
      output: { type: "string", default: join("runs", "emoji-retrieval") },
      steps: { type: "string" },
      guidance: { type: "string" },
      seed: { type: "string", default: "0" },
      "reward-prompts": { type: "string", default: "24" },
      "best-of": { type: "string" },
      by: { type: "string", default: "clip_score" },
      "clip-target": { type: "string" },
      limit: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const model = values.model ?? bundledModel();
  if (model === null) throw new MiroError("there is no bundled model; name one with --model DIR");
  const classifier = EmojiClassifier.fromPretrained(values.classifier);
  const pipeline = await MiroPipeline.fromPretrained(model);
  const startedAt = performance.now();
  const options = {
    seed: Number(values.seed),
    ...(values.steps && { steps: Number(values.steps) }),
    ...(values.guidance && { guidanceScale: Number(values.guidance) }),
    ...(values.limit && { labels: classifier.config.labels.slice(0, Number(values.limit)) }),
    onProgress: (done: number, total: number) => void process.stderr.write(`${done}/${total} pictures\n`),
  };
  let figures: object;
  if (values["best-of"] !== undefined) {
    const scorer = await loadScorer(values.by);
    const target = values["clip-target"];
    figures = await evaluateBestOf(pipeline, classifier, scorer, {
      ...options,
      n: Number(values["best-of"]),
      ...(target && { rewardTargets: { clip_score: Number(target) } }),
    });
    scorer.dispose();
  } else {
    const rewardPrompts = Number(values["reward-prompts"]);
    const { sheets, ...rest } = await evaluateRetrieval(pipeline, classifier, { ...options, rewardPrompts });
    figures = rest;
    for (const [name, sheet] of Object.entries(sheets)) {
      const png = encodePng(sheet.data, sheet.width, sheet.height);
      writeFileAtomic(join(values.output, `${name}.png`), png, { overwrite: true });
    }
  }
  const result = { model, seconds: Math.round((performance.now() - startedAt) / 1000), ...figures };
  const json = `${JSON.stringify(result, null, 2)}\n`;
  writeFileAtomic(join(values.output, "result.json"), json, { overwrite: true });
  process.stdout.write(json);
}

main().catch((error: unknown) => {
  process.stderr.write(`error: ${(error as Error).message}\n`);
  process.exitCode = error instanceof MiroError ? error.exitCode : 1;
});
