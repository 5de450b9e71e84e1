/** The studio's own routes: jobs and their events, pictures, models. */
import { createReadStream, existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { invalid } from "../../errors.js";
import { samplerNames } from "../../flow/samplers/index.js";
import { BUNDLED_MODEL } from "../../pipeline/loading/bundled.js";
import { slug } from "../../pipeline/requests/file-names.js";
import { textToSettings } from "../../pipeline/settings.js";
import { DEFAULT_SCORER, scorerSpecs } from "../../rewards/registry.js";
import { jobBody, workOf } from "./bodies.js";
import type { ModelCard } from "./engine.js";
import { streamJob } from "./event-stream.js";
import type { PictureEntry } from "./gallery.js";
import { Job, type JobView, type JobWork } from "./job.js";
import { MAX_UPLOAD_BYTES } from "./limits.js";
import type { StudioParts } from "./parts.js";
import { textsOfUpload } from "./recode.js";
import { readFileBody, readRequest } from "./request-bodies.js";
import { rewardStyle } from "./reward-styles.js";
import { checkedByRoute } from "./schemas.js";
import { sweepBody, sweepWorkOf } from "./sweeps.js";

const errorBody = z.object({
  error: z.object({
    message: z.string(),
    field: z.string().optional(),
    expected: z.string().optional(),
    received: z.unknown().optional(),
  }),
});

const id = z.object({ id: z.string().max(64) });

const jobView = z.object({
  id: z.string(),
  status: z.enum(["queued", "running", "done", "failed", "cancelled"]),
  position: z.number().nullable(),
  model: z.string(),
  createdAt: z.string(),
  startedAt: z.string().nullable(),
  finishedAt: z.string().nullable(),
  step: z.number(),
  steps: z.number().nullable(),
  total: z.number(),
  pictures: z.array(z.string()),
  scores: z.array(z.record(z.string(), z.number()).nullable()),
  warnings: z.array(z.string()),
  error: z.string().nullable(),
  sheet: z.string().nullable().optional(),
});

const accepted = z.object({
  id: z.string(),
  status: z.string(),
  position: z.number().nullable(),
  links: z.object({ self: z.string(), events: z.string() }),
});

const pictureEntry = z.object({
  id: z.string(),
  prompt: z.string(),
  model: z.string(),
  seed: z.number().nullable(),
  width: z.number(),
  height: z.number(),
  createdAt: z.string(),
  favourite: z.boolean(),
  rewardTargets: z.record(z.string(), z.number()),
});

/** What a request may call itself. */
const requestKey = z.string().regex(/^[\w.:-]{1,100}$/);

const IMMUTABLE = "private, max-age=31536000, immutable";

/** Keys of the scorers that may choose among a model's pictures, first the one that suits it and needs no download. */
function scorersFor({ name }: ModelCard): string[] {
  const keys = scorerSpecs().map(({ key }) => key);
  const suited = [...(name === BUNDLED_MODEL ? [DEFAULT_SCORER] : []), "sharpness", "colorfulness"];
  return [...suited, ...keys.filter((key) => key !== DEFAULT_SCORER && !suited.includes(key))];
}

export function addNativeRoutes(studio: StudioParts): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const { queue, gallery, engine } = studio;

  app.get("/health", { schema: { summary: "Whether the server lives, and how long its queue is" } }, async () => ({
    status: "ok",
    queue: { waiting: queue.waiting, running: queue.running },
    uptimeSeconds: Math.round(process.uptime()),
  }));

  app.get("/metrics", { schema: { summary: "Numbers of the server for Prometheus" } }, async (_, reply) => {
    const { registry } = studio.metrics;
    return reply.type(registry.contentType).send(await registry.metrics());
  });

  app.get("/api/models", { schema: { summary: "The models, with their rewards and limits" } }, async () =>
    Promise.all(
      engine.cards.map(async (card) => ({
        ...{ id: card.id, name: card.name, license: card.license, defaults: card.defaults },
        rewards: card.coherenceKeys.map((key) => ({
          ...{ key, ...rewardStyle(key), min: 0, max: 1, step: 1 / 63, default: 1, negativeDefault: 0 },
        })),
        size: card.size,
        samplers: samplerNames(),
        scorers: scorersFor(card),
        examples: card.examples,
        limits: { images: studio.workContext.maxImages, steps: 100_000, uploadBytes: MAX_UPLOAD_BYTES },
        loaded: engine.isLoaded(card.id),
      })),
    ),
  );

  app.post(
    "/api/jobs",
    {
      schema: {
        summary: "Ask for pictures",
        description:
          "JSON, or multipart/form-data with the JSON as `request` and files as `image` and `mask`. A request that is " +
          "sent again with the same Idempotency-Key is answered with its first job.",
        headers: z.looseObject({ "idempotency-key": requestKey.optional() }),
        body: jobBody,
        response: { 202: accepted, 400: errorBody, 404: errorBody, 429: errorBody },
      },
      validatorCompiler: checkedByRoute,
    },
    async (request, reply) => {
      const { body, uploads } = await readRequest(request);
      const key = request.headers["idempotency-key"];
      return accept(await workOf(body, uploads, studio.workContext), reply, key);
    },
  );

  app.post(
    "/api/sweeps",
    {
      schema: {
        summary: "Ask for a table of pictures over two settings, as miro sweep draws it",
        body: sweepBody,
        response: { 202: accepted, 400: errorBody, 404: errorBody, 429: errorBody },
      },
      validatorCompiler: checkedByRoute,
    },
    async ({ body }, reply) => accept(sweepWorkOf(body, studio.workContext), reply),
  );

  app.get(
    "/api/sweeps/:id/:file",
    {
      schema: {
        summary: "The labelled sheet of a sweep (sheet.png), or its settings and scores (sweep.json)",
        params: z.object({ id: z.string().max(64), file: z.enum(["sheet.png", "sweep.json"]) }),
      },
    },
    async ({ params }, reply) => {
      const folder = gallery.sweepFolder(params.id);
      if (folder === null) return noPicture(reply);
      const path = join(folder, params.file);
      return params.file === "sheet.png"
        ? sendFile(reply, path)
        : existsSync(path)
          ? reply.type("application/json").send(createReadStream(path))
          : noPicture(reply);
    },
  );

  app.get(
    "/api/jobs",
    {
      schema: {
        summary: "Jobs, newest first",
        querystring: z.object({
          status: z.enum(["queued", "running", "done", "failed", "cancelled"]).optional(),
          limit: z.coerce.number().int().min(1).max(200).default(50),
          cursor: z
            .string()
            .regex(/^job-[0-9a-z]{8,40}$/, "expected the next of a page before")
            .optional(),
          requestKey: requestKey.optional(),
        }),
        response: { 200: z.object({ jobs: z.array(jobView), next: z.string().nullable() }) },
      },
    },
    async ({ query: { status, limit, cursor, requestKey: key } }) => {
      // Its job may be in another state by now; once it is forgotten, so are those before it.
      const all = queue.list(undefined, key);
      const place = cursor === undefined ? -1 : all.findIndex((job) => job.id === cursor);
      const older = cursor !== undefined && place < 0 ? [] : all.slice(place + 1);
      const asked = older.filter((job) => status === undefined || job.status === status);
      const page = asked.slice(0, limit);
      return { jobs: page.map((job) => queue.view(job)), next: asked.length > limit ? page.at(-1)!.id : null };
    },
  );

  app.get(
    "/api/jobs/:id",
    { schema: { summary: "A job's state", params: id, response: { 200: jobView, 404: errorBody, 410: errorBody } } },
    async ({ params }, reply) => {
      const found = findJob(params.id, reply);
      if (found === null) return reply;
      return found instanceof Job ? queue.view(found) : found;
    },
  );

  app.get(
    "/api/jobs/:id/events",
    {
      schema: { summary: "A job's events as they happen (server-sent events); Last-Event-ID goes on", params: id },
      // Who asks for headers alone is no reader, whose leaving may cancel the job.
      exposeHeadRoute: false,
    },
    async (request, reply) => {
      const found = findJob(request.params.id, reply);
      if (found === null) return reply;
      if (!(found instanceof Job))
        return reply.code(410).send({ error: { message: found.error ?? "the job has ended" } });
      return streamJob(found, request, reply, () => {
        if (found.work.cancelOnDisconnect) queue.cancel(found);
      });
    },
  );

  app.delete("/api/jobs/:id", { schema: { summary: "Cancel a job", params: id } }, async ({ params }, reply) => {
    const found = findJob(params.id, reply);
    if (found === null) return reply;
    if (found instanceof Job) queue.cancel(found);
    return reply.code(204).send();
  });

  app.get(
    "/api/pictures",
    {
      schema: {
        summary: "The gallery, newest first; `reward.KEY>=0.5` asks for a least target",
        querystring: z.looseObject({
          q: z.string().max(1000).optional(),
          model: z.string().max(1000).optional(),
          favourite: z.enum(["true", "false"]).optional(),
          cursor: z
            .string()
            .regex(/^\d{1,16}-\d{1,16}$/, "expected the next of a page before")
            .optional(),
          limit: z.coerce.number().int().min(1).max(500).default(60),
        }),
        response: { 200: z.object({ pictures: z.array(pictureEntry), next: z.string().nullable() }), 400: errorBody },
      },
    },
    async ({ query: { q, model, favourite, cursor, limit, ...rest } }) =>
      gallery.list({
        ...{ q, model, cursor, limit, atLeast: leastTargets(rest) },
        favourite: favourite === undefined ? undefined : favourite === "true",
      }),
  );

  app.get(
    "/api/pictures/:id",
    {
      schema: {
        summary: "What is known of a picture; with .png, .webp or .jpg its file",
        params: id,
        querystring: z.object({ quality: z.coerce.number().int().min(0).max(100).optional() }),
      },
    },
    async (request, reply) => {
      const { quality } = request.query;
      const [, name, ending] = /^([0-9a-f]+)(?:\.(png|webp|jpe?g))?$/.exec(request.params.id) ?? [];
      const entry = name === undefined ? null : gallery.get(name);
      if (entry === null) return noPicture(reply);
      if (ending === undefined) return entry;
      reply.header("content-disposition", dispositionOf(entry, ending));
      if (isFresh(request, reply, `"${name}.${ending}${quality ?? ""}"`)) return reply.code(304).send();
      if (ending === "png") return sendFile(reply, gallery.pathOf(name!)!);
      const format = ending === "webp" ? "webp" : "jpeg";
      return reply.type(`image/${format}`).send(await gallery.converted(name!, format, quality));
    },
  );

  app.get(
    "/api/pictures/:id/thumbnail",
    { schema: { summary: "A small WebP of a picture", params: id } },
    async (request, reply) => {
      const { id: name } = request.params;
      if (gallery.get(name) === null) return noPicture(reply);
      if (isFresh(request, reply, `"${name}-thumbnail"`)) return reply.code(304).send();
      return reply.type("image/webp").send(await gallery.thumbnail(name));
    },
  );

  app.get(
    "/api/pictures/:id/settings",
    { schema: { summary: "Everything that decides a picture", params: id } },
    async ({ params }, reply) => (await gallery.settings(params.id)) ?? noPicture(reply),
  );

  app.patch(
    "/api/pictures/:id",
    {
      schema: {
        summary: "Make a picture a favourite, or none",
        params: id,
        body: z.strictObject({ favourite: z.boolean() }),
      },
    },
    async ({ params, body }, reply) =>
      gallery.setFavourite(params.id, body.favourite) ? gallery.get(params.id) : noPicture(reply),
  );

  app.delete(
    "/api/pictures/:id",
    { schema: { summary: "Move a picture to the trash", params: id } },
    async ({ params }, reply) => (gallery.remove(params.id) ? reply.code(204).send() : noPicture(reply)),
  );

  app.post(
    "/api/pictures/:id/restore",
    { schema: { summary: "Take a picture out of the trash", params: id } },
    async ({ params }, reply) => (gallery.restore(params.id) ? gallery.get(params.id) : noPicture(reply)),
  );

  app.post(
    "/api/inspect",
    { schema: { summary: "The settings in a picture file (multipart/form-data, or the file as the body)" } },
    async (request, reply) => {
      const bytes = await readFileBody(request);
      const text = await textsOfUpload("image", bytes);
      const settings = textToSettings(text);
      const parameters = text.find(({ keyword }) => keyword === "parameters")?.text ?? null;
      if (settings === null && parameters === null)
        return reply.code(422).send({ error: { message: "the picture holds no settings" } });
      return { settings, parameters };
    },
  );

  function accept(work: JobWork, reply: FastifyReply, key?: string) {
    const job = studio.submit(work, key);
    const self = `/api/jobs/${job.id}`;
    const { status, position } = queue.view(job);
    reply.code(202).header("location", self);
    return { id: job.id, status, position, links: { self, events: `${self}/events` } };
  }

  function findJob(name: string, reply: FastifyReply): Job | JobView | null {
    const found = queue.find(name);
    if (found === "expired") reply.code(410).send({ error: { message: `the job ${name} is no longer known` } });
    else if (found === null) reply.code(404).send({ error: { message: `there is no job ${name}` } });
    else return found;
    return null;
  }
}

function noPicture(reply: FastifyReply): FastifyReply {
  return reply.code(404).send({ error: { message: "there is no such picture" } });
}

/** The name under which a picture is saved (RFC 6266): that which `miro generate` gives it. */
function dispositionOf({ prompt, seed }: PictureEntry, ending: string): string {
  const name = `${slug(prompt)}${seed === null ? "" : `-seed${seed}`}.${ending}`;
  const plain = name.replace(/[^\x20-\x7e]/gu, "_");
  return `inline; filename="${plain}"; filename*=UTF-8''${encodeURIComponent(name)}`;
}

/** Sets what caches need; whether the reader has the picture already. */
function isFresh(request: FastifyRequest, reply: FastifyReply, tag: string): boolean {
  reply.headers({ etag: tag, "cache-control": IMMUTABLE });
  const known = request.headers["if-none-match"]?.split(",").map((one) => one.trim().replace(/^W\//, "")) ?? [];
  return known.includes(tag) || known.includes("*");
}

async function sendFile(reply: FastifyReply, path: string): Promise<FastifyReply> {
  const { size } = await stat(path).catch(() => ({ size: -1 }));
  if (size < 0) return noPicture(reply.removeHeader("etag").removeHeader("cache-control"));
  return reply.type("image/png").header("content-length", size).send(createReadStream(path));
}

/** `reward.KEY>` of a query that was `reward.KEY>=VALUE`. */
function leastTargets(query: Record<string, unknown>): Record<string, number> {
  const targets: Record<string, number> = {};
  for (const [name, value] of Object.entries(query)) {
    const key = /^reward\.(\w{1,64})>?$/.exec(name)?.[1];
    if (key === undefined) continue;
    const least = typeof value === "string" && value.trim() !== "" ? Number(value) : Number.NaN;
    if (!Number.isFinite(least)) throw invalid(name, "a number", value);
    targets[key] = least;
  }
  return targets;
}
