/**
 * A small web server that draws in its own process, for `bench/server.ts`, which asks it: `node
 * bench/dist/server-run.js '{"folder": …, "worker": true, "threads": 1, "steps": 6}'`. It prints its port, and ends
 * when its standard input does.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type FromPretrainedOptions, MiroPipeline } from "miro-t2i";

export interface ServerRun {
  /** The model. */
  folder: string;
  /** In a thread of its own, or on the event loop. */
  worker: boolean;
  /** Processor threads of the computation. */
  threads: number;
  /** Steps of a picture. */
  steps: number;
}

/** What `/drawn` answers. */
export interface Drawn {
  /** Steps so far, of all pictures. */
  steps: number;
  /** Pictures that were sent. */
  pictures: number;
}

const { folder, worker, threads, steps } = JSON.parse(process.argv[2]!) as ServerRun;
const load: FromPretrainedOptions = { threads, textEncoder: `${folder}/text_encoder`, vae: `${folder}/vae` };
const pipe = await MiroPipeline.fromPretrained(folder, { ...load, worker });
// The first picture reads the text encoder's files.
await pipe.generate("a fox", { steps: 1 });
const drawn: Drawn = { steps: 0, pictures: 0 };

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(request.url!, "http://localhost");
  if (pathname === "/ping") response.end("pong");
  else if (pathname === "/drawn") response.end(JSON.stringify(drawn));
  else {
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const onStep = () => {
      drawn.steps++;
    };
    const seed = Number(searchParams.get("seed"));
    const { images } = await pipe.generate("a fox", { seed, steps, onStep, signal: gone.signal });
    const bytes = await images[0]!.toBuffer();
    drawn.pictures++;
    response.setHeader("content-type", "image/png").end(bytes);
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch((error: Error) => response.writeHead(500).end(error.stack));
});
// Node ends connections that wait for long: with 408 and no body, or without a word. Where pictures are drawn on the
// event loop, that loop is what keeps them waiting, which is measured here.
Object.assign(server, { requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 });
process.stdin.on("end", () => process.exit()).resume();
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
