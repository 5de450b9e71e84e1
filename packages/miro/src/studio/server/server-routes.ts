/** The studio's routes of the server itself: its health, its numbers, its models. */
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { samplersInThreads } from "../../flow/samplers/index.js";
import { BUNDLED_MODEL } from "../../pipeline/loading/bundled.js";
import { DEFAULT_SCORER, scorersInThreads } from "../../rewards/registry.js";
import { MAX_UPLOAD_BYTES } from "./limits.js";
import type { ModelCard } from "./model-card.js";
import type { StudioParts } from "./parts.js";
import { rewardStyle } from "./reward-styles.js";

/** Keys of the scorers that may choose among a model's pictures, first the one that suits it and needs no download. */
function scorersFor({ name }: ModelCard): string[] {
  const keys = scorersInThreads();
  const suited = [...(name === BUNDLED_MODEL ? [DEFAULT_SCORER] : []), "sharpness", "colorfulness"];
  return [...suited, ...keys.filter((key) => key !== DEFAULT_SCORER && !suited.includes(key))];
}

export function addServerRoutes(studio: StudioParts): void {
  const app = studio.app.withTypeProvider<ZodTypeProvider>();
  const { queue, engine } = studio;

  app.get(
    "/health",
    { schema: { summary: "Whether the server can draw, and how long its queue is; 503 once a GPU has failed" } },
    async (_, reply) => {
      const { failure } = engine;
      if (failure) reply.code(503);
      return {
        ...(failure ? { status: "failed", error: { message: failure.message } } : { status: "ok" }),
        queue: { waiting: queue.waiting, running: queue.running },
        uptimeSeconds: Math.round(process.uptime()),
      };
    },
  );

  app.get("/metrics", { schema: { summary: "Numbers of the server for Prometheus" } }, async (_, reply) => {
    const { registry } = studio.metrics;
    return reply.type(registry.contentType).send(await registry.metrics());
  });

  app.get("/api/models", { schema: { summary: "The models, with their rewards and limits" } }, async () =>
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
      examples: card.examples,
      limits: { images: studio.workContext.maxImages, steps: 100_000, uploadBytes: MAX_UPLOAD_BYTES },
      loaded: engine.isLoaded(card.id),
    })),
  );
}
