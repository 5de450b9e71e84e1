/**
 * Emoji pictures ready for compositing: cropped to their visible box, at several sizes, premultiplied by alpha.
 *
 * Decoding 120 webp files takes a second and the 984 of the core ten, so the result is kept in one binary file in the
 * user's cache folder, named by a hash of everything that it depends on. It is written beside its place and renamed,
 * and checked when read: a file that is cut short or of another version is made again.
 *
 * File: "MIROEMO1", u32 header length, JSON header, then the levels' bytes one after the other.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "@miro-t2i/torch/atomic-write";
import { makeFolder } from "../../files/make-folder.js";
import { ownCache } from "../../files/own-cache.js";
import { sharp } from "../../pictures/sharp.js";
import { type EmojiEntry, spriteFolder } from "./vocabulary.js";

/**
 * One size of a sprite: `(height + 2) × (width + 2)` pixels of premultiplied RGBA bytes, with a transparent border of
 * one pixel, so that bilinear sampling fades at the edges without bounds checks.
 */
export interface SpriteLevel {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export interface Sprite {
  readonly entry: EmojiEntry;
  /** Largest first; each about 1/√2 of the one before, so that bilinear sampling shrinks by at most √2. */
  readonly levels: readonly SpriteLevel[];
  /** Mostly saturated colours and no colour word in its name: may be drawn in another hue. */
  readonly tintable: boolean;
}

interface Header {
  tintable: boolean[];
  /** [width, height] of each level of each sprite. */
  sizes: [number, number][][];
}

const MAGIC = "MIROEMO1";
const SMALLEST_SIDE = 16;
const COLOUR_WORD = /\b(red|orange|yellow|green|blue|purple|pink|brown|grey|black|white)\b/;

const spriteCacheFolder = () => join(ownCache(), "emoji");

/**
 * Loads the sprites of a vocabulary, from the cache where it is there.
 *
 * @param maxSide longest side of the largest level, in pixels (at most 240; the sources are 256 × 256)
 */
export async function loadSprites(vocabulary: readonly EmojiEntry[], maxSide: number): Promise<Sprite[]> {
  const sides = levelSides(maxSide);
  const key = createHash("sha256")
    .update(JSON.stringify([MAGIC, sides, vocabulary.map((entry) => entry.code)]))
    .digest("hex")
    .slice(0, 24);
  const path = join(spriteCacheFolder(), `${key}.sprites`);
  const cached = readCache(path, vocabulary, sides.length);
  if (cached !== null) return cached;

  const sprites: Sprite[] = [];
  for (const entry of vocabulary) sprites.push(await decodeSprite(entry, sides));
  writeCache(path, sprites);
  return sprites;
}

function levelSides(maxSide: number): number[] {
  const sides: number[] = [];
  for (let side = Math.min(Math.round(maxSide), 240); side >= SMALLEST_SIDE; side = Math.round(side / Math.SQRT2)) {
    sides.push(side);
  }
  return sides;
}

async function decodeSprite(entry: EmojiEntry, sides: readonly number[]): Promise<Sprite> {
  const { data, info } = await sharp(join(spriteFolder(), `${entry.code}.webp`))
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  let [left, top, right, bottom] = [info.width, info.height, -1, -1];
  let opaque = 0;
  let saturated = 0;
  for (let y = 0; y < info.height; y++) {
    for (let x = 0; x < info.width; x++) {
      const at = (y * info.width + x) * 4;
      if (data[at + 3]! < 8) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      if (data[at + 3]! < 128) continue;
      const high = Math.max(data[at]!, data[at + 1]!, data[at + 2]!);
      const low = Math.min(data[at]!, data[at + 1]!, data[at + 2]!);
      opaque++;
      if (high - low > 0.3 * high) saturated++;
    }
  }
  const box = { left, top, width: right - left + 1, height: bottom - top + 1 };
  const levels: SpriteLevel[] = [];
  for (const side of sides) {
    const scale = side / Math.max(box.width, box.height);
    const width = Math.max(1, Math.round(box.width * scale));
    const height = Math.max(1, Math.round(box.height * scale));
    const pixels = await sharp(data, { raw: { width: info.width, height: info.height, channels: 4 } })
      .extract(box)
      .resize(width, height, { fit: "fill" })
      .raw()
      .toBuffer();
    levels.push({ width, height, data: premultiplyWithBorder(pixels, width, height) });
  }
  return { entry, levels, tintable: saturated > 0.6 * opaque && !COLOUR_WORD.test(entry.label) };
}

function premultiplyWithBorder(pixels: Uint8Array, width: number, height: number): Uint8Array {
  const out = new Uint8Array((width + 2) * (height + 2) * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (y * width + x) * 4;
      const to = ((y + 1) * (width + 2) + x + 1) * 4;
      const alpha = pixels[from + 3]!;
      for (let c = 0; c < 3; c++) out[to + c] = Math.round((pixels[from + c]! * alpha) / 255);
      out[to + 3] = alpha;
    }
  }
  return out;
}

function writeCache(path: string, sprites: readonly Sprite[]): void {
  const header: Header = {
    tintable: sprites.map((sprite) => sprite.tintable),
    sizes: sprites.map((sprite) => sprite.levels.map((level) => [level.width, level.height])),
  };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  const parts = sprites.flatMap((sprite) => sprite.levels.map((level) => level.data));
  try {
    makeFolder(spriteCacheFolder());
    writeFileAtomically(path, (write) => {
      for (const part of [Buffer.from(MAGIC), length, json, ...parts]) write(part);
    });
  } catch {
    // A cache that cannot be written (read-only home, full disk) only costs the time of decoding again.
  }
}

function readCache(path: string, vocabulary: readonly EmojiEntry[], levelCount: number): Sprite[] | null {
  let file: Buffer;
  try {
    file = readFileSync(path);
  } catch {
    return null;
  }
  try {
    if (file.toString("latin1", 0, 8) !== MAGIC) return null;
    let at = 12 + file.readUInt32LE(8);
    const header: Header = JSON.parse(file.toString("utf8", 12, at));
    if (header.sizes.length !== vocabulary.length || header.tintable.length !== vocabulary.length) return null;
    const sprites = vocabulary.map((entry, i): Sprite => {
      const levels = header.sizes[i]!.map(([width, height]): SpriteLevel => {
        const bytes = (width + 2) * (height + 2) * 4;
        const data = file.subarray(at, at + bytes);
        at += bytes;
        return { width, height, data };
      });
      if (levels.length !== levelCount) throw new Error("other levels");
      return { entry, levels, tintable: header.tintable[i]! };
    });
    return at === file.length ? sprites : null;
  } catch {
    return null;
  }
}
