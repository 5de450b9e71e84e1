/**
 * The routes of the Stable Diffusion WebUI (AUTOMATIC1111) for its clients as they are. What the web UI has and this
 * program has not (upscaling, face restoration, other scripts) is refused where it is asked for.
 */
import { readFile } from "node:fs/promises";
import { freemem, totalmem } from "node:os";
import type { FastifyReply } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { invalid } from "../../errors.js";
import { samplerNames, samplerTitle, withOptionsOf } from "../../flow/samplers/index.js";
import { field } from "../../options.js";
import { readPng } from "../../pictures/png.js";
import { sharp } from "../../pictures/sharp.js";
import { randomSeed } from "../../pipeline/requests/plan-pictures.js";
import { type ImageSettings, readSettings, textToSettings } from "../../pipeline/settings.js";
import { version } from "../../version.js";
import { chooseModel, fromBase64, jobBody, parseBody, type Uploads, workOf } from "./bodies.js";
import type { ModelCard } from "./engine.js";
import type { Job } from "./job.js";
import { MAX_UPLOAD_BYTES } from "./limits.js";
import type { StudioParts } from "./parts.js";
import { maskFor, stretched, textsOfUpload } from "./recode.js";
import { checkedByRoute } from "./schemas.js";

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
  scheduler: given(z.string().max(100), "a name of GET schedulers", "bend of the schedule"),
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

type Body = z.output<typeof txt2imgBody> & Partial<z.output<typeof img2imgBody>>;

const SCHEDULERS = [
  { name: "automatic", label: "Automatic", shift: undefined },
  { name: "dynamic", label: "Dynamic", shift: "dynamic" },
] as const;

/** A request: a job for each of its rounds. */
interface Round {
  jobs: Job[];
  interrupted: boolean;
}

export function addWebuiRoutes(studio: StudioParts): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const { queue, gallery, engine } = studio;
  /** The model of requests that name none. */
  let current = engine.card(undefined)!;
  const requests = new Set<Round>();
  const get = (path: string, summary: string, answer: () => unknown) =>
    app.get(`/sdapi/v1/${path}`, { schema: { summary: `WebUI: ${summary}` } }, async (_, reply) =>
      reply.type("application/json").send(JSON.stringify(answer())),
    );

  app.post(
    "/sdapi/v1/txt2img",
    { schema: { summary: "WebUI: draw pictures", body: txt2imgBody }, validatorCompiler: checkedByRoute },
    async ({ body }, reply) => draw(parseBody(txt2imgBody, body), {}, reply),
  );

  app.post(
    "/sdapi/v1/img2img",
    {
      schema: { summary: "WebUI: draw over a picture", body: img2imgBody },
      ...{ validatorCompiler: checkedByRoute, bodyLimit: MAX_UPLOAD_BYTES },
    },
    async (request, reply) => {
      const body = parseBody(img2imgBody, request.body);
      const [width, height] = modelOf(body).size;
      const sent = fromBase64("init_images.0", body.init_images[0]!);
      const image = body.resize_mode === 1 ? sent : await stretched("init_images.0", sent, width / height);
      const mask =
        typeof body.mask === "string"
          ? await maskFor("mask", fromBase64("mask", body.mask), image, {
              invert: Boolean(body.inpainting_mask_invert),
              blur: body.mask_blur ?? 4,
            })
          : undefined;
      return draw(body, { image, ...(mask && { mask }) }, reply);
    },
  );

  async function draw(body: Body, uploads: Uploads, reply: FastifyReply): Promise<FastifyReply | object> {
    const card = modelOf(body);
    const [width, height] = card.size;
    if ((body.width ?? width) !== width)
      throw invalid("width", `${width}, the width of ${card.id}'s pictures`, body.width);
    if ((body.height ?? height) !== height)
      throw invalid("height", `${height}, the height of ${card.id}'s pictures`, body.height);
    const { maxImages } = studio.workContext;
    const [batch, rounds] = [body.batch_size ?? 1, body.n_iter ?? 1];
    if (batch * rounds > maxImages)
      throw invalid("batch_size", `at most ${maxImages} pictures in all (batch_size × n_iter)`, batch * rounds);
    const options = nativeOf(body, card);
    const seed = (body.seed ?? -1) < 0 ? randomSeed() : body.seed!;
    const varies = (body.subseed_strength ?? 0) > 0;
    const subseed = (body.subseed ?? -1) < 0 ? randomSeed() : body.subseed!;
    const works = await Promise.all(
      Array.from({ length: rounds }, (_, i) =>
        workOf(
          {
            ...options,
            ...(uploads.image && { strength: body.denoising_strength ?? 0.75 }),
            ...{ prompt: body.prompt, imagesPerPrompt: batch, seed: varies ? seed : seed + i * batch },
            ...(varies && { variationSeed: subseed + i * batch, variationStrength: body.subseed_strength }),
          },
          uploads,
          studio.workContext,
        ),
      ),
    );
    if (body.override_settings_restore_afterwards === false) current = card;
    const request: Round = { jobs: [], interrupted: false };
    const cancel = () => request.jobs.forEach((job) => void queue.cancel(job));
    reply.raw.on("close", () => {
      if (!reply.raw.writableFinished) cancel();
    });
    requests.add(request);
    try {
      for (const work of works) request.jobs.push(studio.submit(work));
      if (reply.raw.destroyed) cancel();
      await Promise.all(request.jobs.map(({ ended }) => ended));
    } catch (error) {
      cancel(); // the queue was full in the middle
      throw error;
    } finally {
      requests.delete(request);
    }
    const failed = request.jobs.find(({ status }) => status === "failed");
    if (failed) throw failed.failure!;
    return answerOf(body, request, card);
  }

  async function answerOf({ init_images, mask, ...body }: Body, { jobs, interrupted }: Round, { size }: ModelCard) {
    const ids = jobs.flatMap(({ pictures }) => pictures.filter((id) => id !== undefined));
    const files = await Promise.all(ids.map((id) => readFile(gallery.pathOf(id)!)));
    const texts = files.map((file) => readPng(file, "a picture").text);
    const settings = texts.map((text) => readSettings(text, "a picture"));
    const [first] = settings;
    const negative = body.negative_prompt ?? "";
    const seeds = settings.map((one) => one.seed);
    const subseeds = settings.map((one) => one.variationSeed ?? -1);
    const info = {
      ...{ prompt: body.prompt, all_prompts: settings.map(({ prompt }) => prompt) },
      ...{ negative_prompt: negative, all_negative_prompts: settings.map(() => negative) },
      ...{ seed: seeds[0] ?? body.seed ?? -1, all_seeds: seeds, subseed: subseeds[0] ?? -1, all_subseeds: subseeds },
      ...{ subseed_strength: body.subseed_strength ?? 0, width: size[0], height: size[1] },
      sampler_name: first ? samplerTitle(first.sampler) : (body.sampler_name ?? null),
      cfg_scale: first ? Math.max(0, first.guidanceScale) + 1 : (body.cfg_scale ?? null),
      steps: first?.steps ?? body.steps ?? null,
      ...{ batch_size: body.batch_size ?? 1, restore_faces: false, face_restoration_model: null },
      ...{ sd_model_name: first?.model ?? null, sd_model_hash: first?.weights?.checkpoint.sha256.slice(0, 10) ?? null },
      ...{ sd_vae_name: null, sd_vae_hash: first?.weights?.autoencoder.sha256.slice(0, 10) ?? null },
      ...{ seed_resize_from_w: -1, seed_resize_from_h: -1, denoising_strength: first?.strength ?? null },
      ...{ extra_generation_params: {}, index_of_first_image: 0, styles: [], clip_skip: 1 },
      infotexts: texts.map((text) => text.find(({ keyword }) => keyword === "parameters")?.text ?? ""),
      ...{ job_timestamp: timestamp(jobs[0]!.createdAt), is_using_inpainting_conditioning: false },
      ...{ interrupted, version: `miro-t2i ${version()}` },
    };
    return {
      images: body.send_images === false ? [] : files.map((file) => file.toString("base64")),
      parameters: { ...body, ...(init_images && { init_images: null, mask: null }) },
      info: JSON.stringify(info),
    };
  }

  /** The options of `POST /api/jobs` that a request means. */
  function nativeOf(body: Body, card: ModelCard): Record<string, unknown> {
    const sampler = samplerOf(body.sampler_name ?? body.sampler_index ?? undefined);
    const scheduler = SCHEDULERS.find(({ name, label }) =>
      ([name, label] as string[]).includes(body.scheduler ?? "automatic"),
    );
    if (scheduler === undefined)
      throw invalid("scheduler", `one of ${SCHEDULERS.map(({ name }) => name).join(", ")}`, body.scheduler);
    const steps = body.steps ?? card.defaults.steps;
    const eta = sampler && typeof body.eta === "number" ? withOptionsOf(sampler, { eta: body.eta }) : undefined;
    return {
      ...{ model: card.id, steps, previewEvery: Math.max(1, Math.floor(steps / 10)) },
      ...(typeof body.cfg_scale === "number" && { guidanceScale: Math.max(0, body.cfg_scale - 1) }),
      ...(body.negative_prompt && { negativePrompt: body.negative_prompt }),
      ...(sampler && { sampler }),
      ...(eta && { samplerOptions: eta }),
      ...(scheduler.shift && { shift: scheduler.shift }),
      ...scriptOf(body),
    };
  }

  /** The model of a request. */
  function modelOf({ override_settings: settings }: Pick<Body, "override_settings">): ModelCard {
    return named("override_settings.sd_model_checkpoint", settings?.sd_model_checkpoint);
  }

  /** The model of a name, which may be an id, or that without what stands before it; of no name the present one. */
  function named(parameter: string, name: unknown): ModelCard {
    if (name === undefined || name === null || name === "") return current;
    if (typeof name !== "string") throw invalid(parameter, "a title of GET sd-models", name);
    return engine.cards.find((card) => card.id === name || card.name === name) ?? chooseModel(name, engine);
  }

  /** The requests that compute or wait, the oldest first. */
  const active = () => [...requests].filter(({ jobs }) => jobs.some((job) => !job.isFinished));

  app.get(
    "/sdapi/v1/progress",
    {
      schema: {
        summary: "WebUI: how far the request is that is being drawn",
        // In Python's way of writing it too.
        querystring: z.object({
          skip_current_image: z.enum(["true", "false", "True", "False", "1", "0"]).default("false"),
        }),
      },
    },
    async ({ query }) => {
      const [request] = active();
      const jobs = request?.jobs ?? [];
      const fractions = jobs.flatMap((job) => job.fractions);
      const progress = fractions.reduce((sum, one) => sum + one, 0) / Math.max(1, fractions.length);
      const job = jobs.find((one) => one.status === "running");
      const since = jobs.map(({ startedAt }) => startedAt).find((at) => at !== null);
      const seconds = since ? (Date.now() - since.getTime()) / 1000 : 0;
      const skips = ["true", "True", "1"].includes(query.skip_current_image);
      const preview = skips ? null : (job?.preview ?? null);
      return {
        progress,
        eta_relative: progress > 0 ? (seconds / progress) * (1 - progress) : 0,
        state: {
          ...{ skipped: false, interrupted: request?.interrupted ?? false, job: job?.id ?? "" },
          ...{ job_count: queue.waiting + queue.running, job_timestamp: timestamp(job?.createdAt ?? new Date()) },
          job_no: jobs.filter(({ isFinished }) => isFinished).length,
          ...{ sampling_step: job?.step ?? 0, sampling_steps: job?.steps ?? 0 },
        },
        current_image: preview && (await sharp(Buffer.from(preview)).png().toBuffer()).toString("base64"),
        textinfo: job ? `${job.step} of ${job.steps ?? "?"} steps` : null,
      };
    },
  );

  app.post("/sdapi/v1/interrupt", { schema: { summary: "WebUI: end the request that is being drawn" } }, async () => {
    const [request] = active();
    if (request) request.interrupted = true;
    for (const job of request?.jobs ?? []) queue.cancel(job);
    return {};
  });

  app.post("/sdapi/v1/skip", { schema: { summary: "WebUI: go on with the next round" } }, async (_, reply) => {
    const job = active()[0]?.jobs.find((one) => !one.isFinished);
    if (job) queue.cancel(job);
    return reply.type("application/json").send("null");
  });

  get("options", "settings", () => ({
    ...{ sd_model_checkpoint: current.id, sd_checkpoint_hash: "", samples_format: "png", CLIP_stop_at_last_layers: 1 },
  }));

  app.post(
    "/sdapi/v1/options",
    { schema: { summary: "WebUI: sd_model_checkpoint chooses the model", body: z.looseObject({}) } },
    async ({ body }, reply) => {
      current = named("sd_model_checkpoint", (body as Record<string, unknown>).sd_model_checkpoint);
      return reply.type("application/json").send("null");
    },
  );

  get("sd-models", "the models", () =>
    engine.cards.map(({ id, name }) => ({
      ...{ title: id, model_name: name, hash: null, sha256: null, filename: id, config: null },
    })),
  );
  get("samplers", "the samplers", () =>
    samplerNames().map((name) => ({ name: samplerTitle(name), aliases: [name], options: {} })),
  );
  get("schedulers", "the schedules", () =>
    SCHEDULERS.map(({ name, label }) => ({ name, label, aliases: null, default_rho: -1, need_inner_model: false })),
  );
  get("upscalers", "upscalers: none", () => [
    { name: "None", model_name: null, model_path: null, model_url: null, scale: 1 },
  ]);
  for (const path of ["loras", "prompt-styles", "sd-vae", "hypernetworks", "face-restorers", "realesrgan-models"])
    get(path, "there are none", () => []);
  get("latent-upscale-modes", "there are none", () => []);
  get("embeddings", "embeddings: none", () => ({ loaded: {}, skipped: {} }));
  get("scripts", "the scripts: miro alone", () => ({ txt2img: ["miro"], img2img: ["miro"] }));
  get("cmd-flags", "flags of the server", () => ({ api: true, listen: false, data_dir: "", version: version() }));
  get("memory", "memory", () => ({
    ram: { free: freemem(), used: process.memoryUsage().rss, total: totalmem() },
    cuda: { error: "not measured" },
  }));
  app.post("/sdapi/v1/refresh-checkpoints", { schema: { summary: "WebUI: without effect" } }, async (_, reply) =>
    reply.type("application/json").send("null"),
  );

  app.post(
    "/sdapi/v1/png-info",
    {
      schema: { summary: "WebUI: the settings in a picture", body: pngInfoBody },
      ...{ validatorCompiler: checkedByRoute, bodyLimit: MAX_UPLOAD_BYTES },
    },
    async ({ body }) => {
      const { image } = parseBody(pngInfoBody, body);
      const texts = await textsOfUpload("image", Buffer.from(fromBase64("image", image)));
      const items = Object.fromEntries(texts.map(({ keyword, text }) => [keyword, text]));
      const settings = textToSettings(texts) === null ? null : readSettings(texts, "image");
      return { info: items.parameters ?? "", items, parameters: settings ? parametersOf(settings) : {} };
    },
  );
}

const pngInfoBody = z.looseObject({
  /** The picture, as base64 or a data URL. */
  image: field(z.string().min(1), { expected: "a picture as base64 or a data URL", help: "the picture" }),
});

/** The name of a sampler that is called by its name or as other programs call it. */
function samplerOf(called: string | undefined): string | undefined {
  if (called === undefined) return undefined;
  const plain = (text: string) => text.toLowerCase();
  const found = samplerNames().find((name) => [name, samplerTitle(name)].map(plain).includes(plain(called)));
  if (found === undefined)
    throw invalid("sampler_name", `one of ${samplerNames().map(samplerTitle).join(", ")}`, called);
  return found;
}

/** Of `alwayson_scripts.miro.args`: targets, then negative targets; or one object with options of `POST /api/jobs`. */
function scriptOf({ alwayson_scripts: scripts }: Body): Record<string, unknown> {
  const another = Object.keys(scripts ?? {}).find((name) => name.toLowerCase() !== "miro");
  if (another !== undefined) throw invalid(`alwayson_scripts.${another}`, "the script miro alone", "another");
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

function parametersOf(settings: ImageSettings): Record<string, unknown> {
  const { prompt, negativePrompt, steps, sampler, guidanceScale, seed, width, height, model } = settings;
  return {
    ...{ Prompt: prompt, "Negative prompt": negativePrompt ?? "", Steps: `${steps}`, Sampler: samplerTitle(sampler) },
    ...{
      "CFG scale": `${Math.max(0, guidanceScale) + 1}`,
      Seed: `${seed}`,
      "Size-1": width,
      "Size-2": height,
      Model: model,
    },
  };
}

/** `20261231235959`, as the web UI writes times. */
function timestamp(date: Date): string {
  return date.toISOString().slice(0, 19).replace(/\D/g, "");
}
