/**
 * A release folder on the Hub: first a plan, file by file, by hash; then one commit of what differs. Large files go
 * where the Hub wants them (Xet, LFS), through `@huggingface/hub`. The commit names the revision that the plan was made
 * from, so that nobody's change is undone; until it, nothing is visible. Large files that an interrupted upload has
 * brought over are not sent again.
 */
import { createHash } from "node:crypto";
import { createReadStream, readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { CommitOperation } from "@huggingface/hub";
import type { Dispatcher, RequestInit } from "undici";
import { InvalidInputError, MiroError } from "../errors.js";
import { isFolder } from "../files/make-folder.js";
import { checkLinks } from "../pipeline/loading/hub-cache.js";
import {
  hubAuthorization,
  hubEndpoint,
  hubOffline,
  hubOrigins,
  metadataTimeoutMs,
  userAgent,
} from "../pipeline/loading/hub-environment.js";
import { delayAfter, notTheHub, pause, RETRY_DELAYS_MS } from "../pipeline/loading/hub-http.js";
import { openConnections, proxyFor } from "../pipeline/loading/hub-proxy.js";
import { refuseRun } from "./open-folder.js";

/** What happens to one file. */
export interface PlannedFile {
  /** In the repository. */
  path: string;
  action: "create" | "update" | "unchanged" | "delete";
  bytes: number;
  /** On this machine; null for a file that goes. */
  file: string | null;
}

/** What a publication will do. */
export interface PublicationPlan {
  repo: string;
  /** Whether the repository has still to be made. */
  creates: boolean;
  /** Revision that the plan was made from. */
  parent: string | null;
  /** What it will be, where it is there and is something else now. */
  becomes: "private" | "public" | null;
  files: PlannedFile[];
}

/** Options of {@link planPublication} and {@link publish}. */
export interface PublishOptions {
  repo: string;
  /** Folder within the repository. */
  variant?: string | undefined;
  /** Visibility; a repository that is there keeps its own unless this is given. A new one is private. */
  visibility?: "private" | "public" | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((what: string) => void) | undefined;
  /** Called with the bytes that were sent and those of all files, while files are sent. */
  onBytes?: ((done: number, all: number) => void) | undefined;
}

/** Weights of an earlier release in other files: readers would take them for those of this one. */
const WEIGHTS = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;

/** Compares a folder with what the Hub has. @throws MiroError naming what the Hub refuses */
export async function planPublication(folder: string, options: PublishOptions): Promise<PublicationPlan> {
  const { repo, variant, signal } = options;
  const offline = hubOffline();
  if (offline !== null) throw new InvalidInputError(`${offline} is set: nothing can be published`);
  const prefix = variant === undefined ? "" : `${variant}/`;
  refuseRun(folder);
  const local = filesOf(folder);
  const state = await stateOf(repo, signal);
  const remote = new Set(state?.siblings ?? []);
  const both = local.map((name) => prefix + name).filter((path) => remote.has(path));
  const known = state === null || both.length === 0 ? new Map() : await hashesOf(repo, state.sha, both, signal);
  const files: PlannedFile[] = [];
  for (const name of local) {
    const [path, file] = [prefix + name, join(folder, name)];
    const there = known.get(path) as RemoteFile | undefined;
    const action = there === undefined ? "create" : (await isSame(file, there, signal)) ? "unchanged" : "update";
    files.push({ path, action, bytes: statSync(file).size, file });
  }
  for (const path of remote) {
    const name = path.startsWith(prefix) ? path.slice(prefix.length) : "";
    if (WEIGHTS.test(name) && !local.includes(name)) files.push({ path, action: "delete", bytes: 0, file: null });
  }
  const { visibility = null } = options;
  const becomes = state !== null && (visibility === "private") !== state.private ? visibility : null;
  return { repo, creates: state === null, parent: state?.sha ?? null, becomes, files };
}

/**
 * Does what a plan says. A repository becomes private before files come, and public when all are there.
 * @returns the commit's address, null where no file differed
 */
export async function publish(plan: PublicationPlan, options: PublishOptions): Promise<string | null> {
  const { becomes } = plan;
  const become = (visibility: "private" | "public") =>
    request(plan.repo, "settings", {
      method: "PUT",
      body: { private: visibility === "private" },
      signal: options.signal,
      stage: visibility === "public" ? "upload" : "before",
    });
  if (becomes === "private") await become(becomes);
  const commit = await commitFiles(plan, options);
  if (becomes === "public") await become(becomes);
  return commit;
}

async function commitFiles(plan: PublicationPlan, options: PublishOptions): Promise<string | null> {
  const { commitIter, createRepo } = await import("@huggingface/hub");
  const { visibility, variant, signal, onProgress = () => {}, onBytes } = options;
  const repo = { type: "model" as const, name: plan.repo };
  const authorization = hubAuthorization();
  // For the storage's own tokens the library needs it; every request to the Hub has it from the fetch below.
  const token = /^Bearer (hf_.+)$/.exec(authorization ?? "")?.[1];
  const shared = {
    repo,
    hubUrl: hubEndpoint(),
    fetch: hubFetch(signal),
    ...(token !== undefined && { accessToken: token }),
  };
  if (authorization === undefined)
    throw new InvalidInputError(
      "publishing needs an access token that may write: set HF_TOKEN, or log in with hf auth login",
    );
  let { parent } = plan;
  if (plan.creates) {
    await refusals(plan.repo, "create", () =>
      createRepo({
        ...shared,
        fetch: hubFetch(signal, metadataTimeoutMs()),
        visibility: visibility ?? "private",
      } as Parameters<typeof createRepo>[0]),
    );
    parent = (await stateOf(plan.repo, signal))?.sha ?? null;
  }
  const operations = plan.files.flatMap(({ action, path, file }): CommitOperation[] =>
    action === "unchanged"
      ? []
      : file === null
        ? [{ operation: "delete", path }]
        : [{ operation: "addOrUpdate", path, content: pathToFileURL(file) }],
  );
  if (operations.length === 0) return null;
  return refusals(plan.repo, "upload", async () => {
    const work = commitIter({
      ...shared,
      title: `Upload ${variant ?? "main"} weights`,
      operations,
      ...(parent !== null && { parentCommit: parent }),
      ...(signal && { abortSignal: signal }),
    });
    const sizes = new Map(
      plan.files.flatMap(({ action, path, bytes }) => (action === "unchanged" ? [] : [[path, bytes]])),
    );
    const all = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
    const sent = new Map<string, number>();
    for (;;) {
      const { done, value } = await work.next();
      if (done) return value?.commit.url ?? null;
      if (value.event === "fileProgress" && value.state === "uploading") {
        sent.set(value.path, value.progress * (sizes.get(value.path) ?? 0));
        onBytes?.(
          [...sent.values()].reduce((sum, bytes) => sum + bytes, 0),
          all,
        );
      }
      if (value.event === "phase") onProgress(value.phase === "committing" ? "committing" : "uploading");
      else if (value.state === "uploading" && value.progress === 1) onProgress(`${value.path} is there`);
    }
  });
}

/**
 * Files of a release, by their names within it, those that links within it lead to as well; hidden ones are no part of
 * it.
 */
function filesOf(folder: string): string[] {
  const walk = (below: string, above: readonly string[]): string[] => {
    const place = join(folder, below);
    const real = realpathSync(place);
    if (above.includes(real)) throw new InvalidInputError(`${place}: is a link to a folder that it lies in`);
    return readdirSync(place).flatMap((entry) => {
      const name = below === "" ? entry : `${below}/${entry}`;
      if (entry.startsWith(".")) return [];
      const stat = statSync(join(folder, name), { throwIfNoEntry: false });
      if (stat === undefined) throw new InvalidInputError(`${join(folder, name)}: is a link to what is not there`);
      return stat.isDirectory() ? walk(name, [...above, real]) : stat.isFile() ? [name] : [];
    });
  };
  if (!isFolder(folder)) throw new InvalidInputError(`${folder}: no such folder`);
  const files = walk("", []).sort();
  checkLinks(folder, files, "folder");
  if (!files.some((name) => /(^|\/)config\.json$/.test(name)))
    throw new InvalidInputError(`${folder}: holds no release (config.json); miro convert makes one`);
  return files;
}

interface RepositoryState {
  sha: string;
  private: boolean;
  siblings: string[];
}

/** What a repository holds; null where there is none. */
async function stateOf(repo: string, signal?: AbortSignal): Promise<RepositoryState | null> {
  const json = await request(repo, "revision/main", { signal, orNull: true });
  if (json === null) return null;
  const {
    sha,
    siblings = [],
    private: isPrivate = false,
  } = json as { sha?: unknown; siblings?: { rfilename: string }[]; private?: boolean };
  if (typeof sha !== "string" || !Array.isArray(siblings)) throw notTheHub({ name: repo }, 200);
  return { sha, private: isPrivate, siblings: siblings.map(({ rfilename }) => rfilename) };
}

interface RemoteFile {
  path: string;
  oid: string;
  lfs?: { oid: string };
}

async function hashesOf(
  repo: string,
  revision: string,
  paths: readonly string[],
  signal?: AbortSignal,
): Promise<Map<string, RemoteFile>> {
  const json = await request(repo, `paths-info/${revision}`, { method: "POST", body: { paths }, signal });
  if (!Array.isArray(json)) throw notTheHub({ name: repo }, 200);
  return new Map((json as RemoteFile[]).map((file) => [file.path, file]));
}

/** A large file is known by the SHA-256 of its content, another one as git knows it. */
async function isSame(file: string, { oid, lfs }: RemoteFile, signal?: AbortSignal): Promise<boolean> {
  const hash = createHash(lfs === undefined ? "sha1" : "sha256");
  if (lfs === undefined) hash.update(`blob ${statSync(file).size}\0`);
  for await (const piece of createReadStream(file)) {
    signal?.throwIfAborted();
    hash.update(piece as Buffer);
  }
  return hash.digest("hex") === (lfs?.oid.replace(/^sha256:/, "") ?? oid);
}

async function request(
  repo: string,
  route: string,
  {
    method = "GET",
    body,
    signal,
    orNull = false,
    stage = "before",
  }: { method?: string; body?: object; signal?: AbortSignal | undefined; orNull?: boolean; stage?: Stage },
): Promise<unknown> {
  return refusals(repo, stage, async () => {
    const response = await hubFetch(signal, metadataTimeoutMs())(`${hubEndpoint()}/api/models/${repo}/${route}`, {
      method,
      headers: { "Content-Type": "application/json" },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (response.status === 404 && orNull) return null;
    // A repository that is not there, or not to be seen, answers so to who has no token.
    if (response.status === 401 && orNull && hubAuthorization() === undefined) return null;
    if (!response.ok) throw Object.assign(new Error(await response.text()), { statusCode: response.status });
    const text = await response.text();
    try {
      return JSON.parse(text);
    } catch {
      throw notTheHub({ name: repo }, response.status);
    }
  });
}

/**
 * How long a server may be silent. Before it answers, that includes the time that a piece of a large file, up to 64 MB,
 * takes on a slow line.
 */
const SILENCE = { headersTimeout: 1_800_000, bodyTimeout: 300_000 };

/** Connections that are open, straight or through proxies; idle ones keep no process. */
let connections: Dispatcher | null = null;

/**
 * A `fetch` by the proxy of the environment, that says who asks, to the Hub itself and to nobody else. What a busy
 * server turns away is sent again.
 * @param timeoutMs how long to wait for an answer; by default as long as {@link SILENCE} says
 */
function hubFetch(signal: AbortSignal | undefined, timeoutMs?: number): typeof fetch {
  return async (input, init = {}) => {
    const { fetch } = await import("undici");
    connections ??= await openConnections(SILENCE);
    const headers = new Headers(init.headers);
    const url = new URL(String(input));
    const authorization = hubOrigins().has(url.origin) ? hubAuthorization(url) : undefined;
    headers.set("User-Agent", userAgent());
    if (authorization !== undefined) headers.set("Authorization", authorization);
    for (let attempt = 0; ; attempt++) {
      const late = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs);
      const signals = [signal, init.signal, late].filter((one) => one !== null && one !== undefined);
      const response = await fetch(url, {
        ...init,
        headers: Object.fromEntries(headers),
        dispatcher: connections,
        ...(signals.length > 0 && { signal: AbortSignal.any(signals) }),
      } as RequestInit);
      // A commit that was answered with an error may have been made; one that was turned away was not.
      const isSafe = init.method !== "POST" || response.status === 429 || response.status === 503;
      const isKept = !(init.body instanceof ReadableStream);
      const delay = isSafe && isKept ? delayAfter(response, RETRY_DELAYS_MS[attempt]) : null;
      if (delay === null) return response as unknown as Response;
      await response.body?.cancel();
      await pause(delay, signal);
    }
  };
}

/** What to look at when the Hub cannot be reached. */
function whatToCheck(): string {
  const proxy = proxyFor(new URL(hubEndpoint()));
  if (proxy !== null) return `check ${proxy.variable}, the proxy ${proxy.address.origin}`;
  return process.env.HF_ENDPOINT
    ? "check the network and HF_ENDPOINT"
    : "check the network, or name a mirror with HF_ENDPOINT";
}

const AGAIN = "run the command again: large files that are there are not sent again";

/** Before anything is sent, while the repository is made, or later. */
type Stage = "before" | "create" | "upload";

/** Says in words what the Hub refuses. */
async function refusals<T>(repo: string, stage: Stage, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof MiroError || (error as Error).name === "AbortError") throw error;
    throw new MiroError(`${repo}: ${refusal(error as Error, stage)}`, { cause: error });
  }
}

function refusal(error: Error & { statusCode?: number }, stage: Stage): string {
  const { statusCode } = error;
  const said = error.message.split(/\. URL: |\n/)[0]!.slice(0, 200);
  if (statusCode === undefined) {
    const cause = error.cause as { code?: string; message?: string } | undefined;
    const isLate = error.name === "TimeoutError";
    const reason = isLate ? `no answer within ${metadataTimeoutMs() / 1000} s` : cause?.message || cause?.code || said;
    return stage === "upload"
      ? `the upload broke off (${reason}); ${AGAIN}`
      : `${hubEndpoint()} cannot be reached (${reason}), and nothing was uploaded; ${whatToCheck()}`;
  }
  if (statusCode === 401) return "the Hub does not know the access token; make one that may write, and set HF_TOKEN";
  if (statusCode === 403) return `the access token may not write there (${said})`;
  if (statusCode === 409 && stage === "create")
    return `the repository is there, but the access token does not see it (${said}); give the token access to it`;
  if (statusCode === 409 || statusCode === 412)
    return `the repository has changed since the plan was made (${said}); run the command again for a new plan`;
  return `the Hub answers ${statusCode} (${said}); ${AGAIN}`;
}
