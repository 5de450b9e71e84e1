/** The studio's routes of jobs: asking for pictures and sweeps, states, events, cancelling. */
import type { FastifyReply } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { jobBody, workOf } from "./bodies.js";
import { streamJob } from "./event-stream.js";
import { JOB_STATUSES, Job, type JobView, type JobWork, jobView } from "./job.js";
import type { StudioParts } from "./parts.js";
import { readRequest } from "./request-bodies.js";
import { checkedByRoute, contents, errorBody, file, idParams, nothing, queried } from "./schemas.js";
import { sweepBody, sweepWorkOf } from "./sweeps.js";

const accepted = z
  .object({
    id: z.string(),
    status: z.enum(JOB_STATUSES),
    position: z.number().nullable(),
    links: z.object({ self: z.string(), events: z.string() }),
  })
  .describe("Accepted; the job's state is at links.self, and in the header Location");

/** Answers of routes that ask for pictures, and of those of a job. */
const asked = {
  202: accepted,
  400: errorBody.describe("A field is wrong"),
  404: errorBody.describe("There is no such model"),
  429: errorBody.describe("The queue is full; Retry-After says when to ask again"),
};
const unknown = {
  404: errorBody.describe("There is no such job"),
  410: errorBody.describe("The job is no longer known"),
};

/** What a request may call itself. */
const requestKey = z.string().regex(/^[\w.:-]{1,100}$/, "expected 1 to 100 letters, digits or _ . : -");

export function addJobRoutes(studio: StudioParts): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const { queue } = studio;

  app.post(
    "/api/jobs",
    {
      schema: {
        summary: "Ask for pictures",
        description:
          "JSON, or multipart/form-data with the JSON as `request` and files as `image` and `mask`. A request that " +
          "is sent again with the same Idempotency-Key is answered with its first job.",
        headers: z.looseObject({ "idempotency-key": requestKey.optional() }),
        body: contents({
          "application/json": jobBody,
          "multipart/form-data": z.object({ request: z.string(), image: file.optional(), mask: file.optional() }),
        }),
        response: asked,
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
        response: asked,
      },
      validatorCompiler: checkedByRoute,
    },
    async ({ body }, reply) => accept(sweepWorkOf(body, studio.workContext), reply),
  );

  app.get(
    "/api/jobs",
    {
      schema: {
        summary: "Jobs, newest first",
        querystring: z.object({
          status: z.enum(JOB_STATUSES).optional(),
          limit: queried(z.coerce.number().int().min(1).max(200).default(50)),
          cursor: z
            .string()
            .regex(/^job-[0-9a-z]{8,40}$/, "expected the next of a page before")
            .optional(),
          requestKey: requestKey.optional(),
        }),
        response: {
          200: z.object({ jobs: z.array(jobView), next: z.string().nullable() }).describe("Jobs, newest first"),
        },
      },
    },
    async ({ query: { status, limit, cursor, requestKey: key } }) => {
      // Its job may be in another state by now; once it is forgotten, so are those before it.
      const all = queue.list(key);
      const place = cursor === undefined ? -1 : all.findIndex((job) => job.id === cursor);
      const older = cursor !== undefined && place < 0 ? [] : all.slice(place + 1);
      const asked = older.filter((job) => status === undefined || job.status === status);
      const page = asked.slice(0, limit);
      return { jobs: page.map((job) => queue.view(job)), next: asked.length > limit ? page.at(-1)!.id : null };
    },
  );

  app.get(
    "/api/jobs/:id",
    {
      schema: {
        summary: "A job's state",
        params: idParams,
        response: { 200: jobView.describe("The job"), ...unknown },
      },
    },
    async ({ params }, reply) => {
      const found = findJob(params.id, reply);
      if (found === null) return reply;
      return found instanceof Job ? queue.view(found) : found;
    },
  );

  app.get(
    "/api/jobs/:id/events",
    {
      schema: {
        summary: "A job's events as they happen (server-sent events); Last-Event-ID goes on",
        params: idParams,
        headers: z.looseObject({ "last-event-id": z.string().optional() }),
        response: {
          200: contents({ "text/event-stream": z.string() }, "Events until the job's end"),
          204: nothing.describe("The end has been heard: do not ask again"),
          ...unknown,
        },
      },
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

  app.delete(
    "/api/jobs/:id",
    {
      schema: {
        summary: "Cancel a job",
        params: idParams,
        response: { 204: nothing, ...unknown },
      },
    },
    async ({ params }, reply) => {
      const found = findJob(params.id, reply);
      if (found === null) return reply;
      if (found instanceof Job) queue.cancel(found);
      return reply.code(204).send(null);
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
