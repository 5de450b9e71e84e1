/**
 * The pictures of the studio. Files are the truth: PNG with their settings inside, in the output folder. An index in
 * SQLite (`.studio/index.sqlite`) answers questions about them; it is made anew from the files where it is missing,
 * damaged or behind. Favourites are in `.studio/favourites.json`, deleted pictures in `.studio/trash/`.
 */
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { setImmediate } from "node:timers/promises";
import Database from "libsql";
import { z } from "zod";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { FileLock, type LockOwner, type WaitForLifeOptions, whenKnown } from "../../files/file-lock.js";
import { createFolder, makeFolder } from "../../files/make-folder.js";
import { readJson, writeFileAside } from "../../files/whole-files.js";
import { localTime } from "../../local-time.js";
import { message, option } from "../../message.js";
import { encodeImage, type ImageFormat } from "../../pictures/image-files.js";
import { readPng } from "../../pictures/png.js";
import { sharp } from "../../pictures/sharp.js";
import { type ImageSettings, isSheet, readSettings, settingsToText } from "../../pipeline/settings.js";
import type { JobView } from "./job.js";
import { KEEP_JOB_MS } from "./limits.js";
import { qualityOf } from "./recode.js";
import { named } from "./schemas.js";

/** A new form of the index makes it anew. */
const VERSION = 1;
const THUMBNAIL_SIDE = 256;
/** Pictures that are forgotten in one go when their files are gone. */
const FORGOTTEN_AT_ONCE = 100;

/** A picture as the gallery lists it. */
export const pictureEntry = named(
  "Picture",
  z.object({
    id: z.string(),
    prompt: z.string(),
    model: z.string(),
    seed: z.number().nullable(),
    width: z.number(),
    height: z.number(),
    createdAt: z.string(),
    favourite: z.boolean(),
    rewardTargets: z.record(z.string(), z.number()),
  }),
);

/** As {@link pictureEntry} has it. */
export type PictureEntry = z.output<typeof pictureEntry>;

/** What is asked of the gallery. */
export interface PictureQuery {
  /** Words of the prompt. */
  q?: string | undefined;
  model?: string | undefined;
  /** Least targets by reward. */
  atLeast?: Readonly<Record<string, number>>;
  favourite?: boolean | undefined;
  cursor?: string | undefined;
  limit: number;
}

/** A page of the gallery; `next` is the cursor of the one after it. */
export interface PicturePage {
  pictures: PictureEntry[];
  next: string | null;
}

interface Row {
  number: number;
  id: string;
  path: string;
  prompt: string;
  model: string;
  seed: number | null;
  width: number;
  height: number;
  created: number;
  favourite: number;
  deleted: number;
  targets: string;
}

/** How {@link Gallery.open} begins. */
export interface GalleryOptions extends WaitForLifeOptions {
  now?: () => Date;
}

const favouritesSchema = z.array(z.string());

const TABLES = `
  CREATE TABLE pictures (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, path TEXT UNIQUE NOT NULL, prompt TEXT NOT NULL,
    model TEXT NOT NULL, seed INTEGER, width INTEGER NOT NULL, height INTEGER NOT NULL, created INTEGER NOT NULL,
    bytes INTEGER NOT NULL, favourite INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0,
    targets TEXT NOT NULL);
  CREATE INDEX newest ON pictures (deleted, created DESC, number DESC);
  CREATE TABLE targets (key TEXT NOT NULL, picture INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (key, picture)) WITHOUT ROWID;
  CREATE VIRTUAL TABLE words USING fts5(prompt, tokenize = 'unicode61');
  CREATE TABLE jobs (id TEXT PRIMARY KEY, finished INTEGER NOT NULL, view TEXT NOT NULL);
  PRAGMA user_version = ${VERSION};
`;

/**
 * A file that SQLite has the kernel lock, for one process at a time, until it closes the file or dies: also another
 * container sees at once whether somebody holds it.
 */
class Hold {
  /** @param db null on a file system that has no such locks, or has no room for the file */
  private constructor(readonly db: Database.Database | null) {}

  /** @returns null where another process holds it */
  static take(path: string): Hold | null {
    let db: Database.Database | undefined;
    try {
      db = new Database(path);
      db.exec("BEGIN EXCLUSIVE");
      return new Hold(db);
    } catch (error) {
      db?.close();
      return (error as { code?: unknown }).code === "SQLITE_BUSY" ? null : new Hold(null);
    }
  }

  get isSure(): boolean {
    return this.db !== null;
  }

  release(): void {
    this.db?.close();
  }
}

export class Gallery {
  readonly folder: string;
  readonly #studio: string;
  readonly #lock: FileLock;
  readonly #hold: Hold;
  readonly #db: Database.Database;
  #favourites: ReadonlySet<string>;
  /** The end of the change of favourites before: each stores all of them. */
  #storing: Promise<unknown> = Promise.resolve();
  readonly #now: () => Date;

  private constructor(folder: string, studio: string, lock: FileLock, hold: Hold, now: () => Date) {
    this.folder = folder;
    this.#studio = studio;
    this.#lock = lock;
    this.#hold = hold;
    this.#now = now;
    this.#favourites = readFavourites(studio);
    this.#db = openIndex(studio);
    this.#settleJobs();
  }

  /**
   * Opens the gallery of a folder, which this process then has alone. Where nothing is known of who has it, waits for a
   * sign of life of it, or for a silence that shows that it was killed.
   * @throws MiroError when another server has it, or it cannot be written
   */
  static async open(folder: string, { now = () => new Date(), ...wait }: GalleryOptions = {}): Promise<Gallery> {
    const studio = join(folder, ".studio");
    const taken = (by = "another process") =>
      new MiroError(
        message`${folder}: another studio serves these pictures (${by}); choose another ${option("output")}`,
      );
    createFolder(studio);
    const hold = Hold.take(join(studio, "server.sqlite"));
    if (hold === null) throw taken(FileLock.holder(studio, "server")?.name);
    let lock: FileLock | LockOwner | undefined;
    try {
      lock = await whenKnown(() => FileLock.acquire(studio, "server", { holdsFile: hold.isSure }), wait);
      if (!(lock instanceof FileLock)) throw taken(lock.text);
      return new Gallery(folder, studio, lock, hold, now);
    } catch (error) {
      if (lock instanceof FileLock) lock.release();
      hold.release();
      throw error;
    }
  }

  close(): void {
    this.#db.close();
    this.#lock.release();
    this.#hold.release();
  }

  /** A path for a new picture: a folder for each day. */
  newPath(): string {
    const now = this.#now();
    const { day, time } = localTime(now);
    return join(this.folder, day, `${time}-${randomBytes(5).toString("hex")}.png`);
  }

  /** Folder of a sweep's pictures, its sheet and its JSON file; null for what is no id of a job. */
  sweepFolder(job: string): string | null {
    return /^job-[0-9a-z]{8,40}$/.test(job) ? join(this.folder, "sweeps", job) : null;
  }

  /** Takes a picture into the index that has just been written. @returns its id */
  add(path: string, settings: ImageSettings): string {
    const { size, mtimeMs } = statSync(path);
    return this.#insert(path, size, mtimeMs, settings);
  }

  #insert(path: string, bytes: number, mtimeMs: number, settings: ImageSettings): string {
    const { model, variant, seed, width, height } = settings;
    // SQLite's texts end at a zero.
    const prompt = settings.prompt.replaceAll("\0", "\ufffd");
    const targets = Object.entries(settings.rewardTargets).filter(([, target]) => target !== null);
    const name = relative(this.folder, path).split(sep).join("/");
    const id = idOf(name);
    this.#write(() => {
      this.#remove(id);
      const columns = {
        id,
        path: name,
        prompt,
        model: variant ? `${model}@${variant}` : model,
        seed,
        width,
        height,
        created: Math.round(mtimeMs),
        bytes,
        favourite: this.#favourites.has(id) ? 1 : 0,
        targets: JSON.stringify(Object.fromEntries(targets)),
      };
      const places = Object.keys(columns).map(() => "?");
      const { lastInsertRowid: number } = this.#db
        .prepare(`INSERT INTO pictures (${Object.keys(columns).join(", ")}) VALUES (${places.join(", ")})`)
        .run(...Object.values(columns));
      this.#db.prepare("INSERT INTO words (rowid, prompt) VALUES (?, ?)").run(number, prompt);
      const target = this.#db.prepare("INSERT INTO targets (key, picture, value) VALUES (?, ?, ?)");
      for (const [key, value] of targets) target.run(key, number, value);
    });
    return id;
  }

  /** Takes a picture out of the index, where it is there. */
  #remove(id: string): void {
    const row = this.#known(id);
    if (!row) return;
    this.#db.prepare("DELETE FROM words WHERE rowid = ?").run(row.number);
    const target = this.#db.prepare("DELETE FROM targets WHERE key = ? AND picture = ?");
    for (const key of Object.keys(JSON.parse(row.targets))) target.run(key, row.number);
    this.#db.prepare("DELETE FROM pictures WHERE number = ?").run(row.number);
  }

  /** Does what nothing depends on: on a full disk the server goes on. */
  #try(change: () => void): void {
    try {
      change();
    } catch (error) {
      process.stderr.write(`warning: ${(error as Error).message}\n`);
    }
  }

  /** Changes the index, as a whole or not at all. @throws MiroError where it cannot be written */
  #write(change: () => void): void {
    try {
      // A statement that fails would hold up later transactions; beginning and ending one leave nothing behind.
      this.#db.exec("BEGIN IMMEDIATE");
      change();
      this.#db.exec("COMMIT");
    } catch (error) {
      // On a full disk SQLite itself has undone it.
      if (this.#db.inTransaction) this.#db.exec("ROLLBACK");
      const full = (error as { code?: unknown }).code === "SQLITE_FULL";
      const reason = systemReason(full ? { code: "ENOSPC" } : error);
      throw new MiroError(`${this.#studio}/index.sqlite: cannot be written: ${reason}`, { cause: error });
    }
  }

  /** Pictures, newest first. */
  list({ q, model, atLeast = {}, favourite, cursor, limit }: PictureQuery): PicturePage {
    const where = ["deleted = 0"];
    const values: unknown[] = [];
    const { words, parts } = readQuery(q ?? "");
    if (words.length > 0) {
      where.push("number IN (SELECT rowid FROM words WHERE words MATCH ?)");
      values.push(words.map((word) => `"${word}"*`).join(" "));
    }
    for (const part of parts) {
      where.push("instr(prompt, ?) > 0");
      values.push(part);
    }
    if (model !== undefined) {
      where.push("model = ?");
      values.push(model);
    }
    if (favourite !== undefined) {
      where.push("favourite = ?");
      values.push(favourite ? 1 : 0);
    }
    for (const [key, least] of Object.entries(atLeast)) {
      where.push("EXISTS (SELECT 1 FROM targets WHERE key = ? AND picture = number AND value >= ?)");
      values.push(key, least);
    }
    const after = cursor === undefined ? null : /^(\d{1,16})-(\d{1,16})$/.exec(cursor);
    if (after) {
      where.push("(created, number) < (?, ?)");
      values.push(Number(after[1]), Number(after[2]));
    }
    const rows = this.#db
      .prepare(`SELECT * FROM pictures WHERE ${where.join(" AND ")} ORDER BY created DESC, number DESC LIMIT ?`)
      .all(...values, limit + 1) as Row[];
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    return { pictures: page.map(entryOf), next: rows.length > limit ? `${last!.created}-${last!.number}` : null };
  }

  get(id: string): PictureEntry | null {
    const row = this.#row(id);
    return row && entryOf(row);
  }

  /** The file of a picture; null where there is none of the id. */
  pathOf(id: string): string | null {
    const row = this.#row(id);
    return row && this.#fileOf(row);
  }

  /** The file of a picture, as it is. */
  async bytes(id: string): Promise<Buffer | null> {
    return this.#made(id, async (bytes) => bytes);
  }

  async settings(id: string): Promise<ImageSettings | null> {
    return this.#made(id, async (bytes, path) => readSettings(readPng(bytes, path).text, path));
  }

  /**
   * The picture in another format, with its settings.
   * @param quality another one than the usual; such files are made each time
   */
  async converted(
    id: string,
    format: Exclude<ImageFormat, "png">,
    quality?: number | undefined,
  ): Promise<Buffer | null> {
    const make = async (bytes: Buffer, path: string) => {
      const settings = readSettings(readPng(bytes, path).text, path);
      const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true });
      const image = { width: info.width, height: info.height, data };
      return Buffer.from(await encodeImage(image, settingsToText(settings), { format, ...qualityOf(quality) }));
    };
    return quality === undefined ? this.#cached(id, `.${format}`, make) : this.#made(id, make);
  }

  async thumbnail(id: string): Promise<Buffer | null> {
    return this.#cached(id, "-thumbnail.webp", (bytes) =>
      sharp(bytes)
        .resize(THUMBNAIL_SIDE, THUMBNAIL_SIDE, { fit: "inside", withoutEnlargement: true })
        .webp()
        .toBuffer(),
    );
  }

  async #cached(
    id: string,
    ending: string,
    make: (bytes: Buffer, path: string) => Promise<Buffer>,
  ): Promise<Buffer | null> {
    const file = join(this.#studio, "cache", id.slice(0, 2), `${id}${ending}`);
    try {
      return await readFile(file);
    } catch {
      const made = await this.#made(id, make);
      try {
        // Another request may have made it too.
        if (made !== null) await writeFileAside(file, made, { overwrite: true });
      } catch {
        // It is there to be seen, also on a full disk; the next request makes it again.
      }
      return made;
    }
  }

  /**
   * What is made of a picture's file, also of one that has just gone to the trash: who asked for it still gets it. Null
   * where there is none of the id.
   * @throws MiroError naming the file where it cannot be read or is damaged
   */
  async #made<T>(id: string, make: (bytes: Buffer, path: string) => Promise<T>): Promise<T | null> {
    const row = this.#row(id, true);
    if (row === null) return null;
    const path = this.#fileOf(row);
    try {
      return await make(await readFile(path), path);
    } catch (error) {
      if (error instanceof MiroError) throw error;
      throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
    }
  }

  /**
   * Makes a picture a favourite, or none, beside the event loop: the disk may take its time.
   * @returns whether there is such a picture
   */
  setFavourite(id: string, favourite: boolean): Promise<boolean> {
    const stored = this.#storing.then(() => this.#storeFavourite(id, favourite));
    this.#storing = stored.catch(() => {});
    return stored;
  }

  async #storeFavourite(id: string, favourite: boolean): Promise<boolean> {
    if (!this.#row(id)) return false;
    const favourites = new Set(this.#favourites);
    if (favourite) favourites.add(id);
    else favourites.delete(id);
    const text = `${JSON.stringify([...favourites].sort())}\n`;
    await writeFileAside(join(this.#studio, "favourites.json"), Buffer.from(text), { overwrite: true });
    this.#favourites = favourites;
    this.#write(() => this.#db.prepare("UPDATE pictures SET favourite = ? WHERE id = ?").run(favourite ? 1 : 0, id));
    return true;
  }

  /** Moves a picture to the trash. */
  remove(id: string): boolean {
    const row = this.#row(id);
    if (row) this.#move(row, 1);
    return row !== null;
  }

  /** Takes a picture out of the trash. */
  restore(id: string): boolean {
    const row = this.#row(id, true);
    if (row?.deleted) this.#move(row, 0);
    return row !== null;
  }

  /** To the trash or back, in the folder and in the index, or in neither. */
  #move(row: Row, deleted: 0 | 1): void {
    const [from, to] = [this.#fileOf(row), this.#fileOf({ ...row, deleted })];
    try {
      makeFolder(dirname(to));
      renameSync(from, to);
    } catch (error) {
      throw new MiroError(`${to}: cannot be written: ${systemReason(error)}`, { cause: error });
    }
    try {
      this.#write(() => this.#db.prepare("UPDATE pictures SET deleted = ? WHERE id = ?").run(deleted, row.id));
    } catch (error) {
      renameSync(to, from);
      throw error;
    }
  }

  /**
   * Brings the index up to the files: takes in what it does not know, forgets what is gone.
   * @param signal ends the work
   */
  async repair(signal?: AbortSignal): Promise<{ added: number; removed: number; unreadable: string[] }> {
    const known = new Map<string, { id: string; bytes: number; created: number; deleted: number }>();
    const all = this.#db.prepare("SELECT id, path, bytes, created, deleted FROM pictures").all() as (Row & {
      bytes: number;
    })[];
    for (const row of all) known.set(row.path, row);
    const result = { added: 0, removed: 0, unreadable: [] as string[] };
    for (const [root, deleted] of [
      [this.folder, false],
      [join(this.#studio, "trash"), true],
    ] as const) {
      for (const path of pngsBelow(root)) {
        if (signal?.aborted) return result;
        const name = relative(root, path).split(sep).join("/");
        try {
          const { size, mtimeMs } = await stat(path);
          const row = known.get(name);
          known.delete(name);
          if (row && row.bytes === size && row.created === Math.round(mtimeMs) && Boolean(row.deleted) === deleted)
            continue;
          const { text } = readPng(await readFile(path), path);
          if (isSheet(text)) continue;
          const settings = readSettings(text, path);
          const id = this.#insert(join(this.folder, name), size, mtimeMs, settings);
          if (deleted) this.#db.prepare("UPDATE pictures SET deleted = 1 WHERE id = ?").run(id);
          result.added++;
        } catch (error) {
          if (error instanceof MiroError) result.unreadable.push(name);
          else if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        }
      }
    }
    const left = [...known];
    for (let i = 0; i < left.length && !signal?.aborted; i += FORGOTTEN_AT_ONCE) {
      const gone = left
        .slice(i, i + FORGOTTEN_AT_ONCE)
        .filter(([name]) => !existsSync(join(this.folder, name)) && !existsSync(join(this.#studio, "trash", name)));
      this.#write(() => gone.forEach(([, { id }]) => void this.#remove(id)));
      result.removed += gone.length;
      await setImmediate(); // requests come in between
    }
    return result;
  }

  /** Keeps what is known of a job for the next server. */
  rememberJob(view: JobView): void {
    const finished = view.finishedAt === null ? 0 : 1;
    const remember = this.#db.prepare("INSERT OR REPLACE INTO jobs (id, finished, view) VALUES (?, ?, ?)");
    this.#try(() => this.#write(() => remember.run(view.id, finished, JSON.stringify(view))));
  }

  recallJob(id: string): JobView | null {
    const row = this.#db.prepare("SELECT view FROM jobs WHERE id = ?").get(id) as { view: string } | undefined;
    return row === undefined ? null : (JSON.parse(row.view) as JobView);
  }

  forgetJob(id: string): void {
    this.#try(() => this.#write(() => this.#db.prepare("DELETE FROM jobs WHERE id = ?").run(id)));
  }

  /**
   * Of the jobs of an earlier server, those that it did not finish are lost, and those that were kept their time go.
   */
  #settleJobs(): void {
    this.#db
      .prepare("DELETE FROM jobs WHERE finished = 1 AND json_extract(view, '$.finishedAt') < ?")
      .run(new Date(this.#now().getTime() - KEEP_JOB_MS).toISOString());
    const rows = this.#db.prepare("SELECT view FROM jobs WHERE finished = 0").all() as { view: string }[];
    for (const { view } of rows) {
      const lost = JSON.parse(view) as JobView;
      const error = "the job was lost when the server ended; ask for it again";
      this.rememberJob({ ...lost, status: "failed", position: null, finishedAt: this.#now().toISOString(), error });
    }
  }

  /** A picture whose file is there; one whose file somebody has taken away is forgotten. */
  #row(id: string, alsoDeleted = false): Row | null {
    const row = this.#known(id);
    if (row === null || (row.deleted && !alsoDeleted)) return null;
    if (existsSync(this.#fileOf(row))) return row;
    // A folder that is gone as a whole, as on a disk that is not mounted, may come back.
    if (existsSync(this.folder)) this.#try(() => this.#write(() => this.#remove(id)));
    return null;
  }

  #known(id: string): Row | null {
    return (this.#db.prepare("SELECT * FROM pictures WHERE id = ?").get(id) as Row | undefined) ?? null;
  }

  #fileOf({ path, deleted }: Pick<Row, "path" | "deleted">): string {
    return deleted ? join(this.#studio, "trash", path) : join(this.folder, path);
  }
}

function openIndex(studio: string): Database.Database {
  const path = join(studio, "index.sqlite");
  const open = () => {
    const db = new Database(path);
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
    const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (
      version === VERSION &&
      (db.prepare("PRAGMA quick_check(1)").get() as { quick_check: string }).quick_check === "ok"
    )
      return db;
    db.close();
    return null;
  };
  try {
    const db = existsSync(path) ? open() : null;
    if (db) return db;
  } catch {
    // Damaged: everything in it comes from the files.
  }
  for (const end of ["", "-wal", "-shm"]) rmSync(path + end, { force: true });
  const db = new Database(path);
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
  db.exec(TABLES);
  return db;
}

function readFavourites(studio: string): Set<string> {
  const path = join(studio, "favourites.json");
  if (!existsSync(path)) return new Set();
  const { data } = favouritesSchema.safeParse(readJson(path));
  if (data !== undefined) return new Set(data);
  throw new InvalidInputError(`${path}: expected a list of ids of pictures; without the file there are no favourites`);
}

function* pngsBelow(folder: string): Generator<string> {
  if (!existsSync(folder)) return;
  const folders = [folder];
  for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
    for (const entry of readdirSync(next, { withFileTypes: true })) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory()) folders.push(join(next, entry.name));
      else if (entry.isFile() && entry.name.toLowerCase().endsWith(".png")) yield join(next, entry.name);
    }
  }
}

/** An id that says nothing of where the file is, and is the same whenever the index is made. */
function idOf(name: string): string {
  return createHash("sha256").update(name).digest("hex").slice(0, 24);
}

function entryOf({ id, prompt, model, seed, width, height, created, favourite, targets }: Row): PictureEntry {
  return {
    id,
    prompt,
    model,
    seed,
    width,
    height,
    favourite: favourite === 1,
    createdAt: new Date(created).toISOString(),
    rewardTargets: JSON.parse(targets) as Record<string, number>,
  };
}

/** Scripts that put no spaces between words: the index takes a whole phrase for one word. */
const UNSPACED = /[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}]/u;

/** Of a search the words, each of which begins one of the prompt, and what may stand anywhere, such as an emoji. */
function readQuery(text: string): { words: string[]; parts: string[] } {
  const found = text.match(/[\p{L}\p{N}]+/gu) ?? [];
  return {
    words: found.filter((word) => !UNSPACED.test(word)),
    parts: [
      ...found.filter((word) => UNSPACED.test(word)),
      ...text.split(/\s+/).filter((piece) => piece !== "" && !/[\p{L}\p{N}]/u.test(piece)),
    ],
  };
}
