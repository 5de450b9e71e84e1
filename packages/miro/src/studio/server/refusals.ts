/** How errors are told over HTTP: one status, and a body in the form of the family of routes that was asked. */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { ConnectionError } from "fastify";
import { describe, InvalidInputError, MiroError } from "../../errors.js";
import { ImageError } from "../../pictures/image-error.js";
import { UnknownModel } from "./bodies.js";
import { DeviceFailed } from "./engine.js";
import { QueueFull, ServerEnding } from "./queue.js";

/** What an error is called over HTTP. @param url of the request: the web UI says 422 where others say 400 */
export function statusOf(error: unknown, url: string): number {
  if (error instanceof UnknownModel) return 404;
  if (error instanceof QueueFull) return 429;
  if (error instanceof DeviceFailed || error instanceof ServerEnding) return 503;
  if (error instanceof InvalidInputError || error instanceof ImageError) return url.startsWith("/sdapi/") ? 422 : 400;
  const status = (error as { statusCode?: unknown }).statusCode;
  return typeof status === "number" && status >= 400 && status < 500 ? status : 500;
}

/** The body of an error, in the form of the routes that were asked. */
export function refusalOf(url: string, status: number, error: Error): object {
  if (url.startsWith("/v1/")) return openaiRefusal(status, error);
  if (url.startsWith("/sdapi/")) return webuiRefusal(status, error);
  return nativeRefusal(error);
}

/** An error in the form of the native family. */
function nativeRefusal(error: Error) {
  const { message } = error;
  if (!(error instanceof InvalidInputError)) return { error: { message } };
  const { parameter: field, expected, received } = error;
  return {
    error: {
      message,
      ...(field && { field }),
      ...(expected && { expected }),
      ...(received !== undefined && { received: echoed(received) }),
    },
  };
}

/** What came, or a description of what is long or deep: bodies are large, and an answer cannot be nested for ever. */
function echoed(received: unknown): unknown {
  if (received === null || !["string", "object"].includes(typeof received)) return received;
  const text = describe(received);
  return /["}\]]$/.test(text) ? received : text;
}

/** Types of OpenAI's errors by status; others from 400 on are requests that are wrong. */
const OPENAI_TYPES: Record<number, string> = {
  401: "authentication_error",
  403: "permission_error",
  429: "rate_limit_error",
  500: "server_error",
  503: "server_error",
};

function openaiRefusal(status: number, error: Error) {
  const type = OPENAI_TYPES[status] ?? "invalid_request_error";
  const param = error instanceof InvalidInputError ? (error.parameter ?? null) : null;
  return { error: { message: error.message, type, param, code: openaiCode(status, error) } };
}

function openaiCode(status: number, error: Error): string | null {
  if (error instanceof UnknownModel) return "model_not_found";
  if (status === 401) return "invalid_api_key";
  if (status === 429) return "rate_limit_exceeded";
  if (!(error instanceof InvalidInputError) || error.parameter === undefined) return null;
  return error.received === undefined ? "missing_required_parameter" : "invalid_value";
}

/** As the web UI answers, which is made with FastAPI. */
function webuiRefusal(status: number, error: Error) {
  const field = error instanceof InvalidInputError ? error.parameter : undefined;
  const detail =
    status === 422 && field !== undefined
      ? [{ loc: ["body", ...field.split(".")], msg: error.message, type: "value_error" }]
      : error.message;
  return { error: error.name, detail, body: "", errors: error.message };
}

/** An error whose reason is not told to who asks, unless it was made for people to read. */
export function shown(status: number, error: Error): Error {
  return status >= 500 && !(error instanceof MiroError) ? new MiroError("an error in the server") : error;
}

/** What is said of what is no request, by the code of the error. */
const NO_REQUEST = new Map([
  ["ERR_HTTP_REQUEST_TIMEOUT", { status: 408, text: "the request took too long to arrive" }],
  ["HPE_HEADER_OVERFLOW", { status: 431, text: "the address and the headers of the request are too large" }],
]);

/** Ends a connection over which something came that is no request. */
export function refuseConnection(error: ConnectionError, socket: Socket): void {
  if (error.code === "ECONNRESET" || socket.destroyed) return;
  const { status, text } = NO_REQUEST.get(error.code) ?? { status: 400, text: "the request is not HTTP" };
  const body = JSON.stringify(refusalOf("/", status, new MiroError(text)));
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    "Connection: close",
    "Content-Type: application/json; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  if (socket.writable) socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
  socket.destroy(error);
}
