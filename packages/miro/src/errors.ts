/**
 * The errors that a user is meant to read. Everything that this package throws on purpose is one of them (or the
 * engine's `TorchError`): one line that says what happened, where, what was expected and what to do. The command line
 * prints the line alone and ends with `exitCode`.
 */
import { about, Message, message } from "./message.js";

/** Something failed that was not wrong usage: a file, the network, the device. Exit code 1. */
export class MiroError extends Error {
  /** The exit code of a command that ends with this error. */
  readonly exitCode: number = 1;
  /** The message in parts: what the command line writes with its flags. */
  declare readonly wording: Message;

  constructor(message: string | Message, options?: ErrorOptions) {
    super(String(message), options);
    this.name = new.target.name;
    // Not among what Node and loggers print of an error: it is the message once more.
    Object.defineProperty(this, "wording", {
      value: typeof message === "string" ? new Message([message]) : message,
      configurable: true,
    });
  }
}

/** A wrong argument, option, or file content that the caller chose. Exit code 2. */
export class InvalidInputError extends MiroError {
  override readonly exitCode: number = 2;
  /** The option or argument that is wrong, as TypeScript callers write it, where it is one. */
  readonly parameter: string | undefined;
  /** What is accepted, in words. */
  readonly expected: string | undefined;
  /** What came instead. */
  readonly received: unknown;

  constructor(message: string | Message, options: ErrorOptions & Partial<Refusal> = {}) {
    super(message, options);
    this.parameter = options.parameter ?? this.wording.parameter;
    this.expected = options.expected;
    this.received = options.received;
  }
}

/** What {@link invalid} says, as data. */
export interface Refusal {
  parameter: string;
  expected: string;
  received: unknown;
}

/** Long work was stopped on request, with what was done so far stored. Exit code 130. */
export class InterruptedError extends MiroError {
  override readonly exitCode: number = 130;
}

/**
 * The error that refuses an argument: `throw invalid("steps", "an integer of at least 1", 0)`.
 *
 * @param parameter the argument's name as TypeScript callers write it (`steps`, `rewardTargets.clip_score`)
 * @param expected what is accepted, in words (`an integer of at least 1`)
 * @param received what came instead, where long values are cut; or a message that describes it
 */
export function invalid(parameter: string, expected: string | Message, received: unknown): InvalidInputError {
  const isDescribed = received instanceof Message;
  const text = isDescribed ? received : describe(received);
  return new InvalidInputError(message`${about(parameter)}: expected ${expected}, received ${text}`, {
    parameter,
    expected: String(expected),
    received: isDescribed ? String(received) : received,
  });
}

/** A value in at most some eighty characters, on one line. */
export function describe(value: unknown): string {
  let text: string;
  if (typeof value === "string") text = JSON.stringify(value);
  else if (typeof value === "bigint") text = `${value}n`;
  else if (value === null || typeof value !== "object") text = String(value);
  else if (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype) text = safeJson(value);
  else text = (value.constructor?.name ?? "value").replace(/^[AEIO]?/, (vowel) => `${vowel ? "an" : "a"} ${vowel}`);
  text = text.replace(/\s+/g, " ");
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** Typed arrays by their type and length, numbers as they are: JSON has neither. */
function withoutElements(this: Record<string, unknown>, key: string, value: unknown): unknown {
  const given = this[key];
  if (ArrayBuffer.isView(given)) return `${given.constructor.name}(${(given as Uint8Array).length})`;
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

function safeJson(value: object): string {
  try {
    return JSON.stringify(value, withoutElements) ?? String(value);
  } catch {
    return Array.isArray(value) ? "an array" : "an object";
  }
}

/**
 * Whether an operator failed for lack of memory on its device, here or in a thread whose error was passed on. GPUs are
 * out of memory, or cuBLAS and cuDNN say which of their calls got none; a CPU has not enough.
 */
export function isOutOfMemory({ message }: Error): boolean {
  return /(?:out of|not enough) memory|ALLOC(?:ATION)?_FAILED/i.test(message);
}

/** The calls of the system that look for what a user has named. */
const READING = ["access", "lstat", "open", "opendir", "read", "readlink", "realpath", "scandir", "stat"];

/**
 * Whether an error, or what caused it, is that something which was to be read is not there: wrong usage in every
 * command, whichever part noticed.
 */
function isMissingFile(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 10; cause = cause.cause, depth++) {
    const { code, syscall } = cause as NodeJS.ErrnoException;
    if ((code === "ENOENT" || code === "ENOTDIR") && READING.includes(syscall ?? "")) return true;
  }
  return false;
}

/** The exit code of a program that ends with an error, whichever part of it noticed. */
export function exitCodeOf(error: unknown): number {
  if (isMissingFile(error)) return 2;
  return error instanceof MiroError ? error.exitCode : 1;
}

/** The part of a system error that a reader needs: `no such file or directory`, `no space left on device`, … */
export function systemReason(error: unknown): string {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  if (syscall === "uv_cwd") return "the folder that the command was started in is gone; change to another one";
  switch (code) {
    case "ENOENT":
      return "no such file or directory";
    case "EACCES":
    case "EPERM":
      return "permission denied";
    case "ENOSPC":
      return "no space left on the disk; free some or choose another folder";
    case "EDQUOT":
      return "disk quota exceeded";
    case "EFBIG":
      return "the file would exceed the size limit (ulimit -f)";
    case "EMFILE":
    case "ENFILE":
      return "too many files are open; raise the limit (ulimit -n)";
    case "ENAMETOOLONG":
      return "the name is too long";
    case "ELOOP":
      return "a symbolic link in its path leads in a circle";
    case "EISDIR":
      return "it is a folder";
    case "ENOTDIR":
      return "a part of its path is not a folder";
    case "EROFS":
      return "the file system is read-only";
    case "EEXIST":
      return "it exists already";
    default:
      return error instanceof Error ? error.message.split("\n")[0]! : String(error);
  }
}
