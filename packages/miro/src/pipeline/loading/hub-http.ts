/**
 * Requests to the Hub: with the token, through the proxy, within the time that the user allows, again when the Hub is
 * busy, and with what it refuses in words.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Dispatcher, Response as UndiciResponse } from "undici";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { about, message } from "../../message.js";
import { oneLine } from "../../printable.js";
import {
  downloadTimeoutMs,
  hubAuthorization,
  hubEndpoint,
  hubOrigins,
  metadataTimeoutMs,
  userAgent,
} from "./hub-environment.js";
import { openConnections, proxyFor } from "./hub-proxy.js";
import { folderHint, type Repository } from "./hub-repository.js";

/** Waits between attempts unless the caller asks for others. */
export const RETRY_DELAYS_MS: readonly number[] = [500, 2_000, 8_000];

/** What a busy server asks for is told from here on. */
const LONG_WAIT_MS = 5_000;

/** The statuses of trouble that passes. */
const PASSING = new Set([408, 429, 500, 502, 503, 504]);
const MAX_REDIRECTS = 20;
/** Characters of the Hub's words that an error repeats. */
const MAX_QUOTED = 300;
/** The list of a repository with a hundred thousand files takes a tenth of this. */
const MAX_METADATA_BYTES = 64 * 2 ** 20;

/** There was no answer. */
export class Unreachable extends MiroError {
  override name = "MiroError";

  /** @param reason why, in words */
  constructor(
    server: string,
    reason: string,
    /** Whether another attempt is worth its time. */
    readonly passes: boolean,
    options?: ErrorOptions,
  ) {
    super(`${server} cannot be reached (${reason})`, options);
  }
}

/** Answers that errors stand for: their status, and what the Hub calls them for programs. */
const answers = new WeakMap<Error, { status: number; code: string | null }>();

/** Whether an earlier download will do, as in Python: unless the Hub knows the repository but not the revision. */
export function cacheMayHelp(error: unknown): error is MiroError {
  const answer = answers.get(error as Error);
  return (
    error instanceof Unreachable || (answer !== undefined && !/^(Revision|Entry)NotFound$/.test(answer.code ?? ""))
  );
}

/** Whether a mirror does not have what was asked at all: it refuses, and not in the Hub's words. */
export function routeIsMissing(error: unknown): boolean {
  const answer = answers.get(error as Error);
  if (answer === undefined || answer.code !== null) return false;
  // Something else than JSON came, or a refusal that is neither about who asks nor one that passes.
  return answer.status < 400 || (!PASSING.has(answer.status) && answer.status !== 401 && answer.status !== 407);
}

/** A `fetch` for the Hub's descriptions, which are JSON. It answers in time or throws. */
export function hubMetadata(repository: Repository, delaysMs: readonly number[]): typeof fetch {
  return async (input, init = {}) => {
    const given = Object.fromEntries(new Headers(init.headers));
    return retried(repository, delaysMs, async (attempt) => {
      const request = { method: init.method ?? "GET", headers: given, body: init.body as string | undefined };
      const response = await send(repository, String(input), request, attempt);
      if (!response.ok) return response;
      const text = await wholeText(repository, response);
      return new Response(text, { status: response.status, headers: { "Content-Type": "application/json" } });
    });
  };
}

/**
 * What is said about a file without its contents: the headers of the Hub's own answer, which may lead to a storage
 * elsewhere.
 */
export async function hubHead(
  repository: Repository,
  url: string,
  path: string,
): Promise<{ status: number; headers: Headers }> {
  const request = { method: "HEAD", headers: { "Accept-Encoding": "identity" } };
  const response = await retried(
    repository,
    retryDelays(repository),
    (attempt) => send(repository, url, request, attempt, { stopAtStorage: true }),
    path,
  );
  return { status: response.status, headers: new Headers([...response.headers]) };
}

/**
 * A file's contents from `start` on. Reading ends with an error when nothing comes for too long.
 * @returns also where they come from, after redirects
 */
export async function hubContents(
  repository: Repository,
  url: string,
  path: string,
  start: number,
): Promise<{ status: number; headers: Headers; url: URL; body: AsyncIterable<Uint8Array> }> {
  const range: Record<string, string> = start > 0 ? { Range: `bytes=${start}-` } : {};
  const headers = { ...range, "Accept-Encoding": "identity" };
  const timeoutMs = downloadTimeoutMs();
  let stop = new AbortController();
  const response = await retried(
    repository,
    retryDelays(repository),
    (attempt) => {
      stop = attempt.stop;
      return send(repository, url, { headers }, attempt);
    },
    path,
    timeoutMs,
  );
  const { status } = response;
  const body = arriving(response, timeoutMs, stop, repository.options.signal);
  return { status, headers: new Headers([...response.headers]), url: new URL(response.url), body };
}

async function* arriving(
  response: UndiciResponse,
  timeoutMs: number,
  stop: AbortController,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  const end = () => stop.abort(signal!.reason);
  signal?.addEventListener("abort", end, { once: true });
  try {
    for (;;) {
      // Only the wait for the server counts, not the time that the disk takes.
      const timer = setTimeout(() => stop.abort(new Error(`nothing came for ${timeoutMs / 1000} s`)), timeoutMs);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      yield value as Uint8Array;
    }
  } finally {
    signal?.removeEventListener("abort", end);
    await reader.cancel().catch(() => {});
  }
}

export function retryDelays({ options }: Repository): readonly number[] {
  return options.retryDelaysMs ?? RETRY_DELAYS_MS;
}

/** What is looked at of any answer. */
type Answer = Pick<Response, "status" | "url"> & { headers: { get(name: string): string | null } };

/** One attempt at a request. */
interface Attempt {
  stop: AbortController;
  /** The server that is asked, after the redirects so far. */
  origin: string;
}

/** Sends a request again while the trouble is one that passes; what the Hub refuses is thrown as an error. */
async function retried<T extends Answer>(
  repository: Repository,
  delaysMs: readonly number[],
  attempt: (attempt: Attempt) => Promise<T>,
  path?: string,
  timeoutMs = metadataTimeoutMs(),
): Promise<T> {
  const { signal, onMessage } = repository.options;
  let timeouts = 0;
  for (let attempts = 0; ; attempts++) {
    let delay = delaysMs[attempts];
    signal?.throwIfAborted();
    const stop = new AbortController();
    const now: Attempt = { stop, origin: repository.elsewhere ?? hubEndpoint() };
    const end = () => stop.abort(signal!.reason);
    signal?.addEventListener("abort", end, { once: true });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      stop.abort();
    }, timeoutMs);
    try {
      const response = await attempt(now);
      if (response.status < 400 || response.status === 416) return response;
      const wait = delayAfter(response, delay);
      if (wait === null) throw httpError(repository, response, path);
      delay = wait;
      if (wait >= LONG_WAIT_MS) {
        const seconds = Math.round(wait / 1000);
        onMessage?.(`${now.origin} is busy (HTTP status ${response.status}); the next attempt is in ${seconds} s`);
      }
    } catch (error) {
      if (signal?.aborted || (error instanceof MiroError && !(error instanceof Unreachable))) throw error;
      if (late) {
        timeouts++;
        // A proxy that does not answer holds its connection open, and with it the process.
        await repository.connections?.destroy();
        repository.connections = undefined;
      }
      const failure = late
        ? new Unreachable(now.origin, `no answer within ${timeoutMs / 1000} s`, timeouts < 2, { cause: error })
        : error instanceof Unreachable
          ? error
          : new Unreachable(now.origin, networkReason(error), true, { cause: error });
      if (!failure.passes || delay === undefined) throw failure;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
    }
    await pause(delay, signal);
  }
}

interface HubRequest {
  method?: string;
  headers: Record<string, string>;
  body?: string | undefined;
}

/**
 * One request, with the redirects that it meets. The token goes to the Hub and to the address that was asked, as in
 * Python, and to nobody else.
 */
async function send(
  repository: Repository,
  address: string,
  request: HubRequest,
  attempt: Attempt,
  { stopAtStorage = false } = {},
): Promise<UndiciResponse> {
  const { signal } = attempt.stop;
  const { fetch } = await import("undici");
  repository.connections ??= await openConnections();
  const trusted = repository.elsewhere === undefined ? hubOrigins() : new Set<string>();
  let { method = "GET", body } = request;
  let url = new URL(address);
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const headers = { ...request.headers, "User-Agent": userAgent() };
    const asked = url;
    attempt.origin = asked.origin;
    const authorization = trusted.has(asked.origin) ? hubAuthorization(asked) : undefined;
    const response = await fetch(asked, {
      method,
      headers: authorization ? { ...headers, Authorization: authorization } : headers,
      ...(body !== undefined && { body }),
      redirect: "manual",
      signal,
      dispatcher: repository.connections as Dispatcher,
    }).catch((error: unknown) => {
      throw signal.aborted ? error : noAnswer(asked, error);
    });
    const location = response.headers.get("Location");
    if (![301, 302, 303, 307, 308].includes(response.status) || location === null) return leftOver(response);
    const target = URL.canParse(location, url.href) ? new URL(location, url) : null;
    if (stopAtStorage && target !== null && !trusted.has(target.origin)) return response;
    await response.body?.cancel();
    if (target === null || !/^https?:$/.test(target.protocol)) throw notTheHub(repository, response.status);
    if (response.status === 303 || (response.status < 303 && method === "POST")) {
      method = "GET";
      body = undefined;
    }
    url = target;
  }
  throw notTheHub(repository, 310);
}

/** An answer that is an error is not read. */
async function leftOver(response: UndiciResponse): Promise<UndiciResponse> {
  if (response.status >= 400) await response.body?.cancel();
  return response;
}

/** Why no answer came, and by which proxy. */
function noAnswer(url: URL, error: unknown): Error {
  const proxy = proxyFor(url);
  const reason = networkReason(error);
  const { code } = innermost(error) as NodeJS.ErrnoException;
  const status = /Proxy response \((\d+)\)/.exec(reason)?.[1];
  const named = proxy === null ? "" : `${proxy.variable}: the proxy ${proxy.address.origin}`;
  if (proxy !== null && status !== undefined) {
    const then = status === "407" ? "; write it as http://NAME:PASSWORD@HOST:PORT" : "";
    return new MiroError(`${named} does not let through to ${url.host} (HTTP status ${status})${then}`, {
      cause: error,
    });
  }
  const way = proxy === null ? "" : ` by the proxy ${proxy.address.origin}, ${proxy.variable}`;
  return new Unreachable(url.origin, `${reason}${way}`, code !== "ENOTFOUND", { cause: error });
}

/** A description whole, when it is JSON. */
async function wholeText(repository: Repository, response: UndiciResponse): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > MAX_METADATA_BYTES) throw notTheHub(repository, response.status);
    parts.push(part);
  }
  const text = Buffer.concat(parts).toString("utf8");
  try {
    JSON.parse(text);
  } catch {
    throw notTheHub(repository, response.status);
  }
  return text;
}

/** Another server answered: a portal of the network, a proxy, a web server at a wrong address. */
export function notTheHub({ name, elsewhere }: Pick<Repository, "name" | "elsewhere">, status: number): MiroError {
  if (elsewhere !== undefined)
    return new MiroError(
      `${name}: ${elsewhere} leads nowhere; check the proxy, or whether the network asks to log in first`,
    );
  const error = new MiroError(
    `${name}: ${hubEndpoint()} did not answer as the Hub does; check HF_ENDPOINT and the proxy, or whether the network asks to log in first`,
  );
  answers.set(error, { status, code: null });
  return error;
}

/** How long to wait for another attempt after an answer, in milliseconds; null where there is none to be made. */
export function delayAfter(response: Omit<Answer, "url">, delay: number | undefined): number | null {
  if (!PASSING.has(response.status) || delay === undefined) return null;
  return askedDelayMs(response) ?? delay;
}

/**
 * How long the server asks to wait, at most a minute: seconds or a date (RFC 9110, 10.2.3), or the Hub's own header.
 */
function askedDelayMs({ status, headers }: Omit<Answer, "url">): number | null {
  const limit = /"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)/.exec(headers.get("RateLimit") ?? "")?.[1];
  const asked = status === 429 && limit !== undefined ? limit : headers.get("Retry-After");
  if (asked === null) return null;
  const ms = /^\d+(\.\d+)?$/.test(asked.trim()) ? Number(asked) * 1000 : Date.parse(asked) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 60_000) : null;
}

function httpError(repository: Repository, response: Answer, path?: string): MiroError {
  const { status } = response;
  const code = response.headers.get("X-Error-Code");
  const { origin } = new URL(response.url);
  const isHub = repository.elsewhere === undefined && hubOrigins().has(origin);
  const said = response.headers.get("X-Error-Message") ?? "";
  const error = isHub
    ? refusal(repository, { status, code, said, path })
    : refusalElsewhere(repository, origin, status, path);
  answers.set(error, { status, code });
  return error;
}

/** Another server refuses: a storage that the Hub leads to, or one that holds a file outside of the Hub. */
function refusalElsewhere({ name, elsewhere }: Repository, origin: string, status: number, path?: string): MiroError {
  if (elsewhere !== undefined) return new MiroError(`${name}: ${origin} answers with HTTP status ${status}`);
  const what = path === undefined ? name : `${name}/${path}`;
  const then = status === 403 ? "; check whether a proxy or the network forbids it" : "";
  return new MiroError(
    `${what}: ${origin}, which ${hubEndpoint()} leads to, answers with HTTP status ${status}${then}`,
  );
}

/** What the Hub says of a token that it does not know, whatever is asked for. */
const UNKNOWN_TOKEN = /^Invalid credentials/;

interface Refused {
  status: number;
  /** What the Hub calls it for programs. */
  code: string | null;
  /** Its words for people, or "". */
  said: string;
  path: string | undefined;
}

function refusal({ name, parameter, revision }: Repository, { status, code, said, path }: Refused): MiroError {
  const known = hubAuthorization() !== undefined;
  if (status === 401 && known && UNKNOWN_TOKEN.test(said)) {
    const found = "the Hub does not know the access token of HF_TOKEN or of the stored login";
    const page = `${hubEndpoint()}/settings/tokens`;
    const remedy = `make a new one at ${page}, or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1 to send none`;
    return new InvalidInputError(
      message`${about(parameter)}: ${found}, and gives nothing for it, public repositories included; ${remedy}`,
    );
  }
  if (code === "GatedRepo" || code === "DisabledRepo") {
    const what = code === "GatedRepo" ? "its owner lets in only who accepts the conditions" : "it has been disabled";
    const then = known ? "with the account of your token" : "then set HF_TOKEN, or run `hf auth login`";
    const remedy = `see ${hubEndpoint()}/${name}, ${then}`;
    return new InvalidInputError(
      message`${about(parameter)}: the Hub refuses access to ${name} (${status}): ${what}; ${remedy}${quoted(said)}`,
    );
  }
  if (status === 401 || status === 403) {
    const advice = known ? "HF_TOKEN or the stored login does not allow it" : "set HF_TOKEN, or run `hf auth login`";
    const why = `it is private, gated, or does not exist; ${advice}${folderHint(name)}`;
    const words = status === 403 ? quoted(said) : "";
    return new InvalidInputError(
      message`${about(parameter)}: the Hub refuses access to ${name} (${status}): ${why}${words}`,
    );
  }
  if (status === 404) {
    const what =
      path !== undefined
        ? `no file ${path} in ${name}`
        : code === "RevisionNotFound"
          ? `no revision ${revision} of ${name}`
          : `no repository ${name} with revision ${revision}`;
    const hint = path === undefined && code !== "RevisionNotFound" ? folderHint(name) : "";
    return new InvalidInputError(message`${about(parameter)}: the Hub has ${what}${hint}`);
  }
  const advice =
    status === 429
      ? " (too many requests); wait a little, or set HF_TOKEN"
      : status === 407
        ? " (the proxy asks who you are); write the proxy as http://NAME:PASSWORD@HOST:PORT"
        : "";
  return new MiroError(`${name}: the Hub answers with HTTP status ${status}${advice}`);
}

/** The Hub's own words at the end of an error: whether a request waits for its owner, which right a token lacks. */
function quoted(said: string): string {
  return said === "" ? "" : ` (the Hub says: ${oneLine(said).slice(0, MAX_QUOTED)})`;
}

function innermost(error: unknown): unknown {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  // Of several addresses that were tried, one stands for all.
  return inner instanceof AggregateError ? (inner.errors[0] ?? inner) : inner;
}

/** The innermost cause of a failed request, in words. */
export function networkReason(error: unknown): string {
  return systemReason(innermost(error));
}

/** Waits. @throws the signal's reason as soon as it is aborted */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
