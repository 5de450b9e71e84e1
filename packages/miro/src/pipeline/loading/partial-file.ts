/**
 * The part of a download that has arrived. One process at a time owns it, by its name; what a process leaves behind, another
 * one takes over by renaming it, which only one can:
 *
 *   HASH.miro.incomplete                 left by an attempt that ended; to be continued
 *   HASH.miro-PID-HOST-N.incomplete      being written by that process, or left by it when it was killed
 *
 * Python's partial files are of its own making and end in `.incomplete` too: its tools know what to do with ours. Whoever
 * finishes first gives the blob its name, and every owner checks the hash before: two processes that download the same file
 * at once, whoever they are, cost bandwidth and nothing else.
 */
import { createHash, randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MiroError, systemReason } from "../../errors.js";

const HOST = createHash("sha1").update(hostname()).digest("hex").slice(0, 8);
/** An owner elsewhere that has written nothing for so long is gone: connections time out sooner. */
const ABANDONED_MS = 600_000;
const POLL_MS = 200;

export interface ClaimOptions {
  /** Told how far the process is that is waited for. */
  report?: (bytes: number) => void;
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
  static async claim(blob: string, { report, signal }: ClaimOptions = {}): Promise<PartialFile | null> {
    for (;;) {
      signal?.throwIfAborted();
      if (existsSync(blob)) return null;
      const busy = partsOf(blob).find((name) => isOwned(name, blob));
      if (busy === undefined) return PartialFile.take(blob);
      report?.(sizeOf(join(dirname(blob), busy)));
      await sleep(POLL_MS, undefined, signal ? { signal } : {});
    }
  }

  private static take(blob: string): PartialFile {
    const mine = `${blob}.miro-${process.pid}-${HOST}-${randomBytes(4).toString("hex")}.incomplete`;
    for (const name of partsOf(blob)) {
      if (isOwned(name, blob)) continue;
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

/** Whether a process is at work on it: on this machine it lives, elsewhere it wrote lately. */
function isOwned(name: string, blob: string): boolean {
  const [, pid, host] = /\.miro-(\d+)-([0-9a-f]{8})-[0-9a-f]+\.incomplete$/.exec(name) ?? [];
  if (pid === undefined) return false;
  const age = Date.now() - (statSync(join(dirname(blob), name), { throwIfNoEntry: false })?.mtimeMs ?? 0);
  if (age > ABANDONED_MS) return false;
  if (host !== HOST) return true;
  try {
    process.kill(Number(pid), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function cannotWrite(blob: string, error: unknown): MiroError {
  return new MiroError(`${blob}: cannot be written: ${systemReason(error)}`, { cause: error });
}
