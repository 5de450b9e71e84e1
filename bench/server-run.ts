/**
 * A small web server that draws in its own process, for `bench/server.ts`, which asks it: `node
 * bench/dist/server-run.js '{"folder": …, "worker": true, "threads": 1}'`. It prints its port.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type FromPretrainedOptions, MiroPipeline } from "miro-t2i";

export interface ServerRun {
  /** The model. */
  folder: string;
  /** In a thread of its own, or on the event loop. */
  worker: boolean;
  /** Processor threads of the computation. */
  threads: number;
}

/** What `/drawn` answers. */
export interface Drawn {
  /** Steps so far, of all pictures. */
  steps: number;
}

const { folder, worker, threads } = JSON.parse(process.argv[2]!) as ServerRun;
const load: FromPretrainedOptions = { threads, textEncoder: `${folder}/text_encoder`, vae: `${folder}/vae` };
const pipe = await MiroPipeline.fromPretrained(folder, { ...load, worker });
let steps = 0;

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url!, "http://localhost");
  if (pathname === "/ping") response.end("pong");
  else if (pathname === "/drawn") response.end(JSON.stringify({ steps } satisfies Drawn));
  else {
    const { images } = await pipe.generate("a fox", {
      seed: Number(searchParams.get("seed")),
      onStep: () => {
        steps++;
      },
    });
    response.setHeader("content-type", "image/png").end(await images[0]!.toBuffer());
  }
});
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
