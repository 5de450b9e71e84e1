/** Requests to the Hub: with the token, again when it is busy, and with what it refuses in words. */
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { hubEndpoint, hubToken } from "./hub-environment.js";
import type { Repository } from "./hub-repository.js";

export const RETRY_DELAYS_MS = [500, 2_000, 8_000];

/**
 * `fetch` with the token (which a redirect to another host drops), the signal, and another attempt when the Hub is busy
 * (429) or in trouble (5xx). What the Hub refuses is an error that says what to do.
 */
export function hubFetch(repository: Repository, path?: string): typeof fetch {
  const { signal, retryDelaysMs = RETRY_DELAYS_MS } = repository.options;
  return async (input, init = {}) => {
    const headers = new Headers(init.headers);
    const token = hubToken();
    if (token) headers.set("Authorization", `Bearer ${token}`);
    headers.set("User-Agent", "miro-t2i");
    for (let attempt = 0; ; attempt++) {
      const response = await fetch(input, { ...init, headers, ...(signal ? { signal } : {}) });
      const { status } = response;
      const delay = retryDelaysMs[attempt];
      if (status !== 429 && status < 500) {
        if (status < 400 || status === 416) return response;
      } else if (delay !== undefined) {
        await response.body?.cancel();
        await pause(askedDelayMs(response) ?? delay, signal);
        continue;
      }
      await response.body?.cancel();
      throw httpError(repository, response, path);
    }
  };
}

/** How long the server asks to wait, at most a minute: seconds or a date (RFC 9110, 10.2.3). */
function askedDelayMs(response: Response): number | null {
  const asked = response.headers.get("Retry-After");
  if (asked === null) return null;
  const ms = /^\d+$/.test(asked.trim()) ? Number(asked) * 1000 : Date.parse(asked) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 60_000) : null;
}

export function httpError({ name, parameter, revision }: Repository, response: Response, path?: string): MiroError {
  const { status } = response;
  const code = response.headers.get("X-Error-Code");
  const token = hubToken();
  if (code === "GatedRepo" || code === "DisabledRepo") {
    const what = code === "GatedRepo" ? "its owner lets in only who accepts the conditions" : "it has been disabled";
    const then = token ? "with the account of your token" : "then set HF_TOKEN, or run `hf auth login`";
    return new InvalidInputError(
      `${parameter}: the Hub refuses access to ${name} (${status}): ${what}; see ${hubEndpoint()}/${name}, ${then}`,
    );
  }
  if (status === 401 || status === 403) {
    const advice = token ? "HF_TOKEN or the stored login does not allow it" : "set HF_TOKEN, or run `hf auth login`";
    return new InvalidInputError(
      `${parameter}: the Hub refuses access to ${name} (${status}): it is private, gated, or does not exist; ${advice}`,
    );
  }
  if (status === 404) {
    const what =
      path !== undefined
        ? `no file ${path} in ${name}`
        : code === "RevisionNotFound"
          ? `no revision ${revision} of ${name}`
          : `no repository ${name} with revision ${revision}`;
    return new InvalidInputError(`${parameter}: the Hub has ${what}`);
  }
  return new MiroError(
    `${name}: the Hub answers with HTTP status ${status}${status === 429 ? " (too many requests); wait a little, or set HF_TOKEN" : ""}`,
  );
}

/** The innermost cause of a failed request, in words. */
export function networkReason(error: unknown): string {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  return systemReason(inner);
}

export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
