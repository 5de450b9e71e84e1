/** What passes between a thread and who started it. Everything is plain data that structured cloning copies. */
import { TorchError } from "@miro-t2i/torch";
import { describe, InterruptedError, InvalidInputError, MiroError } from "../errors.js";
import { Message, type MessagePart } from "../message.js";

/** To the thread. */
export type ToThread =
  | { type: "call"; id: number; method: string; argument: unknown; listens: string[]; modules: readonly string[] }
  | { type: "abort"; id: number }
  /** A listener has finished with event `event` of call `id`. */
  | { type: "heard"; id: number; event: number; error?: ErrorData };

/** From the thread. */
export type FromThread =
  | { type: "event"; id: number; event: number; name: string; value: unknown }
  | { type: "result"; id: number; value: unknown }
  | { type: "error"; id: number; error: ErrorData };

/** An error as plain data. */
export interface ErrorData {
  kind: keyof typeof KINDS | "TorchError" | "Error";
  message: string;
  parts?: readonly MessagePart[];
  parameter?: string | undefined;
  expected?: string | undefined;
  received?: unknown;
  stack?: string | undefined;
}

const KINDS = { InvalidInputError, InterruptedError, MiroError };

/** An error on its way to another thread. */
export function errorToData(error: unknown): ErrorData {
  if (!(error instanceof Error)) return { kind: "Error", message: String(error) };
  const { message, stack } = error;
  if (error instanceof TorchError) return { kind: "TorchError", message, stack };
  if (!(error instanceof MiroError)) return { kind: "Error", message: `${error.name}: ${message}`, stack };
  const kind =
    error instanceof InvalidInputError
      ? "InvalidInputError"
      : error instanceof InterruptedError
        ? "InterruptedError"
        : "MiroError";
  const data: ErrorData = { kind, message, stack, parts: error.wording.parts };
  if (!(error instanceof InvalidInputError)) return data;
  const { parameter, expected, received } = error;
  return { ...data, parameter, expected, received: cloneable(received) };
}

/** An error as it was in the other thread, with the stack it had there. @param caller frames of this thread below it */
export function errorFromData(data: ErrorData, caller = ""): Error {
  const { kind, message, parts, parameter, expected, received, stack } = data;
  const wording = new Message(parts ?? [message]);
  const refusal = { ...(parameter !== undefined && { parameter }), ...(expected !== undefined && { expected }) };
  const error =
    kind === "InvalidInputError"
      ? new InvalidInputError(wording, { ...refusal, received })
      : kind === "TorchError"
        ? new TorchError(message)
        : kind === "Error"
          ? new Error(message)
          : new KINDS[kind](wording);
  if (stack !== undefined) error.stack = caller === "" ? stack : `${stack}\n${caller}`;
  return error;
}

function cloneable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return describe(value);
  }
}
