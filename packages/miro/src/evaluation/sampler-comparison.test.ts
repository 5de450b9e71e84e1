import { memory } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import { bundledModel } from "../pipeline/bundled.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { compareSamplers } from "./sampler-comparison.js";

it("finds every sampler nearer to the solution with more evaluations, and frees what it draws", async () => {
  const pipe = await MiroPipeline.fromPretrained(bundledModel()!);
  const warm = await pipe.generate("a fox", { steps: 1 });
  warm.latents.dispose();
  const before = memory.stats().liveTensors;
  const rows = await compareSamplers(pipe, {
    prompts: ["a fox"],
    evaluations: [4, 16],
    referenceEvaluations: 60,
    generate: { shift: 1 },
    judge: (images) => ({ pictures: images.length }),
  });
  expect(rows.map(({ sampler, steps, evaluations }) => [sampler, steps, evaluations])).toEqual([
    ["euler", 4, 4],
    ["euler", 16, 16],
    ["heun", 2, 3],
    ["heun", 8, 15],
    ["midpoint", 2, 4],
    ["midpoint", 8, 16],
    ["ab2", 4, 4],
    ["ab2", 16, 16],
  ]);
  for (let i = 0; i < rows.length; i += 2) expect(rows[i + 1]!.distance).toBeLessThan(rows[i]!.distance / 2);
  expect(rows.every(({ scores }) => scores?.pictures === 1)).toBe(true);
  expect(memory.stats().liveTensors).toBe(before);
  await pipe.dispose();
});
