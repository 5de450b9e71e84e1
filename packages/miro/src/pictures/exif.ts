/**
 * Settings inside JPEG and WebP, where there are no text chunks.
 *
 * * The `parameters` line goes where the tools that read it look: into EXIF's UserComment (Exif 2.32, tag 0x9286, with
 *   the prefix `UNICODE\0` and UTF-16), in a block that is written here because sharp can only give it ASCII.
 * * The JSON goes into an XMP packet (ISO 16684-1), as the property `settings` of a namespace of our own.
 *
 * A segment of a JPEG holds 64 KB. A longer packet goes into segments of extended XMP (ISO 16684-3, 1.1.3.1: the packet
 * proper names it by its MD5), and so does a comment that no EXIF block can hold, as the property `parameters`.
 *
 * EXIF is a TIFF structure: a header, then directories of 12-byte entries (tag, type, count, value or offset).
 */
import { createHash } from "node:crypto";
import { MiroError } from "../errors.js";
import { trimEnd } from "../files/trim.js";
import { escapeXml, unescapeXml } from "./xml.js";

const NAMESPACE = "https://www.npmjs.com/package/miro-t2i/ns/1.0/";

const SOFTWARE = 0x0131;
const EXIF_DIRECTORY = 0x8769;
const EXIF_VERSION = 0x9000;
const USER_COMMENT = 0x9286;
const ASCII = 2;
const LONG = 4;
const UNDEFINED = 7;

/** An EXIF block (TIFF, big-endian) with the name of a program (ASCII) and a comment of any characters. */
export function makeExif(software: string, comment: string): Buffer {
  const name = Buffer.from(`${software.replace(/[^\x20-\x7e]/g, "?")}\0`, "latin1");
  const text = Buffer.concat([Buffer.from("UNICODE\0", "latin1"), Buffer.from(comment, "utf16le").swap16()]);
  const entries = 2 + 2 * 12 + 4; // count, entries, offset of the next directory
  const nameAt = 8 + entries;
  const exifAt = nameAt + name.length + (name.length % 2);
  const textAt = exifAt + entries;
  const out = Buffer.alloc(textAt + text.length);
  out.write("MM\0*", 0, "latin1");
  out.writeUInt32BE(8, 4);
  out.writeUInt16BE(2, 8);
  writeEntry(out, 10, SOFTWARE, ASCII, name.length, nameAt);
  writeEntry(out, 22, EXIF_DIRECTORY, LONG, 1, exifAt);
  out.set(name, nameAt);
  out.writeUInt16BE(2, exifAt);
  writeEntry(out, exifAt + 2, EXIF_VERSION, UNDEFINED, 4, Buffer.from("0232", "latin1").readUInt32BE());
  writeEntry(out, exifAt + 14, USER_COMMENT, UNDEFINED, text.length, textAt);
  out.set(text, textAt);
  return out;
}

function writeEntry(out: Buffer, at: number, tag: number, type: number, count: number, value: number): void {
  out.writeUInt16BE(tag, at);
  out.writeUInt16BE(type, at + 2);
  out.writeUInt32BE(count, at + 4);
  out.writeUInt32BE(value, at + 8);
}

/**
 * The user comment of an EXIF block of either byte order, with or without the prefix `Exif\0\0`.
 * @returns null when there is none or the block is malformed
 */
export function readUserComment(exif: Uint8Array): string | null {
  let block = Buffer.from(exif.buffer, exif.byteOffset, exif.byteLength);
  if (block.subarray(0, 6).toString("latin1") === "Exif\0\0") block = block.subarray(6);
  const little = block.subarray(0, 4).toString("latin1") === "II*\0";
  if (!little && block.subarray(0, 4).toString("latin1") !== "MM\0*") return null;
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  try {
    const directory = find(view, little, view.getUint32(4, little), EXIF_DIRECTORY);
    const entry = directory && find(view, little, view.getUint32(directory + 8, little), USER_COMMENT);
    if (!entry) return null;
    const count = view.getUint32(entry + 4, little);
    const from = count <= 4 ? entry + 8 : view.getUint32(entry + 8, little);
    if (from + count > block.length) return null;
    return decodeComment(block.subarray(from, from + count), little);
  } catch (error) {
    if (error instanceof RangeError) return null; // an offset beyond the block
    throw error;
  }
}

/** Where a directory's entry for `tag` begins, or null. */
function find(view: DataView, little: boolean, directory: number, tag: number): number | null {
  const count = view.getUint16(directory, little);
  for (let i = 0; i < count; i++) {
    const entry = directory + 2 + 12 * i;
    if (view.getUint16(entry, little) === tag) return entry;
  }
  return null;
}

function decodeComment(bytes: Buffer, little: boolean): string {
  const text = bytes.subarray(8);
  const code = bytes.subarray(0, 8).toString("latin1");
  if (code !== "UNICODE\0") return withoutNuls((/^(ASCII\0\0\0|\0{8})$/.test(code) ? text : bytes).toString("utf8"));
  const even = Buffer.from(text.subarray(0, text.length - (text.length % 2)));
  return withoutNuls((little ? even : even.swap16()).toString("utf16le"));
}

function withoutNuls(text: string): string {
  return trimEnd(text, (character) => character === "\0");
}

/** An XMP packet that holds `json`. */
export function makeXmp(json: string, software: string): string {
  return packet(
    `xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:miro="${NAMESPACE}" xmp:CreatorTool="${escapeXml(software)}"`,
    property("settings", json),
  );
}

function packet(attributes: string, content: string): string {
  return `<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n${meta(attributes, content)}\n<?xpacket end="w"?>`;
}

function meta(attributes: string, content: string): string {
  return `<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" ${attributes}>${content}</rdf:Description></rdf:RDF></x:xmpmeta>`;
}

function property(name: string, value: string): string {
  return `<miro:${name}>${jsonInXml(value)}</miro:${name}>`;
}

/** A property of {@link makeXmp}, also after another program has rewritten the packet, or null. */
export function readXmp(packet: string, name: "settings" | "parameters" = "settings"): string | null {
  const open = `<miro:${name}>`;
  const start = packet.indexOf(open) + open.length;
  const end = packet.indexOf("<", start);
  if (start >= open.length && packet.startsWith(`</miro:${name}>`, end)) return unescapeXml(packet.slice(start, end));
  const attribute = (name === "settings" ? SETTINGS : PARAMETERS).exec(packet);
  const text = attribute?.[1] ?? attribute?.[2];
  return text === undefined ? null : unescapeXml(text);
}

const SETTINGS = /\smiro:settings=(?:"([^"<]*)"|'([^'<]*)')/;
const PARAMETERS = /\smiro:parameters=(?:"([^"<]*)"|'([^'<]*)')/;

/** JSON holds no raw control characters; what XML forbids beyond them is escaped as JSON does. */
function jsonInXml(json: string): string {
  return escapeXml(
    json.replace(/[\x7f-\x9f\ufffe\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
  );
}

const EXIF_PREFIX = Buffer.from("Exif\0\0", "latin1");
const XMP_PREFIX = Buffer.from("http://ns.adobe.com/xap/1.0/\0", "latin1");
const EXTENSION_PREFIX = Buffer.from("http://ns.adobe.com/xmp/extension/\0", "latin1");
/** Bytes of a segment behind its length. */
const SEGMENT_BYTES = 0xffff - 2;
/** Bytes of an extended packet in one segment; prefix, MD5, length and offset stand in front of them. */
const EXTENSION_BYTES = 65_400;

/** Puts the settings into a JPEG, behind its first marker: `parameters` and the JSON, of any length. */
export function insertIntoJpeg(
  jpeg: Uint8Array,
  { software, parameters, json }: { software: string; parameters: string; json: string },
): Buffer {
  const exif = makeExif(software, parameters);
  const isLong = EXIF_PREFIX.length + exif.length > SEGMENT_BYTES;
  const packetBytes = Buffer.from(makeXmp(json, software));
  const fits = !isLong && XMP_PREFIX.length + packetBytes.length <= SEGMENT_BYTES;
  const content = property("settings", json) + (isLong ? property("parameters", JSON.stringify(parameters)) : "");
  return Buffer.concat([
    jpeg.subarray(0, 2),
    segment(EXIF_PREFIX, isLong ? makeExif(software, "") : exif),
    ...(fits ? [segment(XMP_PREFIX, packetBytes)] : extendedXmp(software, content)),
    jpeg.subarray(2),
  ]);
}

function extendedXmp(software: string, content: string): Buffer[] {
  const extended = Buffer.from(meta(`xmlns:miro="${NAMESPACE}"`, content));
  const digest = createHash("md5").update(extended).digest("hex").toUpperCase();
  const main = packet(
    `xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmp:CreatorTool="${escapeXml(software)}" xmpNote:HasExtendedXMP="${digest}"`,
    "",
  );
  const parts = [segment(XMP_PREFIX, Buffer.from(main))];
  for (let at = 0; at < extended.length; at += EXTENSION_BYTES) {
    const head = Buffer.alloc(40);
    head.write(digest, "latin1");
    head.writeUInt32BE(extended.length, 32);
    head.writeUInt32BE(at, 36);
    parts.push(segment(EXTENSION_PREFIX, head, extended.subarray(at, at + EXTENSION_BYTES)));
  }
  return parts;
}

/** A segment APP1. */
function segment(...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(0xffe1, 0);
  head.writeUInt16BE(content.length + 2, 2);
  return Buffer.concat([head, content]);
}

/** The extended packet that a JPEG's packet names, or null when there is none or it is not whole. */
export function readExtendedXmp(jpeg: Buffer, main: string): string | null {
  const digest = /\sxmpNote:HasExtendedXMP=["']([0-9A-F]{32})["']/.exec(main)?.[1];
  if (digest === undefined) return null;
  const parts: { offset: number; bytes: Buffer }[] = [];
  for (const content of appSegments(jpeg)) {
    const at = EXTENSION_PREFIX.length;
    if (content.length < at + 40 || !content.subarray(0, at).equals(EXTENSION_PREFIX)) continue;
    if (content.toString("latin1", at, at + 32) !== digest) continue;
    parts.push({ offset: content.readUInt32BE(at + 36), bytes: content.subarray(at + 40) });
  }
  const extended = Buffer.concat(parts.sort((a, b) => a.offset - b.offset).map(({ bytes }) => bytes));
  const found = createHash("md5").update(extended).digest("hex").toUpperCase();
  return found === digest ? extended.toString("utf8") : null;
}

/** The contents of the segments APP1 in front of a JPEG's pixels. */
function* appSegments(jpeg: Buffer): Generator<Buffer> {
  for (let at = 2; at + 4 <= jpeg.length && jpeg[at] === 0xff; ) {
    const marker = jpeg[at + 1]!;
    if (marker === 0xda || marker === 0xd9) return;
    const length = jpeg.readUInt16BE(at + 2);
    if (length < 2) return;
    if (marker === 0xe1) yield jpeg.subarray(at + 4, at + 2 + length);
    at += 2 + length;
  }
}

/** Puts an EXIF block into an extended WebP (RFC 9649, 2.7), behind the pixels and in front of the XMP packet. */
export function insertIntoWebp(webp: Uint8Array, exif: Uint8Array): Buffer {
  const file = Buffer.from(webp);
  if (file.toString("latin1", 12, 16) !== "VP8X") throw new MiroError("a WebP without an extended header");
  let at = 12;
  while (at + 8 <= file.length && file.toString("latin1", at, at + 4) !== "XMP ") at += chunkSize(file, at);
  const head = Buffer.alloc(8);
  head.write("EXIF", 0, "latin1");
  head.writeUInt32LE(exif.length, 4);
  const padding = Buffer.alloc(exif.length % 2);
  const out = Buffer.concat([file.subarray(0, at), head, exif, padding, file.subarray(at)]);
  out.writeUInt32LE(out.length - 8, 4);
  out[20]! |= 0x08; // the flag of an EXIF chunk
  return out;
}

function chunkSize(file: Buffer, at: number): number {
  const size = file.readUInt32LE(at + 4);
  return 8 + size + (size % 2);
}
