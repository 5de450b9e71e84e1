/** The studio's server: its parts, and their beginning and end. It holds no logic of drawing. */
import { existsSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import multipart from "@fastify/multipart";
import fastifyStatic from "@fastify/static";
import swagger from "@fastify/swagger";
import fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { serializerCompiler } from "fastify-type-provider-zod";
import type { z } from "zod";
import { invalid, MiroError, systemReason } from "../../errors.js";
import { isLoopback } from "../../loopback.js";
import { message, option } from "../../message.js";
import { parseOptions } from "../../options.js";
import { version } from "../../version.js";
import { type WorkContext, workOf } from "./bodies.js";
import { addDocsPage } from "./docs-page.js";
import { Engine } from "./engine.js";
import { Gallery } from "./gallery.js";
import type { Job, JobWork } from "./job.js";
import { addJobRoutes } from "./job-routes.js";
import { CLOSE_MS, MAX_JSON_BYTES, MAX_UPLOAD_BYTES, REQUEST_MS, SEND_ON_MS } from "./limits.js";
import { Metrics } from "./metrics.js";
import { addOpenaiRoutes } from "./openai-routes.js";
import { type StudioOptions, studioSchema } from "./options.js";
import type { StudioParts } from "./parts.js";
import { addPictureRoutes } from "./picture-routes.js";
import { JobQueue } from "./queue.js";
import { refusalOf, refuseConnection, shown, statusOf } from "./refusals.js";
import { FILE_TYPES, RefusedBody } from "./request-bodies.js";
import { checkedBySchema, documentTransform, schemaTransform, takesForms } from "./schemas.js";
import { checkKey, guard } from "./security.js";
import { addServerRoutes } from "./server-routes.js";
import { addWebuiRoutes } from "./webui-routes.js";

/** What {@link Studio.start} was asked for, defaults filled in. */
type Settings = z.output<typeof studioSchema>;

export class Studio implements StudioParts {
  readonly app: FastifyInstance;
  readonly options: Settings;
  readonly engine: Engine;
  readonly gallery: Gallery;
  readonly queue: JobQueue;
  readonly metrics: Metrics;
  readonly #end = new AbortController();

  private constructor(options: Settings, engine: Engine, gallery: Gallery) {
    this.options = options;
    this.engine = engine;
    this.gallery = gallery;
    this.metrics = new Metrics(() => this.queue);
    this.queue = new JobQueue(engine, gallery, options.queue, this.metrics);
    this.app = fastify({
      bodyLimit: MAX_JSON_BYTES,
      requestTimeout: REQUEST_MS,
      // Of use for addresses in answers alone: what a client makes up of itself misleads only itself.
      trustProxy: true,
      forceCloseConnections: true,
      routerOptions: { maxParamLength: 200 },
      // Errors from before a route is found, such as an address that is none.
      frameworkErrors: (error, request, reply) => this.#refuse(error, request, reply),
      clientErrorHandler: refuseConnection,
    });
  }

  /**
   * Starts a server.
   * @throws InvalidInputError for a wrong option and for options that contradict each other; MiroError where the port
   *   or the folder is taken
   */
  static async start(given: StudioOptions = {}): Promise<Studio> {
    const { host, ...rest } = parseOptions(studioSchema, given);
    // As addresses of IPv6 stand in a URL.
    const options = { ...rest, host: host.replace(/^\[(.*)\]$/, "$1") };
    if (options.key !== undefined) checkKey(options.key, "key");
    if (!isLoopback(options.host) && options.key === undefined && !options.insecure)
      throw invalid(
        "host",
        message`an address of this machine alone; others need ${option("key")} or ${option("insecure", true)}`,
        options.host,
      );
    const engine = await Engine.open(options);
    const gallery = await Gallery.open(options.output, {
      signal: options.signal,
      onWait: ({ text }) =>
        process.stderr.write(`${options.output}: waiting for a sign of life of ${text}, which served these pictures\n`),
    });
    const studio = new Studio(options, engine, gallery);
    try {
      await studio.#build();
      await studio.app.listen({ host: options.host, port: options.port });
      options.signal?.throwIfAborted();
    } catch (error) {
      await studio.close();
      throw listenError(error as NodeJS.ErrnoException, options);
    }
    gallery.repair(studio.#end.signal).catch((error: Error) => {
      if (!studio.#end.signal.aborted)
        process.stderr.write(`warning: the gallery may miss pictures of ${options.output}: ${error.message}\n`);
    });
    const [only, ...others] = engine.cards;
    if (others.length === 0) studio.#warm(only!.id);
    return studio;
  }

  /** Loads a model that will be used in any case; jobs tell again what goes wrong with it. */
  #warm(id: string): void {
    const warm = async () => {
      await this.engine.warm(id);
      await workOf({ prompt: "a picture" }, {}, this.workContext); // what the first request would compile
    };
    warm().catch((error: Error) => {
      if (!this.#end.signal.aborted) process.stderr.write(`warning: ${id} could not be loaded: ${error.message}\n`);
    });
  }

  /** Where the server listens. */
  get url(): string {
    const { address, family, port } = this.app.server.address() as AddressInfo;
    return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  }

  get workContext(): WorkContext {
    return { engine: this.engine, gallery: this.gallery, maxImages: this.options.maxImages };
  }

  submit(work: JobWork, requestKey?: string): Job {
    return this.queue.submit(work, requestKey);
  }

  /** Ends: no new jobs, what runs is cancelled within a step, streams get their last event. */
  async close(): Promise<void> {
    this.#end.abort();
    const late = new Promise<void>((resolve) => setTimeout(resolve, CLOSE_MS).unref());
    await Promise.race([this.queue.close(), late]);
    await Promise.race([this.app.close(), late]);
    await this.engine.close();
    this.gallery.close();
  }

  #refuse(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const told = readable(error, request);
    const status = statusOf(told, request.url);
    if (status === 429 || status === 503) reply.header("retry-after", "2");
    if (status === 413) letSend(request, reply);
    // What a route said of the picture that it meant to send holds for no refusal.
    for (const name of ["etag", "content-type", "content-length", "content-disposition"]) reply.removeHeader(name);
    reply.header("cache-control", "no-store");
    if (status === 500) {
      const said = error instanceof MiroError ? error.message : error.stack;
      process.stderr.write(`error: ${request.method} ${request.url.split("?", 1)[0]}: ${said}\n`);
    }
    return reply.code(status).send(refusalOf(request.url, status, shown(status, told)));
  }

  async #build(): Promise<void> {
    const { app } = this;
    app.setValidatorCompiler(checkedBySchema);
    app.setSerializerCompiler(serializerCompiler);
    const page = pageFolder();
    guard(app, this.options, isPage);
    await app.register(multipart, { limits: { fileSize: MAX_UPLOAD_BYTES, files: 4, fields: 64 } });
    await app.register(swagger, {
      openapi: {
        openapi: "3.1.0",
        info: {
          title: "MIRO studio",
          version: version(),
          description: "Pictures by request: jobs, events, gallery.",
          license: { name: "MIT", identifier: "MIT" },
        },
        ...(this.options.key === undefined
          ? { security: [] }
          : { security: [{ key: [] }], components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } } }),
      },
      transform: schemaTransform,
      transformObject: documentTransform,
    });
    const parseJson = app.getDefaultJsonParser("error", "error");
    // Clients name the type of every request, also where they have nothing to send.
    app.addContentTypeParser<string>("application/json", { parseAs: "string" }, (request, body, done) =>
      body === "" ? done(null) : parseJson(request, body, done),
    );
    // What `fetch` names the type of a text, where its caller names none.
    app.removeContentTypeParser("text/plain");
    app.addContentTypeParser<string>("text/plain", { parseAs: "string" }, (request, body, done) =>
      done(body === "" ? null : anotherType(request)),
    );
    for (const type of FILE_TYPES)
      app.addContentTypeParser(type, { parseAs: "buffer", bodyLimit: MAX_UPLOAD_BYTES }, (_, body, done) =>
        done(null, body),
      );
    app.addHook("preValidation", async (request) => {
      const { body } = request.routeOptions.schema ?? {};
      // Other routes would find no body at all.
      if (body && request.isMultipart() && !takesForms(body)) throw anotherType(request);
    });
    app.setErrorHandler((error: FastifyError, request, reply) => this.#refuse(error, request, reply));
    app.setNotFoundHandler((request, reply) => {
      const missing = new MiroError(`there is no ${request.method} ${request.url.split("?", 1)[0]}`);
      return reply.code(404).send(refusalOf(request.url, 404, missing));
    });
    // The name of an asset changes with what it holds; the page that names them is asked for each time.
    const setHeaders = (reply: { setHeader(name: string, value: string): unknown }, path: string) =>
      void reply.setHeader(
        "cache-control",
        dirname(path) === `${page}/assets` ? "public, max-age=31536000, immutable" : "no-cache",
      );
    if (page !== null) await app.register(fastifyStatic, { root: page, cacheControl: false, setHeaders });
    else
      process.stderr.write("warning: the page is not built, and only programs can ask; npm run build:web builds it\n");
    for (const add of [addServerRoutes, addJobRoutes, addPictureRoutes, addOpenaiRoutes, addWebuiRoutes])
      await app.register(async () => add(this));
    addDocsPage(app);
    app.get("/openapi.json", { schema: { hide: true } }, async () => app.swagger());
    await app.ready();

    function isPage(path: string): boolean {
      return path === "/" || path === "/index.html" || path === "/favicon.svg" || /^\/assets\/[\w.-]+$/.test(path);
    }
  }
}

/** Why the server cannot listen, for people. */
function listenError(error: NodeJS.ErrnoException, { host, port }: Settings): Error {
  if (error.code === "EADDRINUSE")
    return new MiroError(message`port ${port} of ${host} is taken; choose another ${option("port")}`, { cause: error });
  if (error.syscall === "getaddrinfo" || error.code === "EADDRNOTAVAIL")
    return invalid("host", "an address of this machine", host);
  if (error.syscall !== "listen") return error;
  const reason = systemReason(error);
  return new MiroError(message`port ${port} of ${host} cannot be had: ${reason}; choose another ${option("port")}`, {
    cause: error,
  });
}

/** Lets a client send on what nobody reads: it would not hear why over a connection that is closed meanwhile. */
function letSend({ raw }: FastifyRequest, reply: FastifyReply): void {
  reply.removeHeader("connection");
  if (raw.complete) return;
  const tooLong = setTimeout(() => raw.destroy(), SEND_ON_MS).unref();
  raw.once("close", () => clearTimeout(tooLong));
}

/** What fastify says of a body that it does not read, as an error of ours. */
function readable(error: FastifyError, request: FastifyRequest): Error {
  const { url, headers, routeOptions } = request;
  if (error.code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    const [type = ""] = headers["content-type"]?.toLowerCase().split(";", 1) ?? [];
    const most =
      (FILE_TYPES.includes(type.trim()) ? MAX_UPLOAD_BYTES : (routeOptions.bodyLimit ?? MAX_JSON_BYTES)) / 2 ** 20;
    const otherwise = url.startsWith("/api/jobs") ? "; pictures can be files of a form (multipart/form-data)" : "";
    return new RefusedBody(`the body is too large: it holds more than ${most} MiB${otherwise}`, 413);
  }
  const encoding = headers["content-encoding"]?.slice(0, 100);
  if (error.code === "FST_ERR_CTP_INVALID_JSON_BODY")
    return encoding === undefined
      ? invalid("body", "JSON", message`another text`)
      : new RefusedBody(`the body's content-encoding: expected none, received ${encoding}`, 415);
  return error.code === "FST_ERR_CTP_INVALID_MEDIA_TYPE" ? anotherType(request) : error;
}

function anotherType({ headers }: FastifyRequest): RefusedBody {
  const given = (headers["content-type"] ?? "no type").slice(0, 100);
  return new RefusedBody(`the body's content-type: expected application/json, received ${given}`, 415);
}

/** The built files of the page, where they are. */
function pageFolder(): string | null {
  for (const place of ["../../../web", "../web"]) {
    const folder = fileURLToPath(new URL(place, import.meta.url));
    if (existsSync(`${folder}/index.html`)) return folder;
  }
  return null;
}
