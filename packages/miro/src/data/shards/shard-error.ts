/** The one error of the shard readers: which file, which rule it breaks, and where. */
import { existsSync, readdirSync } from "node:fs";
import { dirname } from "node:path";
import { MiroError } from "../../errors.js";
import { type Message, message, option } from "../../message.js";
import { BLOCK_BYTES } from "./tar-header.js";

/** What is wrong with a shard, a member or a sample, and where. */
export interface ShardProblem {
  /** The file. */
  path: string;
  /** Stable name of the broken rule, e.g. `HeaderChecksum`. */
  rule: string;
  /** What is wrong, as a sentence fragment. */
  message: string;
  /** Position in the file, in bytes from its start. */
  byteOffset?: number;
  /** Name of the tar member concerned, where there is one. */
  member?: string;
}

/** Rules that an archive breaks whose end cannot be read: it was cut, is still being written, or was compressed. */
const CUT = new Set(["MissingEnd", "TruncatedHeader", "Compressed"]);

/**
 * What says best that a shard was cut, if it was: the member that lacks its end, or the header of what is no archive at
 * all.
 */
export function cutProblem(problems: readonly ShardProblem[]): ShardProblem | undefined {
  const cut = problems.find(({ rule }) => CUT.has(rule));
  const before = problems.findLast(({ rule, member }) => !CUT.has(rule) && member === undefined);
  const isCause = before?.rule === "TruncatedMember" || (before?.byteOffset ?? BLOCK_BYTES) < BLOCK_BYTES;
  return cut !== undefined && isCause ? before : cut;
}

/** Whether a problem says that a shard was cut. */
export function saysCut({ rule }: ShardProblem): boolean {
  return CUT.has(rule);
}

/**
 * Whether a problem may pass: the system refuses to open or read a shard. One that is missing among others is not away
 * but removed; a folder that holds no shards any more may be one that is not mounted.
 */
export function isAway({ rule, path }: ShardProblem): boolean {
  if (rule !== "Unreadable") return false;
  if (existsSync(path)) return true;
  try {
    return !readdirSync(dirname(path)).some((name) => name.endsWith(".tar"));
  } catch {
    return true;
  }
}

/** What to do about a shard that was cut. */
export const CUT_REMEDY = message`copy or make the shard anew, or leave such shards out with ${option("skipBrokenShards", true)}`;

/** A shard, an index or a sample that cannot be used as it is. Exit code 1. */
export class ShardError extends MiroError implements ShardProblem {
  readonly path: string;
  readonly rule: string;
  readonly byteOffset?: number;
  readonly member?: string;
  /** What the message says, in parts. */
  readonly problem: ShardProblem;

  /** @param remedy what to do about it, where there is something to do */
  constructor(problem: ShardProblem, { remedy, ...options }: ErrorOptions & { remedy?: Message } = {}) {
    super(remedy === undefined ? problemText(problem) : message`${problemText(problem)}; ${remedy}`, options);
    this.problem = problem;
    this.path = problem.path;
    this.rule = problem.rule;
    this.byteOffset = problem.byteOffset;
    this.member = problem.member;
  }
}

/** The error where shards that are broken are to be left out and none remains. @param first of their problems */
export function noneWhole(first: ShardProblem): ShardError {
  return new ShardError({ ...first, message: `every shard was cut or cannot be read: ${first.message}` });
}

/** A problem on one line: `a.tar, member "1.jpg", byte 512: … (HeaderChecksum)`. */
export function problemText({ path, rule, message, byteOffset, member }: ShardProblem): string {
  const where = [
    path,
    member === undefined ? "" : `member ${JSON.stringify(member)}`,
    byteOffset === undefined ? "" : `byte ${byteOffset}`,
  ];
  return `${where.filter(Boolean).join(", ")}: ${message} (${rule})`;
}
