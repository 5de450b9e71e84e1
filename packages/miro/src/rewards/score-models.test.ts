import { expect, it } from "vitest";
import { registerScorer, scorerSpec } from "./registry.js";
import { ScoreModels } from "./score-models.js";
import type { LoadedScorer } from "./scorer.js";

registerScorer("judge", {
  columns: ["judge_one", "judge_two"],
  repositories: [{ name: "someone/judge", weights: ["model.safetensors"], sizeBytes: 1 }],
  load: async () => ({ name: "judge", batchSize: 1, score: () => [], dispose() {} }),
});
const spec = scorerSpec("judge_one");
const loaded = { key: spec.key, name: spec.name } as LoadedScorer;

it.each(["judge", "judge_one"])("scores of a column by weights that %s was given are made again with others", (key) => {
  const [before, other] = ["someone/a", "someone/b"].map((name) => new ScoreModels({ weights: { [key]: name } }));
  const model = before!.of(loaded);
  expect(model).toEqual({ name: "judge", weights: "someone/a" });
  expect(before!.wouldMake(model, spec)).toBe(true);
  expect(other!.wouldMake(model, spec)).toBe(false);
  expect(new ScoreModels({}).wouldMake(model, spec)).toBe(false);
});
