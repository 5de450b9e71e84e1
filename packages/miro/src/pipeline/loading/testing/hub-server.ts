/**
 * A small server that speaks the Hub's protocol, for tests: repository information, path information, files with
 * ranges, large files behind a redirect to another host, the headers of LFS and Xet storage, access by token, and
 * connections that break. Python's `huggingface_hub` downloads from it too (HF_ENDPOINT, HF_HUB_DISABLE_XET=1).
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";

/** One repository: its commit and its files. */
export interface TestRepository {
  sha: string;
  files: Record<string, Buffer>;
  /** Token without which it answers 401. */
  token?: string;
  /** Answers 403 as for a repository whose conditions have not been accepted. */
  gated?: boolean;
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
  /** Headers of those answers. */
  failureHeaders: Record<string, string> = {};
  /** Sends this instead of a large file's contents. */
  corrupt: Buffer | null = null;
  /** Sends large files itself, under this ETag, which is no hash: a mirror that is a web server of files. */
  plainEtag: string | null = null;
  /** Routes that a mirror does not know. */
  lacks: RegExp | null = null;
  /** Answers everything with this page, as networks do that ask to log in first. */
  portal: string | null = null;
  /** Takes requests and says nothing: to all, to those for large files, or after the first bytes of one. */
  stalls: "answers" | "storage" | "contents" | null = null;
  /** The storage, which is another server, answers with this status. */
  storageStatus: number | null = null;
  /** The storage compresses what it sends, though nobody asked for that. */
  compresses = false;
  /** The storage sends whole files whatever range is asked for. */
  ignoresRange = false;
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
    if (this.stalls === "answers") return;
    if (this.lacks?.test(path)) return this.#json(response, 404, {});
    if (this.portal !== null) return response.writeHead(200, { "Content-Type": "text/html" }).end(this.portal);
    const failure = this.failWith.shift();
    if (failure !== undefined) {
      for (const [name, value] of Object.entries(this.failureHeaders)) response.setHeader(name, value);
      return this.#json(response, failure, { error: "not now" });
    }
    const large = /^\/large\/([0-9a-f]{64})$/.exec(path);
    if (large) {
      if (this.stalls === "storage") return;
      if (this.storageStatus !== null) return response.writeHead(this.storageStatus).end();
      const file = Object.values(this.repositories)
        .flatMap((repository) => Object.values(repository.files))
        .find((body) => sha256(body) === large[1]);
      return file ? this.#send(request, response, this.corrupt ?? file) : this.#json(response, 404, {});
    }
    const match = /^\/(?:api\/models\/)?([^/]+\/[^/]+)\/(revision|paths-info|resolve)\/([^/]+)(?:\/(.+))?$/.exec(path);
    const repository = match && this.repositories[match[1]!];
    if (!match || !repository) return this.#refuse(response, 404, "RepoNotFound");
    if (repository.token && authorization !== `Bearer ${repository.token}`) {
      return this.#refuse(response, 401, "RepoNotFound");
    }
    if (repository.gated) return this.#refuse(response, 403, "GatedRepo");
    const [, name, action, revision, file] = match as unknown as [string, string, string, string, string];
    if (revision !== "main" && revision !== repository.sha) return this.#refuse(response, 404, "RevisionNotFound");
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
    response.setHeader("X-Repo-Commit", repository.sha);
    if (!body) return this.#refuse(response, 404, "EntryNotFound");
    if (this.plainEtag !== null) return this.#send(request, response, body, `"${this.plainEtag}"`);
    if (body.length < LARGE) return this.#send(request, response, body, `"${gitId(body)}"`);
    // Another host, as the Hub's storage is: the token must not travel there.
    response
      .writeHead(302, {
        Location: `http://localhost:${this.#port}/large/${sha256(body)}`,
        "X-Linked-Size": body.length,
        "X-Linked-ETag": `"${sha256(body)}"`,
        "X-Xet-Hash": sha256(body).split("").reverse().join(""),
        Link: `<${this.endpoint}/api/models/${name}/xet-read-token/${repository.sha}>; rel="xet-auth"`,
      })
      .end();
  }

  #send(request: IncomingMessage, response: ServerResponse, contents: Buffer, etag = `"${sha256(contents)}"`): void {
    const isCompressed = this.compresses && contents.length >= LARGE;
    const body = isCompressed ? gzipSync(contents) : contents;
    const range = this.ignoresRange ? undefined : /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
    const start = Number(range ?? 0);
    const part = body.subarray(start);
    response.writeHead(range === undefined ? 200 : 206, {
      "Content-Length": part.length,
      ...(range !== undefined && { "Content-Range": `bytes ${start}-${body.length - 1}/${body.length}` }),
      ...(isCompressed && { "Content-Encoding": "gzip" }),
      "Accept-Ranges": "bytes",
      ETag: etag,
    });
    if (request.method === "HEAD") return void response.end();
    const cut = body.length >= LARGE ? this.cutAfter.shift() : undefined;
    if (this.stalls === "contents" && body.length >= LARGE) {
      this.stalls = null;
      response.write(part.subarray(0, 1000));
    } else if (cut === undefined) response.end(part);
    else response.write(part.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
  }

  /** An error as the Hub words it for programs. */
  #refuse(response: ServerResponse, status: number, code: string): void {
    response.setHeader("X-Error-Code", code);
    this.#json(response, status, { error: code });
  }

  #json(response: ServerResponse, status: number, body: unknown): void {
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  }
}

function describe(path: string, body: Buffer) {
  if (body.length < LARGE) return { type: "file", path, oid: gitId(body), size: body.length };
  const pointer = Buffer.from(
    `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256(body)}\nsize ${body.length}\n`,
  );
  return {
    type: "file",
    path,
    oid: gitId(pointer),
    size: body.length,
    lfs: { oid: sha256(body), size: body.length, pointerSize: pointer.length },
    xetHash: sha256(body).split("").reverse().join(""),
  };
}

function gitId(body: Buffer): string {
  return createHash("sha1").update(`blob ${body.length}\0`).update(body).digest("hex");
}

function sha256(body: Buffer): string {
  return createHash("sha256").update(body).digest("hex");
}
