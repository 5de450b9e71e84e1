/** Server-sent events of a job, from any place on, to readers of any speed. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { isEnd, type Job, type JobEvent, mayBeMissed } from "./job.js";
import { HEARTBEAT_MS } from "./limits.js";

/** A stream of events to one reader, whom the server does not wait for. */
export class EventStream {
  readonly #raw: FastifyReply["raw"];
  /** What a slow reader has not taken yet; nothing that may be missed. */
  #behind = false;
  readonly #heartbeat: NodeJS.Timeout;

  constructor(reply: FastifyReply, onClose: () => void) {
    reply.hijack();
    this.#raw = reply.raw;
    for (const [name, value] of Object.entries(reply.getHeaders()))
      if (value !== undefined) this.#raw.setHeader(name, value);
    this.#raw.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    this.#raw.flushHeaders();
    this.#raw.on("drain", () => {
      this.#behind = false;
    });
    this.#heartbeat = setInterval(() => this.#write(": alive\n\n"), HEARTBEAT_MS);
    this.#raw.on("error", () => {}); // the reader has gone
    this.#raw.on("close", () => {
      clearInterval(this.#heartbeat);
      onClose();
    });
  }

  /** @param mayBeMissed whether a reader who is behind may do without it */
  send(event: string, data: unknown, { id, mayBeMissed = false }: { id?: number; mayBeMissed?: boolean } = {}): void {
    if (mayBeMissed && this.#behind) return;
    const head = id === undefined ? "" : `id: ${id}\n`;
    this.#write(`${head}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  end(): void {
    clearInterval(this.#heartbeat);
    this.#raw.end();
  }

  #write(text: string): void {
    if (this.#raw.writableEnded || this.#raw.destroyed) return;
    if (!this.#raw.write(text)) this.#behind = true;
  }
}

/**
 * Streams a job's events, from after `Last-Event-ID` on, until its end. A reader who has heard the end is answered 204,
 * which tells browsers not to come again.
 */
export function streamJob(
  job: Job,
  request: FastifyRequest,
  reply: FastifyReply,
  onLastReader: () => void,
): FastifyReply {
  const given = Number(request.headers["last-event-id"] ?? 0);
  const last = Number.isSafeInteger(given) && given > 0 ? given : 0;
  if (job.isFinished && last >= job.lastEvent) return reply.code(204).send();
  let unlisten = () => {};
  const stream = new EventStream(reply, () => {
    unlisten();
    if (job.listeners === 0 && !job.isFinished) onLastReader();
  });
  const hear = (event: JobEvent) => {
    stream.send(event.event, event.data, { id: event.id, mayBeMissed: mayBeMissed(event) });
    if (isEnd(event)) stream.end();
  };
  unlisten = job.listen(hear, last);
  return reply;
}
