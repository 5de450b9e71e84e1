/**
 * What the Stable Diffusion WebUI (AUTOMATIC1111) calls things: bodies of its requests, the options that they mean, and
 * its answers.
 */
import { z } from "zod";
import { invalid } from "../../errors.js";
import { cfgScale } from "../../flow/guidance.js";
import { samplersInThreads, samplerTitle, withOptionsOf } from "../../flow/samplers/index.js";
import { message } from "../../message.js";
import { field } from "../../options.js";
import { readPng } from "../../pictures/png.js";
import { type ImageSettings, readSettings } from "../../pipeline/settings.js";
import { version } from "../../version.js";
import { jobBody } from "./bodies.js";
import type { Gallery } from "./gallery.js";
import type { Job } from "./job.js";
import type { ModelCard } from "./model-card.js";

/** A field that clients send as null where it is not given. */
const given = <T extends z.ZodType>(schema: T, expected: string, help: string) =>
  field(schema.nullish(), { expected, help });
const off = (help: string) =>
  given(z.union([z.literal(false), z.literal(0)]), "false: there is no such thing here", help);
const integer = (least: number, most: number) => z.int().min(least).max(most);

const drawing = {
  /** What to draw. */
  prompt: field(z.string().max(100_000), { expected: "a text", help: "what to draw" }),
  negative_prompt: given(z.string().max(100_000), "a text", "what guidance leads away from"),
  steps: given(integer(1, 100_000), "an integer of at least 1", "sampling steps; default: the model's"),
  cfg_scale: given(z.number().min(0), "a number of at least 0", "guidance: one more than guidanceScale; 1 is unguided"),
  seed: given(
    z.int().min(-1),
    "an integer of at least 0, or -1",
    "seed of the first picture; -1: one that nobody chose",
  ),
  subseed: given(
    z.int().min(-1),
    "an integer of at least 0, or -1",
    "seed of the variation; -1: one that nobody chose",
  ),
  subseed_strength: given(z.number().min(0).max(1), "a number from 0 to 1", "how far the variation goes"),
  batch_size: given(integer(1, 100_000), "an integer of at least 1", "pictures of a round"),
  n_iter: given(integer(1, 100_000), "an integer of at least 1", "rounds"),
  sampler_name: given(z.string().max(100), "a name of GET samplers", "sampler"),
  sampler_index: given(z.string().max(100), "a name of GET samplers", "sampler, where sampler_name is not given"),
  scheduler: given(z.string().max(100), "a name of GET schedulers", "shift of the schedule"),
  eta: given(z.number(), "a number", "of samplers that have it"),
  width: given(z.int(), "the width of the model's pictures", "width; default: the model's"),
  height: given(z.int(), "the height of the model's pictures", "height; default: the model's"),
  override_settings: given(z.record(z.string(), z.unknown()), "an object", "sd_model_checkpoint chooses the model"),
  override_settings_restore_afterwards: given(z.boolean(), "true or false", "false keeps the model that was chosen"),
  alwayson_scripts: given(
    z.record(z.string(), z.object({ args: z.unknown().optional() })),
    "the script miro alone",
    "miro.args: reward targets, or the options of POST /api/jobs",
  ),
  send_images: given(z.boolean(), "true or false", "pictures in the answer"),
  enable_hr: off("a second pass in higher resolution"),
  restore_faces: off("restoring faces"),
  tiling: off("pictures that continue at their borders"),
  script_name: given(z.literal(""), "no script", "a script"),
  styles: given(z.array(z.string()).max(0), "an empty list: there are no styles", "styles"),
};

/** The body of `POST /sdapi/v1/txt2img`; other fields of the web UI are accepted without effect. */
export const txt2imgBody = z.looseObject(drawing);

/** The body of `POST /sdapi/v1/img2img`. */
export const img2imgBody = z.looseObject({
  ...drawing,
  /** The picture that is drawn over. */
  init_images: field(z.array(z.string().min(1)).length(1), { expected: "one picture", help: "what is drawn over" }),
  mask: given(z.string().min(1), "a picture", "white places are drawn anew"),
  mask_blur: given(z.number().min(0).max(200), "a number from 0 to 200", "softness of the mask's edges, pixels"),
  inpainting_mask_invert: given(z.union([z.boolean(), integer(0, 1)]), "0 or 1", "1: black places are drawn anew"),
  denoising_strength: given(z.number().min(0).max(1), "a number from 0 to 1", "how much is drawn anew; default: 0.75"),
  resize_mode: given(integer(0, 1), "0 or 1", "0: stretched to the model's size, 1: its centre is cut out"),
});

/** What the two have in common, and what an image has besides. */
export type Body = z.output<typeof txt2imgBody> & Partial<z.output<typeof img2imgBody>>;

export const SCHEDULERS = [
  { name: "automatic", label: "Automatic", shift: undefined },
  { name: "dynamic", label: "Dynamic", shift: "dynamic" },
] as const;

/** The body of `POST /sdapi/v1/png-info`. */
export const pngInfoBody = z.looseObject({
  /** The picture, as base64 or a data URL. */
  image: field(z.string().min(1), { expected: "a picture as base64 or a data URL", help: "the picture" }),
});

/** The options of `POST /api/jobs` that a request means. */
export function nativeOf(body: Body, card: ModelCard): Record<string, unknown> {
  const sampler = samplerOf(body.sampler_name ?? body.sampler_index ?? undefined);
  const scheduler = SCHEDULERS.find(({ name, label }) =>
    ([name, label] as string[]).includes(body.scheduler ?? "automatic"),
  );
  if (scheduler === undefined)
    throw invalid("scheduler", `one of ${SCHEDULERS.map(({ name }) => name).join(", ")}`, body.scheduler);
  const steps = body.steps ?? card.defaults.steps;
  const eta = sampler && typeof body.eta === "number" ? withOptionsOf(sampler, { eta: body.eta }) : undefined;
  return {
    model: card.id,
    steps,
    previewEvery: Math.max(1, Math.floor(steps / 10)),
    ...(typeof body.cfg_scale === "number" && { guidanceScale: Math.max(0, body.cfg_scale - 1) }),
    ...(body.negative_prompt && { negativePrompt: body.negative_prompt }),
    ...(sampler && { sampler }),
    ...(eta && { samplerOptions: eta }),
    ...(scheduler.shift && { shift: scheduler.shift }),
    ...scriptOf(body),
  };
}

/** What a request is answered with, once its pictures are drawn. */
export async function answerOf(
  { init_images, mask, ...body }: Body,
  { jobs, interrupted }: { jobs: readonly Job[]; interrupted: boolean },
  { size }: ModelCard,
  gallery: Gallery,
) {
  const ids = jobs.flatMap(({ pictures }) => pictures.filter((id) => id !== undefined));
  const files = (await Promise.all(ids.map((id) => gallery.bytes(id)))).filter((file) => file !== null);
  const texts = files.map((file) => readPng(file, "a picture").text);
  const settings = texts.map((text) => readSettings(text, "a picture"));
  const [first] = settings;
  const negative = body.negative_prompt ?? "";
  const seeds = settings.map((one) => one.seed);
  const subseeds = settings.map((one) => one.variationSeed ?? -1);
  const info = {
    prompt: body.prompt,
    all_prompts: settings.map(({ prompt }) => prompt),
    negative_prompt: negative,
    all_negative_prompts: settings.map(() => negative),
    seed: seeds[0] ?? body.seed ?? -1,
    all_seeds: seeds,
    subseed: subseeds[0] ?? -1,
    all_subseeds: subseeds,
    subseed_strength: body.subseed_strength ?? 0,
    width: size[0],
    height: size[1],
    sampler_name: first ? samplerTitle(first.sampler) : (body.sampler_name ?? null),
    cfg_scale: first ? cfgScale(first.guidanceScale) : (body.cfg_scale ?? null),
    steps: first?.steps ?? body.steps ?? null,
    batch_size: body.batch_size ?? 1,
    restore_faces: false,
    face_restoration_model: null,
    sd_model_name: first?.model ?? null,
    sd_model_hash: first?.weights?.checkpoint.sha256.slice(0, 10) ?? null,
    sd_vae_name: null,
    sd_vae_hash: first?.weights?.autoencoder.sha256.slice(0, 10) ?? null,
    seed_resize_from_w: -1,
    seed_resize_from_h: -1,
    denoising_strength: first?.strength ?? null,
    extra_generation_params: {},
    index_of_first_image: 0,
    styles: [],
    clip_skip: 1,
    infotexts: texts.map((text) => text.find(({ keyword }) => keyword === "parameters")?.text ?? ""),
    job_timestamp: timestamp(jobs[0]!.createdAt),
    is_using_inpainting_conditioning: false,
    interrupted,
    version: `miro-t2i ${version()}`,
  };
  return {
    images: body.send_images === false ? [] : files.map((file) => file.toString("base64")),
    parameters: { ...body, ...(init_images && { init_images: null, mask: null }) },
    info: JSON.stringify(info),
  };
}

/** The name of a sampler that is called by its name or as other programs call it. */
function samplerOf(called: string | undefined): string | undefined {
  if (called === undefined) return undefined;
  const plain = (text: string) => text.toLowerCase();
  const found = samplersInThreads().find((name) => [name, samplerTitle(name)].map(plain).includes(plain(called)));
  if (found === undefined)
    throw invalid("sampler_name", `one of ${samplersInThreads().map(samplerTitle).join(", ")}`, called);
  return found;
}

/** Of `alwayson_scripts.miro.args`: targets, then negative targets; or one object with options of `POST /api/jobs`. */
function scriptOf({ alwayson_scripts: scripts }: Body): Record<string, unknown> {
  const another = Object.keys(scripts ?? {}).find((name) => name.toLowerCase() !== "miro");
  if (another !== undefined) throw invalid(`alwayson_scripts.${another}`, "the script miro alone", message`another`);
  const args = Object.values(scripts ?? {})[0]?.args;
  const list: unknown[] = args === undefined || args === null ? [] : Array.isArray(args) ? args : [args];
  for (const one of list)
    if (typeof one !== "object" || one === null || Array.isArray(one))
      throw invalid("alwayson_scripts.miro.args", "reward targets such as [{ clip_score: 0.5 }]", one);
  const [first, second] = list as Record<string, unknown>[];
  const options = Object.keys(first ?? {}).some((name) => name in jobBody.shape);
  return {
    ...(options ? first : first && { rewardTargets: first }),
    ...(second && { negativeRewardTargets: second }),
  };
}

/** The settings of a picture, by the names that the web UI gives them. */
export function parametersOf(settings: ImageSettings): Record<string, unknown> {
  const { prompt, negativePrompt, steps, sampler, guidanceScale, seed, width, height, model } = settings;
  return {
    Prompt: prompt,
    "Negative prompt": negativePrompt ?? "",
    Steps: `${steps}`,
    Sampler: samplerTitle(sampler),
    "CFG scale": `${cfgScale(guidanceScale)}`,
    Seed: `${seed}`,
    "Size-1": width,
    "Size-2": height,
    Model: model,
  };
}

/** `20261231235959`, as the web UI writes times. */
export function timestamp(date: Date): string {
  return date.toISOString().slice(0, 19).replace(/\D/g, "");
}
