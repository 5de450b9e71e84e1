/**
 * A Hub that takes uploads, for tests: it makes repositories, takes large files by LFS, and commits; what is asked
 * about repositories and files goes to the server of downloads, which has the same ones.
 */
import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { HubServer, type TestRepository } from "../../pipeline/loading/testing/hub-server.js";

/** Files of at least this size are large ones, as for the server of downloads. */
const LARGE = 1000;
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

export class UploadServer {
  readonly repositories: Record<string, TestRepository> = {};
  readonly downloads = new HubServer(this.repositories);
  /** Large files by hash. */
  readonly objects = new Map<string, Buffer>();
  /** Each request: method and path. */
  readonly requests: string[] = [];
  /** Who may write. */
  token = "hf_writer";
  /** The connection of a large file breaks before the file is whole, once another one is there. */
  breaks = false;
  /** The next request of each of these paths is turned away with this status. */
  readonly busy: [path: RegExp, status: number][] = [];
  /** Requests that are taken and never answered. */
  silent: RegExp | null = null;
  /** Answers this in place of what it knows of a repository. */
  answers: string | null = null;
  /** Another commit comes in before the next one. */
  interferes = false;
  readonly visibility: Record<string, boolean> = {};
  readonly #uploads = new EventEmitter();
  #server: Server | null = null;

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server!.address() as AddressInfo).port}`;
  }

  async start(): Promise<this> {
    await this.downloads.start();
    this.#server = createServer((request, response) => void this.#answer(request, response));
    await new Promise<void>((resolve) => this.#server!.listen(0, "127.0.0.1", resolve));
    return this;
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve));
    await this.downloads.stop();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, search } = new URL(request.url!, "http://x"); // whole where this is a proxy
    request.url = pathname + search;
    const path = decodeURIComponent(pathname);
    this.requests.push(`${request.method} ${path}`);
    if (this.silent?.test(path)) return;
    const busy = this.busy.findIndex(([one]) => one.test(path));
    if (busy >= 0) {
      const [[, status]] = this.busy.splice(busy, 1) as [[RegExp, number]];
      request.resume();
      return void response.writeHead(status, { "Retry-After": "0" }).end();
    }
    if (this.answers !== null) return void response.writeHead(200).end(this.answers);
    const json = (status: number, body: unknown) =>
      void response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    const object = /^\/object\/([0-9a-f]{64})$/.exec(path)?.[1];
    if (object !== undefined && this.breaks) {
      this.breaks = false;
      if (this.objects.size === 0) await once(this.#uploads, "stored");
      request.socket.destroy();
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    if (object !== undefined) {
      if (request.headers.authorization !== undefined) return json(400, { error: "the token travelled" });
      if (sha256(body) !== object) return json(400, { error: "another content" });
      this.objects.set(object, body);
      json(200, {});
      this.#uploads.emit("stored");
      return;
    }
    const isWrite = /^\/api\/repos\/create$|\/(preupload|commit|settings)|\.git\/info\/lfs/.test(path);
    if (!isWrite) return this.#forward(request, body, response);
    const { authorization } = request.headers;
    if (authorization !== `Bearer ${this.token}`)
      return json(authorization === "Bearer hf_reader" ? 403 : 401, { error: "no right to write" });
    if (path === "/api/repos/create") {
      const { name, organization, visibility } = JSON.parse(body.toString());
      this.repositories[`${organization}/${name}`] = { sha: "0".repeat(40), files: {} };
      this.visibility[`${organization}/${name}`] = visibility === "private";
      return json(200, { url: "", id: "" });
    }
    const name = /^\/(?:api\/models\/)?([^/]+\/[^/]+?)(\/|\.git\/)/.exec(path)![1]!;
    const repository = this.repositories[name]!;
    if (path.endsWith("/settings")) {
      this.visibility[name] = JSON.parse(body.toString()).private;
      return json(200, {});
    }
    if (path.includes("/preupload/")) {
      const { files } = JSON.parse(body.toString()) as { files: { path: string; size: number }[] };
      return json(200, {
        files: files.map(({ path, size }) => ({ path, uploadMode: size >= LARGE ? "lfs" : "regular" })),
      });
    }
    if (path.includes(".git/info/lfs")) {
      const { objects } = JSON.parse(body.toString()) as { objects: { oid: string; size: number }[] };
      // Another host: the token must not travel there.
      const href = (oid: string) => `${this.endpoint.replace("127.0.0.1", "localhost")}/object/${oid}`;
      return json(200, {
        transfer: "basic",
        objects: objects.map(({ oid, size }) =>
          this.objects.has(oid) ? { oid, size } : { oid, size, actions: { upload: { href: href(oid) } } },
        ),
      });
    }
    if (this.interferes) {
      this.interferes = false;
      repository.sha = "f".repeat(40);
    }
    const lines = body
      .toString()
      .split("\n")
      .map((line) => JSON.parse(line) as { key: string; value: never });
    const parent = (lines[0]!.value as { parentCommit?: string }).parentCommit;
    if (parent !== undefined && parent !== repository.sha)
      return json(412, { error: "A commit has happened since. Please refresh and try again." });
    for (const { key, value } of lines) {
      const { path, oid, content } = value as { path: string; oid: string; content: string };
      if (key === "lfsFile") repository.files[path] = this.objects.get(oid)!;
      if (key === "file") repository.files[path] = Buffer.from(content, "base64");
      if (key === "deletedFile") delete repository.files[path];
    }
    repository.sha = sha256(body).slice(0, 40);
    return json(200, { commitOid: repository.sha, commitUrl: `${this.endpoint}/${name}/commit/${repository.sha}` });
  }

  async #forward(request: IncomingMessage, body: Buffer, response: ServerResponse): Promise<void> {
    const answer = await fetch(`${this.downloads.endpoint}${request.url}`, {
      method: request.method!,
      headers: { "Content-Type": "application/json" },
      ...(request.method === "POST" && { body: new Uint8Array(body) }),
    });
    const json = (await answer.json()) as object;
    const name = /^\/api\/models\/([^/]+\/[^/]+)\/revision\//.exec(request.url!)?.[1];
    const seen = name === undefined || !answer.ok ? {} : { private: this.visibility[name] ?? false };
    response.writeHead(answer.status, { "Content-Type": "application/json" });
    response.end(JSON.stringify(Array.isArray(json) ? json : { ...json, ...seen }));
  }
}
