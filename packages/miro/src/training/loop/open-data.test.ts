import { expect, it } from "vitest";
import { z } from "zod";
import type { BatchSource } from "../batches/batches.js";
import { registerSource, type SourceContext } from "../batches/sources.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import { parseRecipe } from "../recipes/recipe.js";
import { tinyRecipeJson } from "../testing/tiny.js";
import { openBatches } from "./open-data.js";

let context: SourceContext;
registerSource("talkative", {
  schema: z.strictObject({}),
  async open(_, given): Promise<BatchSource> {
    context = given;
    given.onMessage?.("a shard was left out");
    return { ready: async () => {}, batch: () => ({}) as never, close: async () => {} } as unknown as BatchSource;
  },
  check: () => ({ samples: null, checks: [] }),
});

it("what opening the data finds is told by the first process alone, what happens later by each", async () => {
  const recipe = parseRecipe({ ...tinyRecipeJson(), data: { kind: "talkative" } });
  const told = async (isFirst: boolean) => {
    const heard: string[] = [];
    const group = new Proxy(DataParallelGroup.alone(), {
      get: (alone, name) => (name === "isFirst" ? isFirst : Reflect.get(alone, name, alone)),
    });
    await openBatches(recipe, group, { warn: (message) => void heard.push(message), onMessage: () => {} });
    context.onMessage?.("a shard is away");
    return heard;
  };
  expect(await told(true)).toEqual(["a shard was left out", "a shard is away"]);
  expect(await told(false)).toEqual(["a shard is away"]);
});
