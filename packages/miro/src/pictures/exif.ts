/**
 * Settings inside JPEG and WebP, where there are no text chunks.
 *
 * * The `parameters` line goes where the tools that read it look: into EXIF's UserComment (Exif 2.32, tag 0x9286, with the
 *   prefix `UNICODE\0` and UTF-16), in a block that is written here because sharp can only give it ASCII.
 * * The JSON goes into an XMP packet (ISO 16684-1), as the property `settings` of a namespace of our own.
 *
 * EXIF is a TIFF structure: a header, then directories of 12-byte entries (tag, type, count, value or offset).
 */
import { MiroError } from "../errors.js";

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
  if (code !== "UNICODE\0") return trimEnd((/^(ASCII\0\0\0|\0{8})$/.test(code) ? text : bytes).toString("utf8"));
  const even = Buffer.from(text.subarray(0, text.length - (text.length % 2)));
  return trimEnd((little ? even : even.swap16()).toString("utf16le"));
}

function trimEnd(text: string): string {
  return text.replace(/\0+$/, "");
}

/** An XMP packet that holds `json`. */
export function makeXmp(json: string, software: string): string {
  return `<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:miro="${NAMESPACE}" xmp:CreatorTool="${escapeXml(software)}"><miro:settings>${escapeXml(json)}</miro:settings></rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>`;
}

/** The JSON of {@link makeXmp}, also after another program has rewritten the packet, or null. */
export function readXmp(packet: string): string | null {
  const element = /<miro:settings>([^<]*)<\/miro:settings>/.exec(packet);
  const attribute = /\smiro:settings=(?:"([^"<]*)"|'([^'<]*)')/.exec(packet);
  const text = element?.[1] ?? attribute?.[1] ?? attribute?.[2];
  return text === undefined ? null : unescapeXml(text);
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/** Text for an element or an attribute. JSON holds no raw control characters; what XML forbids beyond them is escaped as JSON does. */
function escapeXml(json: string): string {
  return json
    .replace(/[\x7f-\x9f\ufffe\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .replace(/[&<>"']/g, (c) => `&${Object.entries(ENTITIES).find(([, char]) => char === c)![0]};`);
}

function unescapeXml(text: string): string {
  return text.replace(/&(?:#x([0-9a-fA-F]{1,6})|#(\d{1,7})|(\w+));/g, (whole, hex, decimal, name) => {
    if (name !== undefined) return ENTITIES[name] ?? whole;
    const code = hex !== undefined ? Number.parseInt(hex, 16) : Number(decimal);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

/**
 * Puts an EXIF block into a JPEG, as its first segment.
 * @throws MiroError when the block exceeds the 64 KB of a segment
 */
export function insertIntoJpeg(jpeg: Uint8Array, exif: Uint8Array): Buffer {
  const length = exif.length + 8;
  if (length > 0xffff) throw new MiroError("a JPEG can hold settings of at most 64 KB; choose the format png or webp");
  const head = Buffer.alloc(4);
  head.writeUInt16BE(0xffe1, 0);
  head.writeUInt16BE(length, 2);
  return Buffer.concat([jpeg.subarray(0, 2), head, Buffer.from("Exif\0\0", "latin1"), exif, jpeg.subarray(2)]);
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
