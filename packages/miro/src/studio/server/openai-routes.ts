/**
 * The routes of OpenAI's images API, for its clients as they are: `POST /v1/images/generations` and `edits`, answered
 * at once or as a stream, and `GET /v1/models`. The options of `POST /api/jobs` may stand beside OpenAI's own.
 */
import type { FastifyReply, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { InvalidInputError, invalid, MiroError } from "../../errors.js";
import { message } from "../../message.js";
import { field } from "../../options.js";
import type { ImageFormat } from "../../pictures/image-files.js";
import { STRENGTH } from "../../pipeline/edit.js";
import { chooseModel, jobBody, parseBody, type Uploads, workOf } from "./bodies.js";
import { EventStream } from "./event-stream.js";
import type { Gallery } from "./gallery.js";
import type { Job, JobEvent } from "./job.js";
import type { StudioParts } from "./parts.js";
import type { JobQueue } from "./queue.js";
import { maskOfAlpha, recoded } from "./recode.js";
import { refusalOf, shown, statusOf } from "./refusals.js";
import { formToJson, readForm } from "./request-bodies.js";
import { checkedByRoute, contents, file, named, openaiError } from "./schemas.js";

const { prompt: _, prompts: __, imagesPerPrompt: ___, cancelOnDisconnect: ____, ...native } = jobBody.shape;

/** Accepted, and without effect. */
const ignored = (help: string) => field(z.unknown().optional(), { expected: "anything", help });

/** The body of `POST /v1/images/generations`; `null` stands for an option that is not given. */
const imagesBody = z.strictObject({
  /** What to draw. */
  prompt: field(z.string().max(100_000), { expected: "a text", help: "what to draw" }),
  /** Number of pictures, seeds upwards. Default: 1. */
  n: field(z.int().min(1).default(1), { expected: "an integer of at least 1", help: "number of pictures" }),
  /** `auto`, or the size of the model's pictures. */
  size: field(z.string().max(40).default("auto"), {
    expected: "auto, or the size of the model's pictures",
    help: "size of the pictures: auto, or that of the model",
  }),
  /** `low`: 20 steps, `medium`: the default of the model, `high`: 100; an own number of steps decides. */
  quality: field(z.enum(["auto", "low", "medium", "high", "standard", "hd"]).default("auto"), {
    expected: "one of auto, low, medium, high, standard, hd",
    help: "low: 20 steps, medium: the model's default, high: 100; an own number of steps decides",
  }),
  /** Pictures in the answer, or their addresses. */
  response_format: field(z.enum(["b64_json", "url"]).default("b64_json"), {
    expected: "b64_json or url",
    help: "pictures in the answer, or their addresses",
  }),
  /** Format of the pictures. */
  output_format: field(z.enum(["png", "jpeg", "webp"]).default("png"), {
    expected: "one of png, jpeg, webp",
    help: "format of the pictures",
  }),
  /** Quality of jpeg and webp, 0 to 100. */
  output_compression: field(z.int().min(0).max(100).optional(), {
    expected: "an integer from 0 to 100",
    help: "quality of jpeg and webp",
  }),
  /** Answer with server-sent events. */
  stream: field(z.boolean().default(false), { expected: "true or false", help: "answer with server-sent events" }),
  /** With `stream`: previews of each picture while it is drawn. */
  partial_images: field(z.int().min(0).max(3).default(0), {
    expected: "an integer from 0 to 3",
    help: "with stream: previews of each picture while it is drawn",
  }),
  user: ignored("without effect"),
  background: ignored("without effect: pictures are opaque"),
  style: ignored("without effect"),
  moderation: ignored("without effect"),
  input_fidelity: ignored("without effect: strength says how much is drawn anew"),
  ...native,
});

const model = named(
  "OpenAIModel",
  z.object({ id: z.string(), object: z.literal("model"), created: z.int(), owned_by: z.string() }),
);

const usage = z.object({
  input_tokens: z.number(),
  output_tokens: z.number(),
  total_tokens: z.number(),
  input_tokens_details: z.object({ text_tokens: z.number(), image_tokens: z.number() }),
});
const images = named(
  "OpenAIImages",
  z.object({
    created: z.int(),
    data: z.array(
      z.object({
        b64_json: z.string().optional(),
        url: z.string().optional(),
        revised_prompt: z.string(),
        seed: z.int().nullable(),
      }),
    ),
    background: z.string(),
    output_format: z.string(),
    size: z.string(),
    quality: z.string(),
    usage,
  }),
);

/** Answers of routes that draw. */
const drawn = {
  200: contents({ "application/json": images, "text/event-stream": z.string() }, "The pictures; with stream, events"),
  400: openaiError.describe("A field is wrong"),
  404: openaiError.describe("There is no such model"),
  429: openaiError.describe("The queue is full; Retry-After says when to ask again"),
};

/** Steps by quality; null: the model's default. */
const STEPS = { low: 20, medium: null, high: 100 } as const;
const QUALITIES = {
  auto: "medium",
  standard: "medium",
  hd: "high",
  low: "low",
  medium: "medium",
  high: "high",
} as const;

/** What an answer says of all its pictures, and what it is an answer to. */
interface Answer {
  request: FastifyRequest;
  /** Of its events: `image_generation` or `image_edit`. */
  kind: string;
  /** Previews of each picture, in a stream. */
  partialImages: number;
  format: ImageFormat;
  compression: number | undefined;
  size: [number, number];
  quality: keyof typeof STEPS;
  url: boolean;
  prompt: string;
  /** Latent positions of a picture that is drawn over. */
  imageTokens: number;
}

export function addOpenaiRoutes(studio: StudioParts): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const { engine } = studio;
  const started = Math.floor(Date.now() / 1000);
  const modelOf = (name: string) => {
    const { id } = chooseModel(name, engine);
    return { id, object: "model", created: started, owned_by: "miro" } as const;
  };

  const models = z.object({ object: z.literal("list"), data: z.array(model) }).describe("The models");
  app.get(
    "/v1/models",
    { schema: { summary: "The models, as OpenAI lists them", response: { 200: models } } },
    async () => ({ object: "list" as const, data: engine.cards.map(({ id }) => modelOf(id)) }),
  );

  app.get(
    "/v1/models/:id",
    {
      schema: {
        summary: "A model, as OpenAI tells of it",
        params: z.object({ id: z.string().max(1000) }),
        response: { 200: model.describe("The model"), 404: openaiError.describe("There is no such model") },
      },
    },
    async ({ params }) => modelOf(params.id),
  );
  // Not every client escapes the slash in the name of a repository.
  app.get(
    "/v1/models/*",
    { schema: { hide: true, params: z.object({ "*": z.string().max(1000) }) } },
    async (request) => modelOf(request.params["*"]),
  );

  app.post(
    "/v1/images/generations",
    {
      schema: { summary: "Draw pictures, as OpenAI's images.generate", body: imagesBody, response: drawn },
      validatorCompiler: checkedByRoute,
    },
    async (request, reply) => draw(studio, "image_generation", request.body, {}, request, reply),
  );

  app.post(
    "/v1/images/edits",
    {
      schema: {
        summary: "Draw over a picture, as OpenAI's images.edit",
        description: "Objects are written in brackets: rewardTargets[sharpness]=0.5.",
        body: contents({ "multipart/form-data": imagesBody.extend({ image: file, mask: file.optional() }) }),
        response: drawn,
      },
      validatorCompiler: checkedByRoute,
    },
    async (request, reply) => {
      if (!request.isMultipart()) throw invalid("body", "multipart/form-data with a file image", message`another`);
      const form = await readForm(request);
      const { image, mask, ...others } = Object.fromEntries(form.files);
      const body = formToJson(form);
      const unknown = Object.keys(others)[0];
      if (unknown !== undefined) throw invalid(unknown.slice(0, 100), "a file image or mask", message`another file`);
      if (image === undefined && body.image === undefined) throw invalid("image", "a picture file", undefined);
      if ((image?.length ?? 0) > 1) throw invalid("image", "one picture", image!.length);
      const uploads = { image: image?.[0], mask: mask && (await maskOfAlpha("mask", mask[0]!)) };
      return draw(studio, "image_edit", body, uploads, request, reply);
    },
  );
}

/** Draws what a request asks for, and answers it at once or as a stream. */
async function draw(
  studio: StudioParts,
  kind: string,
  given: unknown,
  uploads: Uploads,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply | z.output<typeof images>> {
  const body = parseBody(imagesBody, withoutNulls(given));
  const { n, size, quality: asked, response_format, output_format, output_compression, stream, ...rest } = body;
  const card = chooseModel(body.model, studio.engine);
  const own = card.size.join("x");
  if (size !== "auto" && size !== own) throw invalid("size", `auto or ${own}, the size of ${card.id}'s pictures`, size);
  const { maxImages } = studio.workContext;
  if (n > maxImages) throw invalid("n", `an integer from 1 to ${maxImages}`, n);
  if (output_compression !== undefined && output_compression < 100 && output_format === "png")
    throw invalid("output_compression", "jpeg or webp with it; png keeps every pixel", output_compression);
  const quality = QUALITIES[asked];
  const steps = body.steps ?? STEPS[quality] ?? card.defaults.steps;
  const isOver = (uploads.image ?? body.image) !== undefined;
  const masked = (uploads.mask ?? body.mask) !== undefined;
  const part = isOver ? (body.strength ?? (masked ? STRENGTH.mask : STRENGTH.image)) : 1;
  const previewEvery =
    stream && body.partial_images > 0 ? Math.max(1, Math.floor((steps * part) / (body.partial_images + 1))) : undefined;
  const work = await workOf(
    { ...nativeOf(rest), imagesPerPrompt: n, steps, previewEvery },
    uploads,
    studio.workContext,
  );
  const positions = (card.size[0] / 8) * (card.size[1] / 8);
  const answer: Answer = {
    request,
    kind,
    partialImages: body.partial_images,
    format: output_format,
    compression: output_compression,
    size: card.size,
    quality,
    prompt: body.prompt,
    url: response_format === "url",
    imageTokens: isOver ? positions : 0,
  };
  const job = studio.submit(work);
  cancelWithReader(studio.queue, job, reply);
  if (stream) {
    streamImages(studio, job, answer, reply);
    return reply;
  }
  await job.ended;
  if (reply.raw.destroyed) return reply;
  if (job.status !== "done") throw failureOf(job);
  const data = await Promise.all(job.pictures.map((id, i) => pictureOf(studio.gallery, job, i, id!, answer)));
  return { created: Math.floor(Date.now() / 1000), data, ...facts(answer), usage: usageOf(job, answer) };
}

/** Events of a job as OpenAI's clients read them. */
function streamImages({ queue, gallery }: StudioParts, job: Job, answer: Answer, reply: FastifyReply): void {
  const stream = new EventStream(reply, () => {});
  const sent = job.pictures.map(() => 0);
  const completed = job.pictures.map(() => false);
  const send = (name: string, data: object, mayBeMissed = false) => {
    const type = `${answer.kind}.${name}`;
    const created_at = Math.floor(Date.now() / 1000);
    stream.send(type, { type, created_at, ...facts(answer), ...data }, { mayBeMissed });
  };
  const fail = (error: Error) => {
    const { url } = answer.request;
    const status = statusOf(error, url);
    stream.send("error", { type: "error", ...refusalOf(url, status, shown(status, error)) });
    stream.end();
  };
  const hear = async ({ event, data }: JobEvent): Promise<void> => {
    const image = Number(data.image ?? data.index);
    if (event === "preview") {
      if (completed[image] || sent[image]! >= answer.partialImages || data.step === data.steps) return;
      const partial_image_index = sent[image]!++;
      const webp = Buffer.from(String(data.data).replace(/^[^,]*,/, ""), "base64");
      const bytes = await recoded(webp, answer.format, { size: answer.size, quality: answer.compression });
      send("partial_image", { b64_json: bytes.toString("base64"), partial_image_index, index: image }, true);
    } else if (event === "picture") {
      completed[image] = true;
      const picture = await pictureOf(gallery, job, image, String(data.id), answer);
      send("completed", { ...picture, index: image, usage: usageOf(job, answer, image) });
    } else if (event === "failed" || event === "cancelled") fail(failureOf(job));
    else if (event === "done") stream.end();
  };
  // One after the other: encoding takes its time, the order of events stays.
  let last: Promise<void> = Promise.resolve();
  job.listen((event) => {
    last = last
      .then(() => hear(event))
      .catch((error: Error) => {
        fail(error);
        queue.cancel(job);
      });
  });
}

function cancelWithReader(queue: JobQueue, job: Job, reply: FastifyReply): void {
  if (reply.raw.destroyed) queue.cancel(job);
  reply.raw.on("close", () => {
    if (!reply.raw.writableFinished) queue.cancel(job);
  });
}

async function pictureOf(gallery: Gallery, job: Job, image: number, id: string, answer: Answer) {
  const more = { revised_prompt: answer.prompt, seed: job.seeds[image] ?? null };
  if (answer.url) {
    const quality = answer.compression === undefined || answer.format === "png" ? "" : `?quality=${answer.compression}`;
    const ending = answer.format === "jpeg" ? "jpg" : answer.format;
    const { protocol, host, headers } = answer.request;
    // The path that a proxy has taken away.
    const prefix = /^(?:\/[\w.~-]+)+/.exec(String(headers["x-forwarded-prefix"] ?? ""))?.[0] ?? "";
    return { url: `${protocol}://${host}${prefix}/api/pictures/${id}.${ending}${quality}`, ...more };
  }
  const bytes =
    answer.format === "png" ? await gallery.bytes(id) : await gallery.converted(id, answer.format, answer.compression);
  if (bytes === null) throw new MiroError("a picture was removed before it could be sent");
  return { b64_json: bytes.toString("base64"), ...more };
}

/** What an answer says of its pictures. */
function facts({ format, size, quality }: Answer) {
  return { background: "opaque", output_format: format, size: size.join("x"), quality };
}

/** Tokens of the prompt, and latent positions of pictures. @param image of one picture, default: of all */
function usageOf({ promptTokens }: Job, { size, imageTokens }: Answer, image?: number) {
  const prompts = image === undefined ? promptTokens : [promptTokens[image] ?? 0];
  const text_tokens = prompts.reduce((sum, tokens) => sum + tokens, 0);
  const image_tokens = imageTokens * prompts.length;
  const output_tokens = (size[0] / 8) * (size[1] / 8) * prompts.length;
  const input_tokens = text_tokens + image_tokens;
  return {
    input_tokens,
    output_tokens,
    total_tokens: input_tokens + output_tokens,
    input_tokens_details: { text_tokens, image_tokens },
  };
}

/** Of a request the options of `POST /api/jobs`. */
function nativeOf(body: object): object {
  return Object.fromEntries(Object.entries(body).filter(([name]) => name in native || name === "prompt"));
}

function withoutNulls(given: unknown): unknown {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return given;
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
}

/** Why a job has no pictures, as an error. */
function failureOf(job: Job): Error {
  return job.failure ?? new InvalidInputError("the job was cancelled");
}
