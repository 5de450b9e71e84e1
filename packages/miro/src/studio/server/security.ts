/** Who may ask: the key, and the origins and host names that browsers send. */
import { createHash, timingSafeEqual } from "node:crypto";
import { hostname, networkInterfaces } from "node:os";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { invalid, MiroError } from "../../errors.js";
import { isLoopback } from "../../loopback.js";
import { message } from "../../message.js";
import { refusalOf } from "./refusals.js";

export interface AccessOptions {
  /** Where the server listens. */
  host: string;
  /** Wanted as `Authorization: Bearer KEY`; absent: nothing is. */
  key?: string | undefined;
  /** Origins, besides the server's own, that pages may ask from. */
  allowOrigins: readonly string[];
  /** Origins of pages that may show this one in a frame. Default: none. */
  allowFrames?: readonly string[];
}

export const KEY_WORDS = "a key of 8 to 200 printable ASCII characters, no spaces";

/** Checks a key, of which the error tells nothing. @param name where it comes from */
export function checkKey(key: string, name: string): void {
  if (/^[\x21-\x7e]{8,200}$/.test(key)) return;
  throw invalid(
    name,
    KEY_WORDS,
    key.length < 8 || key.length > 200 ? message`one of ${key.length}` : message`one with others`,
  );
}

/** Routes that need no key: they tell nothing. The page's files are told by {@link isPage}. */
const OPEN = new Set(["/health"]);

/** What every answer says to browsers. @param frames origins of pages that may show this one in a frame */
function headersOf(frames: readonly string[]): Record<string, string> {
  const policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'";
  return {
    "content-security-policy": `${policy}; frame-ancestors ${frames.length === 0 ? "'none'" : frames.join(" ")}`,
    "x-content-type-options": "nosniff",
    // Knows no list of origins: with one, the policy above speaks alone.
    ...(frames.length === 0 && { "x-frame-options": "DENY" }),
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
  };
}

/** Adds the checks to a server. @param isPage whether a path is a file of the page */
export function guard(
  app: FastifyInstance,
  { host, key, allowOrigins, allowFrames = [] }: AccessOptions,
  isPage: (path: string) => boolean,
): void {
  const origins = new Set(allowOrigins.map((origin) => new URL(origin).origin));
  const names = new Set([...ownNames(host), ...[...origins].map((origin) => new URL(origin).hostname)]);
  const headers = headersOf(allowFrames.map((origin) => new URL(origin).origin));
  const digest = key === undefined ? null : sha256(key);
  // Caches must tell answers to these pages from others, which lack the headers for them.
  if (origins.size > 0) headers.vary = "Origin, Referer";
  app.addHook("onRequest", async (request, reply) => {
    reply.headers(headers);
    const named = hostOf(request.headers.host);
    if (named === null || !names.has(named))
      return refuse(
        request,
        reply,
        403,
        `the host ${JSON.stringify(request.headers.host ?? "")} is not this server's; see --allow-origin`,
      );
    const { origin, referer } = request.headers;
    // A picture in a page is asked for without an origin.
    if (origins.has(originOf(referer))) reply.header("cross-origin-resource-policy", "cross-origin");
    if (origin !== undefined && !isOwn(origin, request.headers.host) && !origins.has(origin))
      return refuse(request, reply, 403, `requests from ${JSON.stringify(origin)} are not allowed; see --allow-origin`);
    if (origin !== undefined && origins.has(origin)) {
      reply.headers({
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "location, retry-after",
      });
      if (request.method === "OPTIONS") {
        // Clients send headers of their own, such as those of OpenAI.
        const asked = request.headers["access-control-request-headers"];
        reply.headers({
          "access-control-allow-methods": "GET, POST, PATCH, DELETE",
          ...(asked !== undefined && { "access-control-allow-headers": asked }),
          "access-control-max-age": "600",
        });
        return reply.code(204).send();
      }
    }
    const path = request.url.split("?", 1)[0]!;
    if (digest === null || OPEN.has(path) || isPage(path)) return;
    const given = /^Bearer +(\S.*)$/i.exec(request.headers.authorization ?? "")?.[1];
    if (given !== undefined && timingSafeEqual(sha256(given), digest)) return;
    reply.header("www-authenticate", "Bearer");
    return refuse(request, reply, 401, "a key is wanted: Authorization: Bearer KEY");
  });
}

function refuse(request: FastifyRequest, reply: FastifyReply, status: number, message: string): FastifyReply {
  return reply.code(status).send(refusalOf(request.url, status, new MiroError(message)));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** The name in a Host header, without its port; null where it makes no sense. */
function hostOf(header: string | undefined): string | null {
  try {
    return header === undefined ? null : new URL(`http://${header}`).hostname;
  } catch {
    return null;
  }
}

/** The origin of the page that a Referer header names. */
function originOf(referer = ""): string {
  return URL.canParse(referer) ? new URL(referer).origin : "";
}

function isOwn(origin: string, host: string | undefined): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

/** Names by which the server may be called. A page of another name that leads here is none (DNS rebinding). */
function ownNames(host: string): string[] {
  const loopback = ["localhost", "127.0.0.1", "[::1]"];
  if (isLoopback(host)) return [...loopback, bracketed(host)];
  const addresses = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  return [
    ...loopback,
    bracketed(host),
    hostname().toLowerCase(),
    ...addresses.map(({ address }) => bracketed(address)),
  ];
}

function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host.replace(/%.*/, "")}]` : host.toLowerCase();
}
