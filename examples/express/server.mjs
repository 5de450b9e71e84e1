// A picture for a prompt:
//   curl localhost:3000/pictures -H "content-type: application/json" -d '{"prompt": "a red apple"}' -o apple.png
import express from "express";
import { InvalidInputError, MiroPipeline } from "miro-t2i";

/** Requests that may wait for their picture; more are sent away. */
const MOST = 16;

const pipe = await MiroPipeline.fromPretrained(process.env.MODEL, { worker: true });
const app = express();
let open = 0;

app.get("/ping", (_request, response) => {
  response.send("pong");
});

app.post("/pictures", express.json(), async (request, response) => {
  // Only what strangers may choose: other options read files of this machine, or take long.
  const { prompt, seed, rewardTargets } = request.body ?? {};
  if (typeof prompt !== "string") throw new InvalidInputError("prompt: expected a text");
  if (open >= MOST) return response.status(503).set("Retry-After", "10").json({ error: "too many are waiting" });

  const gone = new AbortController(); // nobody waits for the picture any more
  response.on("close", () => gone.abort());
  open++;
  try {
    const { images } = await pipe.generate(prompt, { seed, rewardTargets, steps: 8, signal: gone.signal });
    response.type("png").send(await images[0].toBuffer());
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  } finally {
    open--;
  }
});

app.use((error, _request, response, next) => {
  if (error instanceof InvalidInputError) response.status(400).json({ error: error.message });
  else next(error);
});

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`http://localhost:${server.address().port}`);
});
// Pictures in progress are finished first.
process.once("SIGTERM", () => server.close(() => pipe.dispose()));
