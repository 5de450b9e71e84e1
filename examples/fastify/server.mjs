// A picture for a prompt:
//   curl localhost:3000/pictures -H "content-type: application/json" -d '{"prompt": "a red apple"}' -o apple.png
import Fastify from "fastify";
import { InvalidInputError, MiroPipeline } from "miro-t2i";

/** Requests that may wait for their picture; more are sent away. */
const MOST = 16;

const pipe = await MiroPipeline.fromPretrained(process.env.MODEL, { worker: true });
const app = Fastify({ keepAliveTimeout: 5000 }); // connections that are kept open hold the end up for so long
let open = 0;

app.get("/ping", async () => "pong");

/** Only what strangers may choose: other options read files of this machine, or take long. */
const body = {
  type: "object",
  required: ["prompt"],
  additionalProperties: false,
  properties: {
    prompt: { type: "string", maxLength: 1000 },
    seed: { type: "integer", minimum: 0 },
    rewardTargets: { type: "object", additionalProperties: { type: "number" } },
  },
};

app.post("/pictures", { schema: { body } }, async (request, reply) => {
  if (open >= MOST) return reply.code(503).header("Retry-After", "10").send({ error: "too many are waiting" });
  const gone = new AbortController(); // nobody waits for the picture any more
  reply.raw.on("close", () => gone.abort());
  const { prompt, ...options } = request.body;
  open++;
  try {
    const { images } = await pipe.generate(prompt, { ...options, steps: 8, signal: gone.signal });
    return reply.type("image/png").send(await images[0].toBuffer());
  } finally {
    open--;
  }
});

app.setErrorHandler((error, _request, reply) => {
  const status = error instanceof InvalidInputError ? 400 : (error.statusCode ?? 500);
  return reply.code(status).send({ error: status < 500 ? error.message : "the picture could not be drawn" });
});

app.addHook("onClose", () => pipe.dispose());
console.log(await app.listen({ port: Number(process.env.PORT ?? 3000) }));
// Pictures in progress are finished first.
process.once("SIGTERM", () => app.close());
