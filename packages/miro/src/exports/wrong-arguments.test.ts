/**
 * Whatever JavaScript passes to a public function, the error names the argument: never the engine's own TypeError from
 * within.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import * as root from "../index.js";
import * as data from "./data.js";
import * as evaluation from "./evaluation.js";
import * as networks from "./networks.js";
import * as rewards from "./rewards.js";
import * as training from "./training.js";

type Call = (...args: unknown[]) => unknown;

/**
 * Functions that are left out: they take tensors, networks, open files or what another function has given, and stand in
 * the middle of a computation, where a look at each argument costs more than it helps.
 */
const INNER = new Set([
  ...["binLevels", "computeBins", "groupSamples", "stepPosition"],
  ...["emaName", "inPrecision", "jobScript", "parameterGroups", "recipeFault", "resolvedValues", "resolvedYaml"],
  ...["siteSettings", "createLoss", "createNetworks", "dryRun", "saveTrainingCheckpoint", "submitJob", "writeJob"],
  ...["asPicture", "cutOut", "detectorInput", "fromUnfold", "instances", "layoutOf", "loadMask2Former", "summarise"],
  ...["rewardFigures", "sweepSheet", "sweepToJson", "labelledSheet", "runSweep", "runChart", "gatherStatistics"],
  ...["clipPixels", "imageRewardTokenizer", "loadBlip", "loadClip", "loadClipVision", "loadJinaClip", "loadRanker"],
  ...["loadVqa", "readImageRewardHead", "readLinearHead", "vqaLabels", "vqaRow", "registerScorer", "runTask"],
  ...["combine", "dynamicShift", "forwardFlops", "forwardWork", "guidanceWeight", "precondConfigToJson", "sample"],
  ...["rinConfigToJson", "saveCheckpoint", "trainingFlops", "runTraining", "measureSpeed"],
  ...["registerTask", "registerSource", "registerSuite", "registerSampler"],
]);

const STATIC: readonly [string, Call][] = [
  [
    "MiroPipeline.fromPretrained",
    (...args) => (root.MiroPipeline.fromPretrained as Call)(args[0] ?? 5, ...args.slice(1)),
  ],
  ["ShardSet.open", (...args) => (data.ShardSet.open as Call)(...args)],
  ["TarWriter.create", (...args) => (data.TarWriter.create as Call)(...args)],
  ["AutoencoderKL.fromPretrained", (...args) => (networks.AutoencoderKL.fromPretrained as Call)(...args)],
  ["PatchAutoencoder.fromPretrained", (...args) => (networks.PatchAutoencoder.fromPretrained as Call)(...args)],
  ["T5Encoder.fromPretrained", (...args) => (networks.T5Encoder.fromPretrained as Call)(...args)],
  ["Tokenizer.fromFile", (...args) => (networks.Tokenizer.fromFile as Call)(...args)],
  ["ClipTokenizer.fromFolder", (...args) => (rewards.ClipTokenizer.fromFolder as Call)(args[0], "openai")],
];

const isClass = (value: unknown) => /^class\b/.test(Function.prototype.toString.call(value));
const PUBLIC = new Map<string, Call>(STATIC);
for (const module of [root, data, training, evaluation, rewards, networks])
  for (const [name, value] of Object.entries(module))
    if (typeof value === "function" && !isClass(value) && !INNER.has(name)) PUBLIC.set(name, value as Call);

const wrong = fc.oneof(
  fc.constantFrom<unknown>(undefined, null, 5, -1, Number.NaN, "", "nope", "a=b", true, 10n, () => {}),
  fc.constantFrom<unknown>([], [null], [5], ["nope"], {}, { a: 1 }, { path: 5 }, new Date(0), new Map()),
  fc.constantFrom<unknown>(0, 1, 0.5, Number.POSITIVE_INFINITY, 1e21, "a fox", [1, 2], [10n], [[5]], [{}], [undefined]),
  fc.constantFrom<unknown>(
    Symbol("s"),
    [Symbol("s")],
    { a: 10n },
    Object.create(null),
    new Uint8Array(3),
    new Float32Array(2),
  ),
  fc.constantFrom<unknown>(
    { width: 1, height: 1, data: new Uint8Array(3) },
    new Map([["a", 1]]),
    new Set([1]),
    /x/,
    new URL("file:///x"),
  ),
);

const before = process.cwd();
const { HF_HUB_OFFLINE } = process.env;
let elsewhere: string;
beforeAll(() => {
  elsewhere = mkdtempSync(join(tmpdir(), "miro-wrong-"));
  process.chdir(elsewhere);
  process.env.HF_HUB_OFFLINE = "1";
});
afterAll(() => {
  process.chdir(before);
  if (HF_HUB_OFFLINE === undefined) delete process.env.HF_HUB_OFFLINE;
  else process.env.HF_HUB_OFFLINE = HF_HUB_OFFLINE;
  rmSync(elsewhere, { recursive: true, force: true });
});

async function outcome(call: Call, args: unknown[]): Promise<unknown> {
  try {
    const result = await call(...args);
    const disposable = result as { dispose?: () => unknown; abort?: () => unknown } | null | undefined;
    await (disposable?.dispose ?? disposable?.abort)?.call(disposable);
    return null;
  } catch (error) {
    return error;
  }
}

it("there are functions to call", () => {
  expect(PUBLIC.size).toBeGreaterThan(50);
  for (const name of INNER) expect([name, PUBLIC.has(name)]).toEqual([name, false]);
});

const PICTURE = { width: 1, height: 1, data: new Uint8Array(3) };
/** Right first arguments of functions that look at them before the others. */
const BEGINNINGS: Readonly<Record<string, readonly unknown[]>> = {
  smooth: [[1, 2, 3]],
  decodeImage: [Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAIBRAA7", "base64")],
  encodeImage: [PICTURE],
  contactSheet: [[PICTURE]],
  readSettings: [[{ keyword: "parameters", text: "a fox" }]],
  planPictures: [[{ prompt: "a fox", options: {} }]],
  scorerSpec: ["aesthetic_score"],
  storedScore: [{ stored: { offset: 1, divisor: 2 } }],
  loadScorer: ["sharpness"],
  openTensors: ["."],
  bootstrapIntervals: [[[1, 2, 3]]],
  parseAxis: ["guidance=1,2"],
  evaluationsOf: ["heun"],
  stepsWithin: ["heun"],
  resolveDType: ["auto"],
  readClipConfig: ["."],
  registerSampler: ["mine"],
  composeRecipe: ["emoji"],
  parseRecipe: [{}],
  taskRecipeSchema: ["text-to-image"],
  writeWidsIndex: ["index.json"],
};

it.each([...PUBLIC])("%s answers wrong arguments with an error of this package", async (name, call) => {
  const beginning = fc.constantFrom<unknown[]>([], [...(BEGINNINGS[name] ?? [])]);
  await fc.assert(
    fc.asyncProperty(beginning, fc.array(wrong, { maxLength: 3 }), async (right, rest) => {
      const args = [...right, ...rest];
      const error = await outcome(call, args);
      if (error === null) return;
      expect(error).toBeInstanceOf(Error);
      const { code } = error as Error & { code?: string };
      expect([TypeError, RangeError, ReferenceError, SyntaxError]).not.toContain((error as Error).constructor);
      expect(code ?? "").not.toMatch(/^ERR_/);
    }),
    { numRuns: 60 },
  );
});

const made: Record<string, Call> = { ...data, ...training, ...evaluation, ...rewards, ...networks } as never;
it.each<[string, unknown[], RegExp]>([
  ["resize", [5, { width: 1, height: 1 }, "bilinear"], /^image: expected \{ width, height, data \}/],
  ["centreSquare", [undefined, 8], /^image: expected \{ width, height, data \}/],
  ["runTraining", [{}], /^options: expected \{ recipe, output, … \}, received \{\}$/],
  ["dryRun", ["recipes/emoji.yaml"], /^recipe: expected a recipe, as loadRecipe gives it/],
  ["runSweep", [{ prompts: "a fox", x: 1 }], /^prompts: expected a list of texts, received "a fox"$/],
  ["measureSpeed", ["miro-emoji"], /^pipe: expected a MiroPipeline/],
  ["labelledSheet", [{ cells: 5 }], /^cells: expected a list of rows of cells/],
  ["registerTask", [5, {}], /^kind: expected the kind of a task, received 5$/],
  ["smooth", [[5], 10n], /^weight: expected a number in \[0, 1\), received 10n?$/],
  ["smooth", [[5], 1], /^weight: expected a number in \[0, 1\), received 1$/],
  ["stepsWithin", ["heun", 1e21], /^evaluations: expected a whole number from 1, received 1e\+21$/],
  ["storedScore", [{ stored: { offset: 1, divisor: 2 } }, 10n], /^score: expected a number/],
  ["composeRecipe", ["emoji", [], []], /^environment: expected what readEnvironment gives/],
  ["decodeImage", [new Uint8Array(3), { maxPixels: 0 }], /^maxPixels: expected an integer of at least 1, received 0$/],
  ["gatherStatistics", ["a.tar", {}], /^shards: expected a list of counted shards/],
])("%s names what is wrong", async (name, args, message) => {
  const error = await outcome(made[name]!, args);
  expect(error).toBeInstanceOf(InvalidInputError);
  expect((error as Error).message).toMatch(message);
});
