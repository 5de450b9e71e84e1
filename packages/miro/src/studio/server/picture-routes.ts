/** The studio's routes of pictures: the gallery, its files, what a sweep has written, and what a sent file says. */
import { createReadStream, existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { invalid } from "../../errors.js";
import type { ImageFormat } from "../../pictures/image-files.js";
import { slug } from "../../pipeline/requests/file-names.js";
import { imageSettingsSchema, textToSettings } from "../../pipeline/settings.js";
import { type PictureEntry, pictureEntry } from "./gallery.js";
import type { StudioParts } from "./parts.js";
import { textsOfUpload } from "./recode.js";
import { FILE_TYPES, readFileBody } from "./request-bodies.js";
import { checkedByRoute, contents, errorBody, file, idParams, nothing, queried } from "./schemas.js";

const missing = { 404: errorBody.describe("There is no such picture") };
const unchanged = { 304: nothing.describe("What the reader has is what there is") };
const known = pictureEntry.describe("What is known of the picture");

const IMMUTABLE = "private, max-age=31536000, immutable";

export function addPictureRoutes({ app: untyped, gallery }: StudioParts): void {
  const app = untyped.withTypeProvider<ZodTypeProvider>();

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
          limit: queried(z.coerce.number().int().min(1).max(500).default(60)),
        }),
        response: {
          200: z.object({ pictures: z.array(pictureEntry), next: z.string().nullable() }).describe("Newest first"),
        },
      },
    },
    async ({ query: { q, model, favourite, cursor, limit, ...rest } }) =>
      gallery.list({
        q,
        model,
        cursor,
        limit,
        atLeast: leastTargets(rest),
        favourite: favourite === undefined ? undefined : favourite === "true",
      }),
  );

  app.get(
    "/api/pictures/:id",
    {
      schema: {
        summary: "What is known of a picture; with .png, .webp or .jpg its file",
        params: idParams,
        querystring: z.object({ quality: queried(z.coerce.number().int().min(0).max(100).optional()) }),
        response: {
          200: contents(
            { "application/json": pictureEntry, "image/png": file, "image/webp": file, "image/jpeg": file },
            "What is known of the picture, or its file",
          ),
          ...unchanged,
          ...missing,
        },
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
      const format = ending === "jpg" ? "jpeg" : (ending as ImageFormat);
      const bytes = format === "png" ? await gallery.bytes(name!) : await gallery.converted(name!, format, quality);
      return bytes === null ? noPicture(reply) : reply.type(`image/${format}`).send(bytes);
    },
  );

  app.get(
    "/api/pictures/:id/thumbnail",
    {
      schema: {
        summary: "A small WebP of a picture",
        params: idParams,
        response: { 200: contents({ "image/webp": file }, "The WebP"), ...unchanged, ...missing },
      },
    },
    async (request, reply) => {
      const { id: name } = request.params;
      if (gallery.get(name) === null) return noPicture(reply);
      if (isFresh(request, reply, `"${name}-thumbnail"`)) return reply.code(304).send();
      const bytes = await gallery.thumbnail(name);
      return bytes === null ? noPicture(reply) : reply.type("image/webp").send(bytes);
    },
  );

  app.get(
    "/api/pictures/:id/settings",
    {
      schema: {
        summary: "Everything that decides a picture",
        params: idParams,
        response: { 200: imageSettingsSchema.describe("The settings in its file"), ...missing },
      },
    },
    async ({ params: { id } }, reply) => (gallery.get(id) && (await gallery.settings(id))) ?? noPicture(reply),
  );

  app.patch(
    "/api/pictures/:id",
    {
      schema: {
        summary: "Make a picture a favourite, or none",
        params: idParams,
        body: z.strictObject({ favourite: z.boolean() }),
        response: { 200: known, ...missing },
      },
    },
    async ({ params, body }, reply) =>
      ((await gallery.setFavourite(params.id, body.favourite)) ? gallery.get(params.id) : null) ?? noPicture(reply),
  );

  app.delete(
    "/api/pictures/:id",
    {
      schema: {
        summary: "Move a picture to the trash",
        params: idParams,
        response: { 204: nothing, ...missing },
      },
    },
    async ({ params }, reply) => (gallery.remove(params.id) ? reply.code(204).send(null) : noPicture(reply)),
  );

  app.post(
    "/api/pictures/:id/restore",
    {
      schema: {
        summary: "Take a picture out of the trash",
        params: idParams,
        response: { 200: known, ...missing },
      },
    },
    async ({ params }, reply) => (gallery.restore(params.id) ? gallery.get(params.id) : null) ?? noPicture(reply),
  );

  app.get(
    "/api/sweeps/:id/:file",
    {
      schema: {
        summary: "The labelled sheet of a sweep (sheet.png), or its settings and scores (sweep.json)",
        params: z.object({ id: z.string().max(64), file: z.enum(["sheet.png", "sweep.json"]) }),
        response: {
          200: contents({ "image/png": file, "application/json": z.looseObject({}) }, "The file"),
          ...missing,
        },
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

  app.post(
    "/api/inspect",
    {
      schema: {
        summary: "The settings in a picture file (multipart/form-data, or the file as the body)",
        body: contents({
          "multipart/form-data": z.object({ image: file }),
          ...Object.fromEntries(FILE_TYPES.map((type) => [type, file])),
        }),
        response: {
          200: z
            .object({ settings: z.record(z.string(), z.unknown()).nullable(), parameters: z.string().nullable() })
            .describe("The settings of this program, and the lines that others read"),
          422: errorBody.describe("The picture holds no settings"),
        },
      },
      validatorCompiler: checkedByRoute,
    },
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
}

function noPicture(reply: FastifyReply): FastifyReply {
  // What was said of the picture that was to be sent.
  for (const name of ["etag", "content-disposition"]) reply.removeHeader(name);
  return reply
    .code(404)
    .header("cache-control", "no-store")
    .send({ error: { message: "there is no such picture" } });
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
  if (size < 0) return noPicture(reply);
  return reply.type("image/png").header("content-length", size).send(createReadStream(path));
}

/** `reward.KEY>` of a query that was `reward.KEY>=VALUE`. @throws InvalidInputError for another comparison */
function leastTargets(query: Record<string, unknown>): Record<string, number> {
  const targets: Record<string, number> = {};
  for (const [name, value] of Object.entries(query)) {
    if (!name.startsWith("reward.")) continue;
    const key = /^reward\.(\w{1,64})>?$/.exec(name)?.[1];
    if (key === undefined) throw invalid("reward", "a least target, reward.KEY>=VALUE", name);
    const least = typeof value === "string" && value.trim() !== "" ? Number(value) : Number.NaN;
    if (!Number.isFinite(least)) throw invalid(name, "a number", value);
    targets[key] = least;
  }
  return targets;
}
