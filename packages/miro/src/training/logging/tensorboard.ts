/**
 * Event files of TensorBoard: scalars and pictures.
 *
 * A file is a sequence of TFRecords (tensorflow/core/lib/io/record_writer.h):
 *
 *   uint64 length · uint32 masked CRC-32C of those 8 bytes · data · uint32 masked CRC-32C of the data (little endian)
 *   masked(crc) = ((crc >> 15) | (crc << 17)) + 0xa282ead8
 *
 * The data of each is an `Event` message (tensorflow/core/util/event.proto); the fields that are written here:
 *
 *   Event 1 wall_time double · 2 step int64 · 3 file_version string · 5 summary Summary · 7 session_log SessionLog
 *   Summary      1 value Value, repeated
 *   Value        1 tag string · 2 simple_value float · 4 image Image
 *   Image 1 height int32 · 2 width int32 · 3 colorspace int32 (3: RGB) · 4 encoded_image_string bytes (PNG or JPEG)
 *   SessionLog   1 status enum (1: START)
 *
 * Every start of a run, resumed ones included, writes a file of its own, because a reader never goes past a record that
 * a killed process cut off. A start that begins after step 0 says so with SessionLog.START, upon which TensorBoard
 * forgets what earlier files hold from that step on.
 */
import { openSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { MiroError, systemReason } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { LogFile } from "./log-file.js";

/** A picture for {@link EventWriter.image}. */
export interface EventImage {
  /** Pixels. */
  width: number;
  /** Pixels. */
  height: number;
  /** A PNG or JPEG file, 8-bit RGB. */
  encoded: Uint8Array;
}

/** What {@link EventWriter} is opened with. */
export interface EventWriterOptions {
  /** Folder for the event file; created when it is not there. */
  folder: string;
  /** The first step that this file will hold; 0 for a new run. Later steps of earlier files are discarded. */
  firstStep: number;
  /** The clock, in seconds since 1970. */
  now?: (() => number) | undefined;
  /** Told when the file cannot be written, which does not end a run. */
  onTrouble?: ((message: string) => void) | undefined;
}

/** An event file that is being written; what has been written is on the disk's side of the process. */
export class EventWriter {
  /** The file. */
  readonly path: string;
  readonly #file: LogFile;
  readonly #now: () => number;

  /** @throws MiroError when the file cannot be created */
  constructor({ folder, firstStep, now = () => Date.now() / 1000, onTrouble }: EventWriterOptions) {
    this.#now = now;
    const seconds = String(Math.floor(now())).padStart(10, "0");
    // TensorBoard reads the files of a folder in the order of their names.
    const counter = String(files++);
    this.path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${counter}`);
    try {
      makeFolder(folder);
      this.#file = new LogFile(this.path, openSync(this.path, "ax"), onTrouble);
    } catch (error) {
      throw new MiroError(`${this.path}: cannot be created: ${systemReason(error)}`, { cause: error });
    }
    this.#write(firstStep, text(3, "brain.Event:2"));
    if (firstStep > 0) this.#write(firstStep, message(7, varint(1, 1)));
  }

  /** Numbers of one step by name; what is not a number is left out. */
  scalars(step: number, values: Readonly<Record<string, unknown>>): void {
    const summary = Object.entries(values).flatMap(([tag, value]) =>
      typeof value === "number" ? [message(1, Buffer.concat([text(1, tag), float(2, value)]))] : [],
    );
    if (summary.length > 0) this.#write(step, message(5, Buffer.concat(summary)));
  }

  /** A picture of one step. */
  image(step: number, tag: string, { width, height, encoded }: EventImage): void {
    const image = [varint(1, height), varint(2, width), varint(3, 3), bytes(4, encoded)];
    this.#write(step, message(5, message(1, Buffer.concat([text(1, tag), message(4, Buffer.concat(image))]))));
  }

  close(): void {
    this.#file.close();
  }

  #write(step: number, what: Buffer): void {
    this.#file.append(
      frameRecord(Buffer.concat([double(1, this.#now()), ...(step === 0 ? [] : [varint(2, step)]), what])),
    );
  }
}

/** Event files that this process has opened. */
let files = 0;

/** A TFRecord around its data. */
export function frameRecord(data: Uint8Array): Buffer {
  const record = Buffer.alloc(data.length + 16);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskedCrc32c(record.subarray(0, 8)), 8);
  record.set(data, 12);
  record.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return record;
}

/** CRC-32C (Castagnoli, RFC 3720) as TFRecords store it. */
function maskedCrc32c(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** CRC-32C of bytes: reflected polynomial 0x82f63b78, initial and final complement. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c;
});

// Protocol buffers (protobuf.dev/programming-guides/encoding): a field is its key, (number << 3) | wire type, and its
// value.
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/** A number from 0 to 2⁵³ in groups of seven bits, lowest first. */
function base128(value: number): Buffer {
  const groups: number[] = [];
  let rest = value;
  while (rest >= 128) {
    groups.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...groups, rest]);
}

function key(field: number, wireType: number): Buffer {
  return base128(field * 8 + wireType);
}

function varint(field: number, value: number): Buffer {
  return Buffer.concat([key(field, VARINT), base128(value)]);
}

function double(field: number, value: number): Buffer {
  const data = Buffer.alloc(8);
  data.writeDoubleLE(value);
  return Buffer.concat([key(field, FIXED64), data]);
}

function float(field: number, value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeFloatLE(value);
  return Buffer.concat([key(field, FIXED32), data]);
}

function bytes(field: number, data: Uint8Array): Buffer {
  return Buffer.concat([key(field, LENGTH), base128(data.length), data]);
}

const message = bytes;

function text(field: number, value: string): Buffer {
  return bytes(field, Buffer.from(value, "utf8"));
}
