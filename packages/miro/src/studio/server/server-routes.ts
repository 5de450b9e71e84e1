/** The studio's routes of the server itself: its health, its numbers, its models. */
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { samplersInThreads } from "../../flow/samplers/index.js";
import { BUNDLED_MODEL } from "../../pipeline/loading/bundled.js";
import { DEFAULT_SCORER, scorersInThreads } from "../../rewards/registry.js";
import { MAX_UPLOAD_BYTES } from "./limits.js";
import type { ModelCard } from "./model-card.js";
import type { StudioParts } from "./parts.js";
import { rewardStyle } from "./reward-styles.js";
import { contents, named } from "./schemas.js";

/** Keys of the scorers that may choose among a model's pictures, first the one that suits it and needs no download. */
function scorersFor({ name }: ModelCard): string[] {
  const keys = scorersInThreads();
  const suited = [...(name === BUNDLED_MODEL ? [DEFAULT_SCORER] : []), "sharpness", "colorfulness"];
  return [...suited, ...keys.filter((key) => key !== DEFAULT_SCORER && !suited.includes(key))];
}

const health = z.object({
  status: z.enum(["ok", "failed"]),
  error: z.object({ message: z.string() }).optional(),
  queue: z.object({ waiting: z.int(), running: z.int() }),
  uptimeSeconds: z.int(),
});

const modelEntry = named(
  "Model",
  z.object({
    id: z.string(),
    name: z.string(),
    license: z.string().nullable(),
    defaults: z.object({ steps: z.number(), guidanceScale: z.number(), shift: z.number() }),
    rewards: z.array(
      z.object({
        key: z.string(),
        label: z.string(),
        colour: z.string(),
        min: z.number(),
        max: z.number(),
        step: z.number(),
        default: z.number(),
        negativeDefault: z.number(),
      }),
    ),
    /** Width and height of its pictures. */
    size: z.tuple([z.number(), z.number()]),
    samplers: z.array(z.string()),
    scorers: z.array(z.string()),
    examples: z.array(z.string()),
    limits: z.object({ images: z.number(), steps: z.number(), uploadBytes: z.number() }),
    loaded: z.boolean(),
  }),
);

export function addServerRoutes(studio: StudioParts): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const { queue, engine } = studio;

  app.get(
    "/health",
    {
      schema: {
        summary: "Whether the server can draw, and how long its queue is; 503 once a GPU has failed",
        security: [],
        response: { 200: health, 503: health.describe("A GPU has failed") },
      },
    },
    async (_, reply) => {
      const { failure } = engine;
      return reply.code(failure ? 503 : 200).send({
        ...(failure ? { status: "failed", error: { message: failure.message } } : { status: "ok" }),
        queue: { waiting: queue.waiting, running: queue.running },
        uptimeSeconds: Math.round(process.uptime()),
      });
    },
  );

  const numbers = contents({ "text/plain": z.string() }, "Numbers by name");
  const described = { summary: "Numbers of the server for Prometheus", response: { 200: numbers } };
  app.get("/metrics", { schema: described }, async (_, reply) => {
    const { registry } = studio.metrics;
    return reply.type(registry.contentType).send(await registry.metrics());
  });

  const models = z.array(modelEntry).describe("The models, the first one first");
  const summary = "The models, with their rewards and limits";
  app.get("/api/models", { schema: { summary, response: { 200: models } } }, async () =>
    engine.cards.map((card) => ({
      id: card.id,
      name: card.name,
      license: card.license,
      defaults: card.defaults,
      rewards: card.coherenceKeys.map((key) => ({
        key,
        ...rewardStyle(key),
        min: 0,
        max: 1,
        step: 1 / 63,
        default: 1,
        negativeDefault: 0,
      })),
      size: card.size,
      samplers: samplersInThreads(),
      scorers: scorersFor(card),
      examples: [...card.examples],
      limits: { images: studio.workContext.maxImages, steps: 100_000, uploadBytes: MAX_UPLOAD_BYTES },
      loaded: engine.isLoaded(card.id),
    })),
  );
}
