/**
 * Names that a command has chosen for files which it will write later, so that several commands that share a folder
 * choose different ones and notice at once, not after the work, when they want the same.
 *
 * A command keeps its names in `.claims.OWNER.RANDOM.json` in the folder while it runs. It chooses them with the lock
 * `claims` held, from what lies there and what the claims of others name. Claims of a process that was killed are
 * removed by the next command.
 */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { IDENTITY_PATTERN, lifeOf, processIdentity, writeFileAtomically } from "@miro-t2i/torch/atomic-write";
import { MiroError, systemReason } from "../../errors.js";
import { FileLock, SILENT_MS, silenceOf, whenFree } from "../../files/file-lock.js";
import { keepTouching, stopTouching } from "../../files/heartbeat.js";
import { createFolder, removeIfEmpty } from "../../files/make-folder.js";

const FILE = new RegExp(`^\\.claims\\.(${IDENTITY_PATTERN})\\.[0-9a-f]{12}\\.json$`);

export interface ChooseOptions {
  signal?: AbortSignal | undefined;
  /** Told when the folder is in another process' hands for longer than choosing takes. */
  onWait?: ((message: string) => void) | undefined;
}

export class NameClaims {
  readonly #file: string;
  readonly #names = new Set<string>();
  /** The first folder that had to be made for the claims; it goes with them if nothing else came to lie in it. */
  #made: string | undefined;
  readonly #folder: string;

  /** @param folder of the files; made when names are chosen */
  constructor(folder: string) {
    this.#folder = folder;
    this.#file = join(folder, `.claims.${processIdentity()}.${randomBytes(6).toString("hex")}.json`);
  }

  /**
   * Has names chosen while no other command chooses.
   * @param choose gets the names that others claim, as {@link NameClaims.key} spells them, and returns paths to claim
   * besides those so far
   * @throws MiroError when the folder cannot be written; what `choose` throws
   */
  async choose(
    choose: (others: ReadonlySet<string>) => Iterable<string>,
    { signal, onWait }: ChooseOptions = {},
  ): Promise<void> {
    this.#made ??= createFolder(this.#folder);
    const lock = await whenFree(() => FileLock.acquire(this.#folder, "claims"), {
      signal,
      onWait: ({ text }) => onWait?.(`${this.#folder}: waiting for ${text}, which chooses names there`),
    });
    try {
      const before = this.#names.size;
      for (const path of choose(this.#claimsOfOthers())) this.#names.add(NameClaims.key(path));
      if (this.#names.size > before) {
        this.#write();
        if (before === 0) keepTouching(this.#file);
      }
    } finally {
      lock.release();
    }
  }

  #write(): void {
    try {
      writeFileAtomically(this.#file, (write) => write(Buffer.from(JSON.stringify({ names: [...this.#names] }))));
    } catch (error) {
      const reason = systemReason((error as Error).cause ?? error);
      throw new MiroError(`${this.#folder}: cannot be written: ${reason}`, { cause: error });
    }
  }

  /** Gives up the names. */
  release(): void {
    stopTouching(this.#file);
    rmSync(this.#file, { force: true });
    this.#names.clear();
    removeIfEmpty(this.#folder, this.#made);
    this.#made = undefined;
  }

  /** A path as names are compared: file systems may not tell capitals and forms of accents apart. */
  static key(path: string): string {
    return path.toLowerCase().normalize("NFC");
  }

  #claimsOfOthers(): Set<string> {
    const names = new Set<string>();
    for (const file of readdirSync(this.#folder)) {
      const owner = FILE.exec(file)?.[1];
      const path = join(this.#folder, file);
      if (owner === undefined || path === this.#file) continue;
      const life = lifeOf(owner);
      if (life === "dead" || (life === "unknown" && (silenceOf(path) ?? 0) > SILENT_MS)) rmSync(path, { force: true });
      else for (const name of readNames(path)) names.add(name);
    }
    return names;
  }
}

function readNames(path: string): string[] {
  try {
    const { names } = JSON.parse(readFileSync(path, "utf8")) as { names?: unknown };
    return Array.isArray(names) ? names.filter((name) => typeof name === "string") : [];
  } catch {
    return []; // given up in this moment
  }
}
