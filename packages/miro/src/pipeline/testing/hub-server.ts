/**
 * A small server that speaks the Hub's protocol, for tests: repository information, path information, files with ranges,
 * large files behind a redirect to another host, access by token, and connections that break.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One repository: its commit and its files. */
export interface TestRepository {
  sha: string;
  files: Record<string, Buffer>;
  /** Token without which it answers 401. */
  token?: string;
}

/** What a request was. */
export interface Seen {
  method: string;
  path: string;
  authorization: string | undefined;
  range: string | undefined;
}

/** Files of at least this size are large files: named by SHA-256 and sent from elsewhere. */
const LARGE = 1000;

export class HubServer {
  readonly requests: Seen[] = [];
  /** Contents are cut after so many bytes, once for each entry. */
  readonly cutAfter: number[] = [];
  /** Answers with these statuses, once for each entry, before anything else. */
  readonly failWith: number[] = [];
  /** Sends this instead of a large file's contents. */
  corrupt: Buffer | null = null;
  #server: Server | null = null;
  #port = 0;

  constructor(readonly repositories: Record<string, TestRepository>) {}

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => this.#answer(request, response));
    await new Promise<void>((resolve) => this.#server!.listen(0, "127.0.0.1", resolve));
    this.#port = (this.#server!.address() as AddressInfo).port;
    return this;
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve) ?? resolve(null));
  }

  /** Requests for contents. */
  get downloads(): Seen[] {
    return this.requests.filter(({ path }) => path.includes("/resolve/") || path.startsWith("/large/"));
  }

  #answer(request: IncomingMessage, response: ServerResponse): unknown {
    const url = new URL(request.url!, "http://x");
    const path = decodeURIComponent(url.pathname);
    const { authorization, range } = request.headers;
    this.requests.push({ method: request.method!, path, authorization, range });
    const failure = this.failWith.shift();
    if (failure !== undefined) return this.#json(response, failure, { error: "not now" });
    const large = /^\/large\/([0-9a-f]{64})$/.exec(path);
    if (large) {
      const file = Object.values(this.repositories)
        .flatMap((repository) => Object.values(repository.files))
        .find((body) => sha256(body) === large[1]);
      return file ? this.#send(request, response, this.corrupt ?? file) : this.#json(response, 404, {});
    }
    const match = /^\/(?:api\/models\/)?([^/]+\/[^/]+)\/(revision|paths-info|resolve)\/([^/]+)(?:\/(.+))?$/.exec(path);
    const repository = match && this.repositories[match[1]!];
    if (!match || !repository) return this.#json(response, 404, { error: "Repository not found" });
    if (repository.token && authorization !== `Bearer ${repository.token}`) {
      return this.#json(response, 401, { error: "Invalid username or password." });
    }
    const [, name, action, revision, file] = match as unknown as [string, string, string, string, string];
    if (revision !== "main" && revision !== repository.sha)
      return this.#json(response, 404, { error: "Invalid rev id" });
    if (action === "revision") {
      const siblings = Object.keys(repository.files).map((rfilename) => ({ rfilename }));
      return this.#json(response, 200, {
        _id: "1",
        id: name,
        sha: repository.sha,
        siblings,
        private: false,
        gated: false,
      });
    }
    if (action === "paths-info") {
      let body = "";
      request.on("data", (part) => {
        body += part;
      });
      request.on("end", () => {
        const { paths } = JSON.parse(body) as { paths: string[] };
        const found = paths.filter((wanted) => Object.hasOwn(repository.files, wanted));
        this.#json(
          response,
          200,
          found.map((wanted) => describe(wanted, repository.files[wanted]!)),
        );
      });
      return;
    }
    const body = repository.files[file];
    if (!body) return this.#json(response, 404, { error: "Entry not found" });
    if (body.length < LARGE) return this.#send(request, response, body);
    // Another host, as the Hub's storage is: the token must not travel there.
    response.writeHead(302, { Location: `http://localhost:${this.#port}/large/${sha256(body)}` }).end();
  }

  #send(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const part = body.subarray(start);
    const status = request.headers.range ? 206 : 200;
    response.writeHead(status, {
      "Content-Length": part.length,
      "Content-Range": `bytes ${start}-${body.length - 1}/${body.length}`,
      ETag: `"${sha256(body)}"`,
    });
    const cut = body.length >= LARGE ? this.cutAfter.shift() : undefined;
    if (cut === undefined) response.end(part);
    else response.write(part.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
  }

  #json(response: ServerResponse, status: number, body: unknown): void {
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  }
}

function describe(path: string, body: Buffer) {
  const oid = createHash("sha1").update(`blob ${body.length}\0`).update(body).digest("hex");
  const lfs = body.length < LARGE ? {} : { lfs: { oid: sha256(body), size: body.length, pointerSize: 130 } };
  return { type: "file", path, oid, size: body.length, ...lfs };
}

function sha256(body: Buffer): string {
  return createHash("sha256").update(body).digest("hex");
}
