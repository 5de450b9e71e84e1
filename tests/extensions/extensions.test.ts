/** What another package adds without touching this one: a scorer, a source of training data, and a task. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { loadScorer, registerScorer, scorerSpecs } from "miro-t2i";
import {
  dryRun,
  parseRecipe,
  RandomBatches,
  recipeFault,
  registerSource,
  registerTask,
  runTask,
  runTraining,
  taskRecipeSchema,
} from "miro-t2i/training";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import "./fixtures/doubling.mjs";

const folder = mkdtempSync(path.join(tmpdir(), "miro-extensions-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

registerScorer("darkness", {
  name: "mean darkness",
  description: "how dark a picture is, from 0 to 1",
  usesText: false,
  load: async () => ({
    name: "mean darkness",
    batchSize: 8,
    score: (images) => images.map(({ data }) => 1 - data.reduce((sum, value) => sum + value, 0) / data.length / 255),
    dispose() {},
  }),
});

test("a scorer is found by its key", async () => {
  const scorer = await loadScorer("darkness");
  const grey = (level: number) => ({ width: 2, height: 2, data: new Uint8Array(12).fill(level) });
  expect(await scorer.score([grey(255), grey(0), grey(51)], [])).toEqual([0, 1, 0.8]);
  scorer.dispose();
});

test("of a scorer, its key and what loads it suffice", () => {
  const load = () => expect.unreachable();
  registerScorer("warmth", { load });
  const warmth = scorerSpecs().find(({ key }) => key === "warmth");
  expect(warmth).toEqual({
    key: "warmth",
    name: "warmth",
    description: "warmth",
    stage: "rewards",
    usesText: true,
    load,
  });
  expect(() => registerScorer("Warmth", { load })).toThrow(/^key: expected lower-case letters, digits and _/);
  expect(() => registerScorer("chill", {} as never)).toThrow(/^chill\.load: expected a function/);
  expect(() => registerScorer("chill", undefined as never)).toThrow(/^chill: expected a scorer \{ load, … \}/);
});

const repeatedSchema = z.strictObject({
  /** Distinct batches; the run goes through them again and again. */
  batches: z.int().positive(),
  textLen: z.int().positive().default(4),
});

registerSource<z.output<typeof repeatedSchema>>("repeated", {
  schema: repeatedSchema,
  facts: ({ textLen }) => ({ textTokens: textLen }),
  faults: ({ batches }, { batchSize }) =>
    batches > batchSize
      ? [recipeFault("data.batches", `expected at most trainer.batch_size (received ${batches})`)]
      : [],
  check: ({ batches }, { batchSize }) => ({
    samples: batches * batchSize,
    checks: [{ status: "ok", subject: "data.batches", finding: `${batches} batches` }],
  }),
  async open({ batches, textLen }, { seed, batchSize, rows, device, network }) {
    const random = new RandomBatches({
      seed,
      batchSize,
      rows,
      device,
      channels: network.numInputChannels,
      size: network.dataSize,
      textLength: textLen,
      textWidth: network.labelDim,
      rewardKeys: network.coherenceKeys,
    });
    return {
      ready: async () => {},
      batch: (step) => random.batch(step % batches),
      close: () => random.close(),
    };
  },
});

const recipe = (data: object) => ({
  name: "outside",
  data: { kind: "repeated", ...data },
  network: {
    data_size: 4,
    num_input_channels: 4,
    label_dim: 6,
    num_cond_tokens: 5,
    data_dim: 16,
    num_latents: 4,
    latents_dim: 16,
    num_processing_layers: 1,
    num_blocks: 1,
    patch_size: 2,
    compute_heads: 2,
    num_text_registers: 2,
    concat_cond_token_to_latents: false,
    use_self_conditioning: true,
    coherence_keys: ["sharpness"],
  },
  optimizer: { name: "adamw", lr: 0.001 },
  lr_scheduler: { warmup_steps: 1 },
  trainer: { max_steps: 3, batch_size: 4, log_every_n_steps: 1 },
  logger: { tensorboard: false, peak_tflops: 1 },
});

test("a source of data is checked, planned with and trained from", async () => {
  expect(() => parseRecipe(recipe({ batchs: 2 }))).toThrow(/unknown key data\.batchs; did you mean batches/);
  expect(() => parseRecipe(recipe({ batches: 5 }))).toThrow(/data\.batches: expected at most trainer\.batch_size/);
  const parsed = parseRecipe(recipe({ batches: 2 }));
  expect(parsed.data).toEqual({ kind: "repeated", batches: 2, textLen: 4 });
  const plan = await dryRun(parsed);
  expect(plan).toMatchObject({
    flops: { textTokens: 4 },
    data: { ready: true, samples: 8 },
    epochs: 1.5,
    release: false,
  });
  const output = path.join(folder, "run");
  expect(await runTraining({ recipe: parsed, output })).toMatchObject({ finished: true, step: 3, exported: null });
  const log = readFileSync(path.join(output, "log.jsonl"), "utf8").trim().split("\n");
  expect(log.map((line) => JSON.parse(line).step)).toEqual([1, 2, 3]);
});

/** As the fixture registers it. */
const schema = taskRecipeSchema("doubling", { width: z.int().positive().default(3) });

test("a task is trained, measured and exported", async () => {
  const trainer = { maxSteps: 4, batchSize: 8, lr: 0.01, warmupSteps: 1 };
  const task = schema.parse({ kind: "doubling", name: "twice", trainer });
  const { error } = schema.safeParse({ kind: "doubling", name: "twice", trainer: { ...trainer, warmupSteps: 4 } });
  expect(error?.issues).toMatchObject([
    { path: ["trainer", "warmupSteps"], message: "expected fewer than the 4 steps of the run" },
  ]);
  const output = path.join(folder, "task");
  const { finished, exported } = await runTask({ recipe: task, output });
  expect(finished).toBe(true);
  expect(JSON.parse(readFileSync(path.join(exported!, "figures.json"), "utf8")).size).toBeGreaterThan(0);
  await expect(runTask({ recipe: task, output })).rejects.toThrow(/holds a run at step 4/);
});

test("what is taken stays taken", () => {
  expect(() => registerTask("doubling", { schema, build: () => expect.unreachable() })).toThrow(/that no task has/);
  expect(() =>
    registerSource("shards", {
      schema: repeatedSchema,
      facts: () => ({ textTokens: 1 }),
      check: () => ({ samples: null, checks: [] }),
      open: () => expect.unreachable(),
    }),
  ).toThrow(/that no source has/);
});

test("a kind that nothing registers is told with those that there are", async () => {
  expect(() => parseRecipe({ ...recipe({}), data: { kind: "elsewhere-data" } })).toThrow(
    /data\.kind: expected one of emoji, shards, random, repeated, or a kind whose source a module registers/,
  );
  const trainer = { maxSteps: 4, batchSize: 8, lr: 0.01, warmupSteps: 1 };
  const task = {
    ...schema.parse({ kind: "doubling", name: "twice", trainer }),
    kind: "tripling",
  };
  await expect(runTask({ recipe: task, output: path.join(folder, "tripling") })).rejects.toThrow(
    /kind: expected one of .*clip.*doubling, or a task that a module registers \(received "tripling"\)/,
  );
});

test("what is no source and no task is refused where it is registered", () => {
  const schema = z.strictObject({});
  for (const wrong of [null, {}, { schema, open: () => {} }, { schema: {}, open: () => {}, check: () => {} }])
    expect(() => registerSource("wrong", wrong as never)).toThrow(/^wrong: expected a source \{ schema: /);
  for (const wrong of [null, {}, { schema }])
    expect(() => registerTask("wrong", wrong as never)).toThrow(/^wrong: .*build/);
  const elsewhere = { schema, open: () => expect.unreachable(), check: () => expect.unreachable() };
  for (const module of ["./own.mjs", "own", "https://example.org/own.mjs"])
    expect(() => registerSource("elsewhere", { ...elsewhere, module })).toThrow(
      /^elsewhere\.module: .*import\.meta\.url/,
    );
  expect(parseRecipe(recipe({ batches: 2 })).data.kind).toBe("repeated");
});
