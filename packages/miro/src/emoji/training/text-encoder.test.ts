import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { noGrad, scope } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { runTask } from "../../training/loop/run-task.js";
import { bits } from "../../training/testing/tiny.js";
import "../register.js";
import { textEncoderRecipeSchema } from "./recipes.js";

const root = mkdtempSync(join(tmpdir(), "miro-text-encoder-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const scenes = {
  vocabulary: ["fox", "owl", "house", "key", "lemon", "rocket", "tulip", "snail"],
  size: 32,
  kinds: { one: 0.5, pair: 0.5 },
};
const recipe = textEncoderRecipeSchema.parse({
  kind: "text-encoder",
  name: "tiny",
  scenes,
  tokenizer: { vocabSize: 120, captions: 200 },
  network: { dModel: 16, dKv: 8, numHeads: 2, dFf: 16, numLayers: 1 },
  sharedDim: 8,
  appearance: { captions: 6 },
  trainer: { maxSteps: 6, batchSize: 4, lr: 0.003, warmupSteps: 1, checkpointEveryNSteps: 4, threads: 1 },
});

/** Trains into `name` until step 3, as Ctrl-C would stop it. */
async function stopped(name: string): Promise<string> {
  const output = join(root, name);
  const stop = new AbortController();
  const onProgress = ({ step }: { step: number }) => step === 3 && stop.abort();
  const first = await runTask({ recipe, output, resume: false, signal: stop.signal, onProgress });
  expect(first).toMatchObject({ finished: false, step: 3 });
  return output;
}

describe("the training of the text encoder", () => {
  it("exports an encoder with its tokenizer, and resumes bit for bit", async () => {
    const whole = join(root, "whole");
    const { exported } = await runTask({ recipe, output: whole, resume: false });
    const tokenizer = await Tokenizer.fromFile(exported!);
    const encoder = await T5Encoder.fromPretrained(exported!);
    const { ids, mask } = tokenizer.encodeBatch(["a fox above an owl"], { maxLength: 32, padTo: "longest" });
    noGrad(() => scope(() => expect(encoder.forward(ids, mask).shape).toEqual([1, ids.size(1), 16])));
    encoder.dispose();

    const output = await stopped("stopped");
    await runTask({ recipe, output, resume: true });
    expect(bits(output)).toEqual(bits(whole));
  });

  it("keeps the tokenizer of a run that goes on with other captions", async () => {
    const output = await stopped("other-captions");
    const others = { ...recipe, scenes: { ...recipe.scenes, kinds: { one: 0, small: 1, count: 0, pair: 0 } } };
    await expect(runTask({ recipe: others, output, resume: true })).rejects.toThrow(/scenes\.kinds\.small: 0 in the/);
    await runTask({ recipe: others, output, resume: true, allowChanges: true });
    const json = (...names: string[]) => JSON.parse(readFileSync(join(root, ...names), "utf8"));
    expect(json("other-captions", "export", "tokenizer.json")).toEqual(json("whole", "export", "tokenizer.json"));
  });
});
