/**
 * Worker thread of the decoding pool: reads a picture's bytes, decodes it, makes the squares that were asked for
 * (decode-pool.ts).
 */
import { type FileHandle, open } from "node:fs/promises";
import { parentPort } from "node:worker_threads";
import { systemReason } from "../../errors.js";
import { centreSquare } from "../../pictures/crop.js";
import { decodeWithOrientation, ImageError, type OrientedImage } from "../../pictures/decode.js";
import type { DecodeJob, DecodeReply, DecodeResult } from "./decode-pool.js";

/** The file that was read last: most pictures of a shard lie in one. */
let current: { path: string; file: Promise<FileHandle>; users: number } | null = null;

async function withFile<T>(path: string, use: (file: FileHandle) => Promise<T>): Promise<T> {
  if (current?.path !== path) {
    const old = current;
    current = { path, file: open(path), users: 0 };
    if (old?.users === 0) void close(old);
  }
  const entry = current;
  entry.users++;
  try {
    return await use(await entry.file);
  } finally {
    entry.users--;
    if (entry !== current && entry.users === 0) void close(entry);
  }
}

async function close({ file }: { file: Promise<FileHandle> }): Promise<void> {
  await file.then((handle) => handle.close()).catch(() => undefined);
}

async function read({ path, offset, size, bytes: given }: DecodeJob["image"]): Promise<Uint8Array> {
  if (given !== undefined) return given;
  return withFile(path, async (file) => {
    const stats = await file.stat();
    const length = size ?? stats.size;
    if (offset + length > stats.size)
      throw new ImageError("bad-image", `${path}: ends at byte ${stats.size}, ${offset + length} expected`);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0) throw new ImageError("bad-image", `${path}: ends at byte ${offset + done}`);
      done += bytesRead;
    }
    return bytes;
  });
}

async function decode(job: DecodeJob): Promise<DecodeResult> {
  const started = performance.now();
  let bytes: Uint8Array;
  try {
    bytes = await read(job.image);
  } catch (error) {
    if (error instanceof ImageError) return { reason: error.reason, message: error.message };
    return { reason: "unreadable", message: `${job.image.path}: ${systemReason(error)}` };
  }
  const readMs = performance.now() - started;
  let decoded: OrientedImage;
  try {
    decoded = await decodeWithOrientation(bytes, { maxPixels: job.maxPixels, orient: job.orient });
  } catch (error) {
    if (error instanceof ImageError) return { reason: error.reason, message: error.message };
    throw error;
  }
  const { image, orientation } = decoded;
  const squares = job.sides.map((side) => centreSquare(image, side).data);
  const { width, height } = image;
  return {
    width,
    height,
    bytes: job.keepBytes ? bytes : null,
    pixels: job.keepPixels ? own(image.data) : null,
    squares,
    unturned: !job.orient && orientation > 1,
    readMs,
    decodeMs: performance.now() - started - readMs,
  };
}

/** Bytes in a buffer of their own, which can be handed over. */
function own(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength && bytes.constructor === Uint8Array
    ? bytes
    : new Uint8Array(bytes);
}

/** Jobs that wait, and how many are worked on: one is decoded while the next is read. */
const waiting: { id: number; job: DecodeJob }[] = [];
const LANES = 2;
let busy = 0;

parentPort!.on("message", (message: { id: number; job: DecodeJob }) => {
  waiting.push(message);
  if (busy < LANES) void work();
});

async function work(): Promise<void> {
  busy++;
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await answer(next);
  busy--;
}

async function answer({ id, job }: { id: number; job: DecodeJob }): Promise<void> {
  let reply: DecodeReply;
  const buffers: ArrayBuffer[] = [];
  try {
    const result = await decode(job);
    reply = { id, result };
    if ("squares" in result)
      for (const part of [result.bytes, result.pixels, ...result.squares])
        if (part !== null) buffers.push(part.buffer as ArrayBuffer);
  } catch (error) {
    reply = { id, error: error instanceof Error ? error.message : String(error) };
  }
  parentPort!.postMessage(reply, buffers);
}
