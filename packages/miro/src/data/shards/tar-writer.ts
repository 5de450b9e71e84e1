/**
 * Writes tar shards: equal contents give equal bytes, and a shard is there under its name only when it is complete.
 *
 * Members carry what upstream's carry (mode 0444, owner `bigdata`, ids 0) and one fixed time, so that no extended
 * header is needed unless a name is too long for ustar. The archive grows under a temporary name in the same folder, is
 * flushed to the disk, and then renamed.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, rm } from "node:fs/promises";
import { beginFile, publishFile } from "@miro-t2i/torch/io";
import { z } from "zod";
import { checkName } from "../../arguments.js";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { byCodePoint } from "../../files/code-point-order.js";
import { field, type OptionsOf, parseOptions } from "../../options.js";
import { splitMemberName } from "./sample-key.js";
import { blocksOf, encodeHeader, type MemberStamp, RECORD_BYTES } from "./tar-header.js";

const tarWriterOptions = z.strictObject({
  /** Modification time of every member; fixed, so that equal contents give equal archives. Default: 0. */
  mtime: field(
    z
      .int()
      .min(0)
      .max(8 ** 11 - 1)
      .default(0),
    {
      expected: "whole seconds since 1970",
      help: "modification time of every member; fixed, so that equal contents give equal archives",
    },
  ),
  /** Permissions of every member. Default: read for all (0o444). */
  mode: field(z.int().min(0).max(0o7777).default(0o444), {
    expected: "permission bits",
    help: "permissions of every member",
  }),
  /** User and group name of every member. Default: bigdata. */
  owner: field(z.string().max(31).default("bigdata"), {
    expected: "a name of at most 31 characters",
    help: "user and group name of every member",
  }),
});

/** Options of {@link TarWriter}. */
export type TarWriterOptions = OptionsOf<typeof tarWriterOptions>;

/** What a finished archive is. */
export interface TarSummary {
  /** Size of the file. */
  bytes: number;
  /** Hash of the file, hexadecimal. */
  sha256: string;
  /** Members that it holds. */
  members: number;
}

/** Bytes gathered before they are handed to the file system. */
const BUFFER_BYTES = 4 * 2 ** 20;

/** Writes a tar archive whole or not at all. */
export class TarWriter {
  readonly #hash = createHash("sha256");
  readonly #names = new Set<string>();
  #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #filled = 0;
  #bytes = 0;
  #state: "open" | "finished" | "aborted" | "failed" = "open";
  /** Everything asked for so far; calls need not wait for one another. */
  #queue: Promise<unknown> = Promise.resolve();
  readonly #file: FileHandle;

  private constructor(
    /** The name that the archive gets when it is finished. */
    readonly path: string,
    readonly temporary: string,
    readonly stamp: MemberStamp,
    file: FileHandle,
  ) {
    this.#file = file;
  }

  /**
   * Begins an archive; nothing appears under `path` before {@link finish}, which replaces what is there.
   * @throws MiroError naming the path when the folder is missing or cannot be written
   */
  static async create(path: string, options: TarWriterOptions = {}): Promise<TarWriter> {
    checkName("path", path, "the name of a file");
    const stamp = parseOptions(tarWriterOptions, options);
    const temporary = beginFile(path);
    try {
      return new TarWriter(path, temporary, stamp, await open(temporary, "wx"));
    } catch (error) {
      throw new MiroError(`${path}: cannot be written: ${systemReason(error)}`, { cause: error });
    }
  }

  /**
   * Appends a regular file. Resolves when its bytes have been taken over: the caller may then reuse them.
   * @throws InvalidInputError for a name that a reader would refuse; MiroError naming the path when the disk refuses
   */
  async add(name: string, bytes: Uint8Array): Promise<void> {
    this.#checkOpen();
    checkMemberName(this.path, name);
    if (this.#names.has(name)) throw new InvalidInputError(`${this.path}: the member ${JSON.stringify(name)} twice`);
    this.#names.add(name);
    const header = encodeHeader(name, bytes.length, this.stamp);
    return this.#enqueue(async () => {
      await this.#put(header);
      await this.#put(bytes);
      await this.#put(Buffer.alloc(blocksOf(bytes.length) - bytes.length));
    });
  }

  /**
   * Appends the members of a sample, sorted by extension (byte by byte), as upstream's writer does.
   * @param key path without a dot in its last component
   * @param fields content by extension
   */
  async addSample(key: string, fields: Readonly<Record<string, Uint8Array>>): Promise<void> {
    const extensions = Object.keys(fields).sort(byCodePoint);
    for (const extension of extensions) {
      const split = splitMemberName(`${key}.${extension}`);
      if (split?.key !== key || split.extension !== extension) {
        throw new InvalidInputError(
          `${this.path}: key ${JSON.stringify(key)} and extension ${JSON.stringify(extension)} do not come back from ` +
            `"${key}.${extension}"; a key has no dot in its last component and an extension no capitals or slashes`,
        );
      }
    }
    await Promise.all(extensions.map((extension) => this.add(`${key}.${extension}`, fields[extension]!)));
  }

  /** Ends the archive, flushes it to the disk and gives it its name. */
  async finish(): Promise<TarSummary> {
    this.#checkOpen();
    this.#state = "finished";
    return this.#enqueue(async () => {
      const end = this.#bytes + 1024;
      await this.#put(Buffer.alloc(Math.ceil(end / RECORD_BYTES) * RECORD_BYTES - this.#bytes));
      await this.#flush();
      await this.#file.sync();
      await this.#file.close();
      publishFile(this.temporary, this.path);
      return { bytes: this.#bytes, sha256: this.#hash.digest("hex"), members: this.#names.size };
    });
  }

  /**
   * Removes what was written; `path` is as it was. Does nothing behind {@link finish} or a failure, which leave
   * nothing.
   */
  async abort(): Promise<void> {
    if (this.#state !== "open") return;
    this.#state = "aborted";
    await this.#queue.catch(() => undefined);
    await this.#discard();
  }

  #checkOpen(): void {
    if (this.#state !== "open") throw new MiroError(`${this.path}: the archive is ${this.#state} already`);
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work).catch(async (error: unknown) => {
      if (this.#state !== "failed") {
        this.#state = "failed";
        await this.#discard();
      }
      if (error instanceof MiroError || (error as NodeJS.ErrnoException).code === undefined) throw error;
      throw new MiroError(`${this.path}: cannot be written after ${this.#bytes} bytes: ${systemReason(error)}`, {
        cause: error,
      });
    });
    this.#queue = result;
    result.catch(() => undefined); // the caller of this very operation hears of it
    return result;
  }

  async #discard(): Promise<void> {
    await this.#file.close().catch(() => undefined);
    await rm(this.temporary, { force: true });
  }

  async #put(bytes: Uint8Array): Promise<void> {
    this.#bytes += bytes.length;
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + BUFFER_BYTES - this.#filled);
      this.#buffer.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === BUFFER_BYTES) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#filled);
    this.#hash.update(bytes);
    for (let at = 0; at < bytes.length; ) at += (await this.#file.write(bytes, at)).bytesWritten;
    this.#filled = 0;
  }
}

/** @throws InvalidInputError for a name that readers would refuse or read as another one */
function checkMemberName(path: string, name: string): void {
  const parts = name.split("/");
  const reason =
    name === ""
      ? "it is empty"
      : name.includes("\0")
        ? "it holds a NUL"
        : /\p{Surrogate}/u.test(name)
          ? "it is no valid Unicode"
          : name.startsWith("/")
            ? "it is an absolute path"
            : parts.some((part) => part === "" || part === "." || part === "..")
              ? "it has an empty, '.' or '..' component"
              : null;
  if (reason !== null) throw new InvalidInputError(`${path}: the member name ${JSON.stringify(name)}: ${reason}`);
}
