/**
 * The routes of the Stable Diffusion WebUI (AUTOMATIC1111) for its clients as they are. What the web UI has and this
 * program has not (upscaling, face restoration, other scripts) is refused where it is asked for.
 */
import { availableMemory, memoryLimit } from "@miro-t2i/torch/limits";
import type { FastifyInstance, FastifyReply, FastifySchema } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { invalid } from "../../errors.js";
import { samplersInThreads, samplerTitle } from "../../flow/samplers/index.js";
import { sharp } from "../../pictures/sharp.js";
import { randomSeed } from "../../pipeline/requests/plan-pictures.js";
import { readSettings, textToSettings } from "../../pipeline/settings.js";
import { version } from "../../version.js";
import { chooseModel, fromBase64, parseBody, type Uploads, type WorkContext, workOf } from "./bodies.js";
import type { Engine } from "./engine.js";
import type { Job, JobWork } from "./job.js";
import { MAX_UPLOAD_BYTES } from "./limits.js";
import type { ModelCard } from "./model-card.js";
import type { StudioParts } from "./parts.js";
import type { JobQueue } from "./queue.js";
import { maskFor, stretched, textsOfUpload } from "./recode.js";
import { checkedByRoute, contents, webuiError } from "./schemas.js";
import {
  answerOf,
  type Body,
  img2imgBody,
  nativeOf,
  parametersOf,
  pngInfoBody,
  SCHEDULERS,
  timestamp,
  txt2imgBody,
} from "./webui-bodies.js";

const drawn = {
  200: z
    .object({ images: z.array(z.string()), parameters: z.looseObject({}), info: z.string() })
    .describe("PNG files as base64; info is JSON"),
  422: webuiError.describe("A field is wrong"),
  429: webuiError.describe("The queue is full; Retry-After says when to ask again"),
};
const done = { 200: contents({ "application/json": z.null() }, "Done") };
const things = z.array(z.looseObject({})).describe("The list");
const values = z.looseObject({}).describe("Values by name");

const progress = z
  .object({
    progress: z.number(),
    eta_relative: z.number(),
    state: z.object({
      skipped: z.boolean(),
      interrupted: z.boolean(),
      job: z.string(),
      job_count: z.int(),
      job_timestamp: z.string(),
      job_no: z.int(),
      sampling_step: z.int(),
      sampling_steps: z.int(),
    }),
    current_image: z.string().nullable(),
    textinfo: z.string().nullable(),
  })
  .describe("How far it is, 0 to 1; a PNG as base64");

/** A request: a job for each of its rounds. */
interface DrawnRequest {
  jobs: Job[];
  interrupted: boolean;
}

/** What the routes have in common besides the studio. */
class WebuiState {
  /** The model of requests that name none. */
  current: ModelCard;
  readonly requests = new Set<DrawnRequest>();
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.current = engine.card(undefined)!;
  }

  /** The model of a request. */
  modelOf({ override_settings: settings }: Pick<Body, "override_settings">): ModelCard {
    return this.named("override_settings.sd_model_checkpoint", settings?.sd_model_checkpoint);
  }

  /** The model of a name, which may be an id, or that without what stands before it; of no name the present one. */
  named(parameter: string, name: unknown): ModelCard {
    if (name === undefined || name === null || name === "") return this.current;
    if (typeof name !== "string") throw invalid(parameter, "a title of GET sd-models", name);
    const { cards } = this.#engine;
    return cards.find((card) => card.id === name || card.name === name) ?? chooseModel(name, this.#engine);
  }

  /** The oldest request that computes or waits. */
  active(): DrawnRequest | undefined {
    return [...this.requests].find(({ jobs }) => jobs.some((job) => !job.isFinished));
  }
}

export function addWebuiRoutes(studio: StudioParts): void {
  const state = new WebuiState(studio.engine);
  addDrawing(studio, state);
  addProgress(studio, state);
  addSettings(studio, state);
  addLists(studio);
  addPngInfo(studio);
}

function addDrawing(studio: StudioParts, state: WebuiState): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const draw = async (body: Body, uploads: Uploads, reply: FastifyReply) => {
    const card = state.modelOf(body);
    const works = await worksOf(body, card, uploads, studio.workContext);
    if (body.override_settings_restore_afterwards === false) state.current = card;
    const request = await drawAll(works, studio, state, reply);
    return answerOf(body, request, card, studio.gallery);
  };

  app.post(
    "/sdapi/v1/txt2img",
    {
      schema: { summary: "WebUI: draw pictures", body: txt2imgBody, response: drawn },
      validatorCompiler: checkedByRoute,
    },
    async ({ body }, reply) => draw(parseBody(txt2imgBody, body), {}, reply),
  );

  app.post(
    "/sdapi/v1/img2img",
    {
      schema: { summary: "WebUI: draw over a picture", body: img2imgBody, response: drawn },
      validatorCompiler: checkedByRoute,
      bodyLimit: MAX_UPLOAD_BYTES,
    },
    async (request, reply) => {
      const body = parseBody(img2imgBody, request.body);
      const [width, height] = state.modelOf(body).size;
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
}

/** The work of each round. @throws InvalidInputError where the model draws no such pictures, or not so many */
async function worksOf(body: Body, card: ModelCard, uploads: Uploads, context: WorkContext): Promise<JobWork[]> {
  const [width, height] = card.size;
  if ((body.width ?? width) !== width)
    throw invalid("width", `${width}, the width of ${card.id}'s pictures`, body.width);
  if ((body.height ?? height) !== height)
    throw invalid("height", `${height}, the height of ${card.id}'s pictures`, body.height);
  const { maxImages } = context;
  const [batch, rounds] = [body.batch_size ?? 1, body.n_iter ?? 1];
  if (batch * rounds > maxImages)
    throw invalid("batch_size", `at most ${maxImages} pictures in all (batch_size × n_iter)`, batch * rounds);
  const options = nativeOf(body, card);
  const seed = (body.seed ?? -1) < 0 ? randomSeed() : body.seed!;
  const varies = (body.subseed_strength ?? 0) > 0;
  const subseed = (body.subseed ?? -1) < 0 ? randomSeed() : body.subseed!;
  const round = (i: number) => ({
    ...options,
    ...(uploads.image && { strength: body.denoising_strength ?? 0.75 }),
    prompt: body.prompt,
    imagesPerPrompt: batch,
    seed: varies ? seed : seed + i * batch,
    ...(varies && { variationSeed: subseed + i * batch, variationStrength: body.subseed_strength }),
  });
  return Promise.all(Array.from({ length: rounds }, (_, i) => workOf(round(i), uploads, context)));
}

/** Draws a request, until its reader hangs up. @throws what a job has failed for */
async function drawAll(
  works: readonly JobWork[],
  studio: StudioParts,
  { requests }: WebuiState,
  { raw }: FastifyReply,
): Promise<DrawnRequest> {
  const request: DrawnRequest = { jobs: [], interrupted: false };
  const cancel = () => request.jobs.forEach((job) => void studio.queue.cancel(job));
  raw.on("close", () => {
    if (!raw.writableFinished) cancel();
  });
  requests.add(request);
  try {
    for (const work of works) request.jobs.push(studio.submit(work));
    if (raw.destroyed) cancel();
    await Promise.all(request.jobs.map(({ ended }) => ended));
  } catch (error) {
    cancel(); // the queue was full in the middle
    throw error;
  } finally {
    requests.delete(request);
  }
  const failed = request.jobs.find(({ failure }) => failure !== null);
  if (failed) throw failed.failure!;
  return request;
}

function addProgress({ app: fastify, queue }: StudioParts, state: WebuiState): void {
  const app = fastify.withTypeProvider<ZodTypeProvider>();
  app.get(
    "/sdapi/v1/progress",
    {
      schema: {
        summary: "WebUI: how far the request is that is being drawn",
        // In Python's way of writing it too.
        querystring: z.object({
          skip_current_image: z.enum(["true", "false", "True", "False", "1", "0"]).default("false"),
        }),
        response: { 200: progress },
      },
    },
    async ({ query }) => {
      const skips = ["true", "True", "1"].includes(query.skip_current_image);
      return { ...progressOf(state.active(), queue), current_image: skips ? null : await previewOf(state.active()) };
    },
  );

  const ended = {
    summary: "WebUI: end the request that is being drawn",
    response: { 200: z.object({}).describe("Done") },
  };
  app.post("/sdapi/v1/interrupt", { schema: ended }, async () => {
    const request = state.active();
    if (request) request.interrupted = true;
    for (const job of request?.jobs ?? []) queue.cancel(job);
    return {};
  });

  const skipped = { summary: "WebUI: go on with the next round", response: done };
  app.post("/sdapi/v1/skip", { schema: skipped }, async (_, reply) => {
    const job = state.active()?.jobs.find((one) => !one.isFinished);
    if (job) queue.cancel(job);
    return reply.type("application/json").send("null");
  });
}

/** How far a request is. */
function progressOf(request: DrawnRequest | undefined, queue: JobQueue) {
  const jobs = request?.jobs ?? [];
  const fractions = jobs.flatMap((job) => job.fractions);
  const progress = fractions.reduce((sum, one) => sum + one, 0) / Math.max(1, fractions.length);
  const job = jobs.find((one) => one.status === "running");
  const since = jobs.map(({ startedAt }) => startedAt).find((at) => at !== null);
  const seconds = since ? (Date.now() - since.getTime()) / 1000 : 0;
  return {
    progress,
    eta_relative: progress > 0 ? (seconds / progress) * (1 - progress) : 0,
    state: {
      skipped: false,
      interrupted: request?.interrupted ?? false,
      job: job?.id ?? "",
      job_count: queue.waiting + queue.running,
      job_timestamp: timestamp(job?.createdAt ?? new Date()),
      job_no: jobs.filter(({ isFinished }) => isFinished).length,
      sampling_step: job?.step ?? 0,
      sampling_steps: job?.steps ?? 0,
    },
    textinfo: job ? `${job.step} of ${job.steps ?? "?"} steps` : null,
  };
}

/** The picture that a request is at, as a PNG in base64. */
async function previewOf(request: DrawnRequest | undefined): Promise<string | null> {
  const preview = request?.jobs.find((one) => one.status === "running")?.preview;
  return preview ? (await sharp(Buffer.from(preview)).png().toBuffer()).toString("base64") : null;
}

function addSettings({ app }: StudioParts, state: WebuiState): void {
  get(app, "options", "settings", values, () => ({
    sd_model_checkpoint: state.current.id,
    sd_checkpoint_hash: "",
    samples_format: "png",
    CLIP_stop_at_last_layers: 1,
  }));

  app.post(
    "/sdapi/v1/options",
    {
      schema: { summary: "WebUI: sd_model_checkpoint chooses the model", body: z.looseObject({}), response: done },
    },
    async ({ body }, reply) => {
      state.current = state.named("sd_model_checkpoint", (body as Record<string, unknown>).sd_model_checkpoint);
      return reply.type("application/json").send("null");
    },
  );
}

function addLists({ app, engine }: StudioParts): void {
  const list = (path: string, summary: string, answer: () => z.output<typeof things>) =>
    get(app, path, summary, things, answer);
  const object = (path: string, summary: string, answer: () => z.output<typeof values>) =>
    get(app, path, summary, values, answer);
  list("sd-models", "the models", () =>
    engine.cards.map(({ id, name }) => ({
      title: id,
      model_name: name,
      hash: null,
      sha256: null,
      filename: id,
      config: null,
    })),
  );
  list("samplers", "the samplers", () =>
    samplersInThreads().map((name) => ({ name: samplerTitle(name), aliases: [name], options: {} })),
  );
  list("schedulers", "the schedules", () =>
    SCHEDULERS.map(({ name, label }) => ({ name, label, aliases: null, default_rho: -1, need_inner_model: false })),
  );
  list("upscalers", "upscalers: none", () => [
    { name: "None", model_name: null, model_path: null, model_url: null, scale: 1 },
  ]);
  for (const path of ["loras", "prompt-styles", "sd-vae", "hypernetworks", "face-restorers", "realesrgan-models"])
    list(path, "there are none", () => []);
  list("latent-upscale-modes", "there are none", () => []);
  object("embeddings", "embeddings: none", () => ({ loaded: {}, skipped: {} }));
  object("scripts", "the scripts: miro alone", () => ({ txt2img: ["miro"], img2img: ["miro"] }));
  object("cmd-flags", "flags of the server", () => ({ api: true, listen: false, data_dir: "", version: version() }));
  object("memory", "memory", () => ({
    ram: { free: availableMemory(), used: process.memoryUsage().rss, total: memoryLimit() },
    cuda: { error: "not measured" },
  }));
  const refreshed = { summary: "WebUI: without effect", response: done };
  app.post("/sdapi/v1/refresh-checkpoints", { schema: refreshed }, async (_, reply) =>
    reply.type("application/json").send("null"),
  );
}

function addPngInfo({ app }: StudioParts): void {
  app.post(
    "/sdapi/v1/png-info",
    {
      schema: {
        summary: "WebUI: the settings in a picture",
        body: pngInfoBody,
        response: {
          200: z
            .object({
              info: z.string(),
              items: z.record(z.string(), z.string()),
              parameters: z.record(z.string(), z.unknown()),
            })
            .describe("The settings in its file"),
        },
      },
      validatorCompiler: checkedByRoute,
      bodyLimit: MAX_UPLOAD_BYTES,
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

/** A route whose answer depends on no request. */
function get<T extends z.ZodType>(
  app: FastifyInstance,
  path: string,
  summary: string,
  schema: T,
  answer: () => z.output<T>,
): void {
  const described: FastifySchema = { summary: `WebUI: ${summary}`, response: { 200: schema } };
  app.get(`/sdapi/v1/${path}`, { schema: described }, async () => answer());
}
