/**
 * The part of a download that has arrived. One process at a time owns it, by its name; what a process leaves behind,
 * another one takes over by renaming it, which only one can:
 *
 *   HASH.miro.incomplete                 left by an attempt that ended; to be continued
 *   HASH.miro-OWNER-N.incomplete         being written by that process, or left by it when it was killed
 *
 * (the owner as in the engine's process-identity.ts). Where the system cannot tell whether an owner lives, as in
 * another container, a file that grows has one.
 *
 * Python's partial files are of its own making and end in `.incomplete` too: its tools know what to do with ours.
 * Whoever finishes first gives the blob its name, and every owner checks the hash before: two processes that download
 * the same file at once, whoever they are, cost bandwidth and nothing else.
 */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { IDENTITY_PATTERN, type Life, lifeOf, processIdentity } from "@miro-t2i/torch/atomic-write";
import { printable } from "../../printable.js";
import { cannotWrite } from "./hub-cache.js";

/** A file that no process has written for so long is taken over: connections time out sooner. */
const ABANDONED_MS = 600_000;
/**
 * A file that does not grow while it is watched for so long is not waited for: another download costs bandwidth and
 * nothing else.
 */
const STILL_MS = 15_000;
const POLL_MS = 200;

export interface ClaimOptions {
  /** Told how far the process is that is waited for. */
  report?: (bytes: number) => void;
  /** Told once that another process is waited for. */
  onWait?: ((message: string) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export class PartialFile {
  private constructor(
    readonly path: string,
    readonly blob: string,
  ) {}

  /**
   * Takes over what there is of a blob, or begins anew; waits while another process downloads it.
   *
   * @returns null when the blob came to be meanwhile
   * @throws MiroError when the folder cannot be written
   */
  static async claim(
    blob: string,
    { report, onWait = (text) => process.emitWarning(printable(text)), signal }: ClaimOptions = {},
  ): Promise<PartialFile | null> {
    let seen = -1;
    let grewAt = 0;
    for (;;) {
      signal?.throwIfAborted();
      if (existsSync(blob)) return null;
      const owned = partsOf(blob).filter((name) => lifeOfPart(name, blob) !== "dead");
      if (owned.length === 0) return PartialFile.#take(blob);
      const bytes = owned.reduce((sum, name) => sum + sizeOf(join(dirname(blob), name)), 0);
      if (seen < 0) onWait(`waiting for another process that downloads ${blob}`);
      if (bytes !== seen) [seen, grewAt] = [bytes, performance.now()];
      const isStill = performance.now() - grewAt > STILL_MS;
      if (isStill && owned.every((name) => lifeOfPart(name, blob) === "unknown")) return PartialFile.#take(blob);
      report?.(bytes);
      await sleep(POLL_MS, undefined, signal ? { signal } : {});
    }
  }

  static #take(blob: string): PartialFile {
    const mine = `${blob}.miro-${processIdentity()}-${randomBytes(4).toString("hex")}.incomplete`;
    for (const name of partsOf(blob)) {
      if (lifeOfPart(name, blob) !== "dead") continue;
      try {
        renameSync(join(dirname(blob), name), mine);
        return new PartialFile(mine, blob);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw cannotWrite(blob, error);
      }
    }
    try {
      closeSync(openSync(mine, "wx", 0o666));
    } catch (error) {
      throw cannotWrite(blob, error);
    }
    return new PartialFile(mine, blob);
  }

  /** Bytes of a blob that earlier attempts left. */
  static keptBytes(blob: string): number {
    return Math.max(0, ...partsOf(blob).map((name) => sizeOf(join(dirname(blob), name))));
  }

  /** Bytes that have arrived. */
  sizeBytes(): number {
    return sizeOf(this.path);
  }

  /** Leaves what has arrived to a later attempt. */
  park(): void {
    const parked = `${this.blob}.miro.incomplete`;
    const size = sizeOf(this.path);
    try {
      if (size === 0 || existsSync(this.blob) || size < sizeOf(parked)) rmSync(this.path, { force: true });
      else renameSync(this.path, parked);
    } catch {
      // It has been finished, or taken over.
    }
  }
}

/** Names of the partial files of a blob that were made here. */
function partsOf(blob: string): string[] {
  const prefix = `${basename(blob)}.miro`;
  try {
    return readdirSync(dirname(blob))
      .filter((name) => name.startsWith(prefix) && name.endsWith(".incomplete"))
      .sort();
  } catch {
    return [];
  }
}

/** Whether a process is at work on it: "dead" where it may be taken over. */
function lifeOfPart(name: string, blob: string): Life {
  if (name === `${basename(blob)}.miro.incomplete`) return "dead"; // parked
  const life = lifeOf(OWNED.exec(name)?.[1] ?? "");
  if (life !== "unknown") return life;
  const age = Date.now() - (statSync(join(dirname(blob), name), { throwIfNoEntry: false })?.mtimeMs ?? 0);
  return age > ABANDONED_MS ? "dead" : "unknown";
}

const OWNED = new RegExp(`\\.miro-(${IDENTITY_PATTERN})-[0-9a-f]+\\.incomplete$`);

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
