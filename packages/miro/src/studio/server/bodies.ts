/** What requests for pictures may hold: the options of `generate`, by their names in TypeScript. */
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { checkSamplerOptions } from "../../flow/samplers/index.js";
import { about, message } from "../../message.js";
import { counted } from "../../numbers.js";
import { field, flag, parseOptions } from "../../options.js";
import type { ResolvedGenerateOptions } from "../../pipeline/generate-options.js";
import { planPictures, randomSeed } from "../../pipeline/requests/plan-pictures.js";
import { promptOptionsSchema } from "../../pipeline/requests/prompt-file.js";
import { parseSelection } from "../../rewards/selection.js";
import type { Engine } from "./engine.js";
import type { Gallery } from "./gallery.js";
import type { JobWork } from "./job.js";
import type { ModelCard } from "./model-card.js";
import { sizeOfUpload } from "./recode.js";

/** Most characters of a prompt. */
const MOST_TEXT = 100_000;
const text = z.string().max(MOST_TEXT);
const ofText = `a text of at most ${MOST_TEXT} characters`;

const { image: _, mask: __, imagesPerPrompt: ___, ...drawing } = promptOptionsSchema.shape;

const targets = z.record(z.string().min(1), z.number().nullable());
/** Targets of all pictures of a job, or a set for each. */
const targetSets = (help: string) =>
  field(z.union([targets, z.array(targets).min(1).max(1000)]).optional(), {
    expected: "targets by reward such as { sharpness: 0.2 }, or a list with a set for each picture",
    help,
  });
const TARGETS = ["rewardTargets", "negativeRewardTargets"] as const;

/** A picture in a JSON body: a data URL, base64, or one of the gallery. */
const pictureSource = z.union([z.string().min(1), z.strictObject({ picture: z.string().max(64) })]);
const ofPicture = "a data URL of a picture, base64, or { picture: an id of the gallery }";

/** The body of `POST /api/jobs`. */
export const jobBody = z.strictObject({
  /** What to draw; or several. */
  prompt: field(text.optional(), { expected: ofText, help: "what to draw; or prompts" }),
  /** Several of what to draw. */
  prompts: field(z.array(text).min(1).max(1000).optional(), {
    expected: `1 to 1000 texts, each of at most ${MOST_TEXT} characters`,
    help: "several of what to draw",
  }),
  /** Id of the model; default: the first one. */
  model: field(z.string().max(1000).optional(), {
    expected: "an id of GET /api/models",
    help: "id of the model; default: the first one",
  }),
  ...drawing,
  rewardTargets: targetSets("targets of all pictures, or a list with a set for each"),
  negativeRewardTargets: targetSets("targets that guidance leads away from, as rewardTargets"),
  /** Seed of the first picture, or one for each. */
  seed: field(z.union([z.int().min(0), z.literal("random"), z.array(z.int().min(0)).max(1000)]).default("random"), {
    expected: "an integer of at least 0, random, or a list with one for each picture",
    help: "seed of the first picture, random, or a list with one for each",
  }),
  /** Pictures of each prompt, seeds upwards. */
  imagesPerPrompt: field(z.int().min(1).default(1), {
    expected: "an integer of at least 1",
    help: "pictures of each prompt, seeds upwards",
  }),
  /** Draw each picture as it is drawn alone, to the bit. */
  deterministic: flag("draw each picture as it is drawn alone, to the bit"),
  /** A preview of each picture at every n-th step. */
  previewEvery: field(z.int().min(1).optional(), {
    expected: "an integer of at least 1",
    help: "a preview of each picture at every n-th step",
  }),
  /** Draw several for each picture and keep the best by a scorer. */
  bestOf: field(z.strictObject({ n: z.int().min(2).max(64), by: z.string().max(200) }).optional(), {
    expected: "n from 2 to 64 and scorers, such as { n: 4, by: sharpness }",
    help: "draw n for each picture and keep the best by a scorer",
  }),
  /** Picture that is drawn over. */
  image: field(pictureSource.optional(), { expected: ofPicture, help: "picture that is drawn over" }),
  /** White where the picture is drawn anew. */
  mask: field(pictureSource.optional(), {
    expected: ofPicture,
    help: "picture of the image's size, white where it is drawn anew",
  }),
  /** Cancel the job when its last event stream closes. */
  cancelOnDisconnect: flag("cancel the job when its last event stream closes"),
});

export type JobBody = z.output<typeof jobBody>;

/** Files that come with a request, instead of `image` and `mask` in its JSON. */
export interface Uploads {
  image?: Uint8Array | undefined;
  mask?: Uint8Array | undefined;
}

/** A model that is not offered. */
export class UnknownModel extends InvalidInputError {}

/** Where requests are made into work. */
export interface WorkContext {
  engine: Engine;
  gallery: Gallery;
  /** Most pictures of a job. */
  maxImages: number;
}

/**
 * The work of a request, with every option checked.
 * @throws InvalidInputError naming the field
 */
export async function workOf(given: unknown, uploads: Uploads, context: WorkContext): Promise<JobWork> {
  const body = parseBody(jobBody, given);
  const { prompt, prompts, seed, imagesPerPrompt, deterministic, previewEvery, bestOf, cancelOnDisconnect } = body;
  if ((prompt === undefined) === (prompts === undefined))
    throw invalid("prompt", "one prompt, or a list of prompts", prompt);
  const texts = prompts ?? [prompt!];
  const blank = texts.findIndex((one) => one.trim() === "");
  if (blank >= 0) throw invalid(prompts ? `prompts.${blank}` : "prompt", "a text", texts[blank]);
  const card = chooseModel(body.model, context.engine);
  const count = texts.length * imagesPerPrompt;
  if (count > context.maxImages)
    throw invalid(prompts ? "prompts" : "imagesPerPrompt", `at most ${context.maxImages} pictures in a job`, count);
  const edits = await editsOf(body, uploads, context.gallery);
  if (edits.length === 0 && body.strength !== undefined) throw invalid("strength", "an image with it", message`none`);
  const sets = TARGETS.map((name) => [name, setsOf(name, body[name], count, card)] as const);
  if (Array.isArray(seed) && seed.length !== count)
    throw invalid("seed", `one for each of ${counted(count, "picture")}`, seed.length);
  const options = {
    ...Object.fromEntries(Object.entries(body).filter(([key]) => key in drawing)),
    imagesPerPrompt,
    deterministic,
    rewardTargets: undefined,
    negativeRewardTargets: undefined,
  };
  const planned = planPictures(
    texts.map((one) => ({ prompt: one, options: {} })),
    {
      options,
      seed: seed === "random" ? randomSeed() : Array.isArray(seed) ? 0 : seed,
      candidates: bestOf?.n ?? 1,
    },
  );
  for (const picture of planned) checkTogether(picture.options);
  if (bestOf) checkScorers(bestOf.by);
  return {
    model: card.id,
    cancelOnDisconnect,
    call: {
      pictures: planned.map((picture, i) => ({
        ...picture,
        ...(Array.isArray(seed) && { seed: seed[i]! }),
        options: {
          ...picture.options,
          ...Object.fromEntries(sets.flatMap(([name, each]) => (each === null ? [] : [[name, each[i]!]]))),
        },
        path: context.gallery.newPath(),
        ...(edits.length > 0 && { edit: 0 }),
      })),
      edits,
      ...(bestOf && { bestOf: { count: bestOf.n, by: bestOf.by } }),
      previewEvery,
    },
  };
}

/** Checks what options say together, of which else only the job would tell. @throws InvalidInputError naming one */
export function checkTogether({
  sampler,
  samplerOptions,
  variationSeed,
  variationStrength,
}: ResolvedGenerateOptions): void {
  checkSamplerOptions(sampler, samplerOptions);
  if (variationSeed === undefined && variationStrength !== undefined)
    throw invalid("variationStrength", "a variation seed with it", message`none`);
}

/** Checks a body by its schema. @throws InvalidInputError naming the field */
export function parseBody<S extends z.ZodObject>(schema: S, given: unknown): z.output<S> {
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw invalid("body", "a JSON object", given ?? message`none`);
  return parseOptions(schema, given);
}

/** @throws UnknownModel */
export function chooseModel(id: string | undefined, engine: Engine): ModelCard {
  const card = engine.card(id);
  if (card) return card;
  const known = engine.cards.map((one) => one.id).join(", ");
  throw new UnknownModel(message`${about("model")}: expected one of ${known}, received ${JSON.stringify(id)}`, {
    parameter: "model",
    expected: `one of ${known}`,
    received: id,
  });
}

/** The targets of each picture; null where none are given. @throws InvalidInputError */
function setsOf(
  name: (typeof TARGETS)[number],
  given: JobBody["rewardTargets"],
  count: number,
  card: ModelCard,
): readonly z.output<typeof targets>[] | null {
  if (given === undefined) return null;
  const sets = Array.isArray(given) ? given : Array.from({ length: count }, () => given);
  if (sets.length !== count)
    throw invalid(name, `a set of targets for each of ${counted(count, "picture")}`, sets.length);
  for (const set of new Set(sets)) checkRewards(name, set, card);
  return sets;
}

/** @throws InvalidInputError for a reward that a model was not trained on */
export function checkRewards(name: string, targets: unknown, { coherenceKeys }: ModelCard): void {
  for (const key of Object.keys((targets ?? {}) as object))
    if (!coherenceKeys.includes(key))
      throw invalid(`${name}.${key}`, `one of the model's rewards ${coherenceKeys.join(", ")}`, key);
}

function checkScorers(by: string): void {
  try {
    parseSelection(by);
  } catch (error) {
    throw new InvalidInputError(message`${about("bestOf.by")}: ${(error as Error).message}`, {
      parameter: "bestOf.by",
      expected: "scorers, such as sharpness or a=1,b=0.5",
      received: by,
    });
  }
}

async function editsOf(body: JobBody, uploads: Uploads, gallery: Gallery) {
  const image = uploads.image ?? (body.image === undefined ? undefined : await bytesOf("image", body.image, gallery));
  const mask = uploads.mask ?? (body.mask === undefined ? undefined : await bytesOf("mask", body.mask, gallery));
  if (image === undefined) {
    if (mask !== undefined) throw invalid("mask", "an image with it", message`none`);
    return [];
  }
  // Damage is found when they are decoded.
  const sizes = [await sizeOfUpload("image", image), mask ? await sizeOfUpload("mask", mask) : null];
  const [own, masks] = sizes.map((size) => size?.join(" x "));
  if (own !== undefined && masks !== undefined && masks !== own)
    throw invalid("mask", `the size of the image, ${own}`, message`${masks}`);
  return [{ image, ...(mask && { mask }) }];
}

async function bytesOf(
  parameter: string,
  source: z.output<typeof pictureSource>,
  gallery: Gallery,
): Promise<Uint8Array> {
  if (typeof source !== "string") {
    const bytes = gallery.get(source.picture) && (await gallery.bytes(source.picture));
    if (bytes === null) throw invalid(`${parameter}.picture`, "the id of a picture of the gallery", source.picture);
    return bytes;
  }
  return fromBase64(parameter, source);
}

/** The bytes of a data URL, or of base64 alone. */
export function fromBase64(parameter: string, source: string): Uint8Array {
  const data = /^data:image\/[\w.+-]{1,40};base64,/.exec(source);
  const base64 = data ? source.slice(data[0].length) : source;
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(base64)) throw invalid(parameter, "a data URL of a picture, or base64", source);
  return Uint8Array.from(Buffer.from(base64, "base64"));
}
