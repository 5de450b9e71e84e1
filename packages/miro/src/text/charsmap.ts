/**
 * SentencePiece's `precompiled_charsmap`: the character rewriting (for T5 the table `nmt_nfkc`, NFKC with white space
 * unified and control characters removed) that a trained model carries along.
 *
 * Layout, little endian: `u32` size in bytes of a Darts-clone double-array trie, the trie as `u32` units, then the
 * replacements as UTF-8 strings, each ended by a zero byte. The trie maps the UTF-8 of a character sequence to the
 * offset of its replacement.
 *
 * SentencePiece itself replaces the longest match at each place. The reference (Hugging Face tokenizers, its
 * `Precompiled` normaliser over the crate `spm_precompiled`) does something else, and this does what the reference
 * does: the text is cut into grapheme clusters; of a cluster shorter than six bytes the *shortest* matching prefix
 * decides and replaces the whole cluster; otherwise each of its characters is looked up alone.
 */
import { graphemeEnd } from "./graphemes.js";

/** A cluster of at least this many UTF-8 bytes is looked up character by character. */
const LONG_CLUSTER = 6;
/** Bytes of a replacement. The longest of NFKC has 33. */
const MAX_REPLACEMENT = 1024;

/** A text would become longer than it may. */
export class TooLong extends Error {}

/** The rewriting of a `precompiled_charsmap`. */
export class CharsMap {
  /** Double-array units: bits 0-7 and 31 label, bit 8 has a leaf, bit 9 widens the offset, bits 10-30 offset. */
  readonly #units: Uint32Array;
  readonly #replacements: Uint8Array;
  readonly #decoded = new Map<number, string>();
  /** Replacement of each ASCII character, `undefined` where it stays. */
  readonly #ascii: (string | undefined)[];

  /**
   * @param bytes the decoded `precompiled_charsmap`
   * @throws RangeError where the layout is broken, saying how; the caller adds which file
   */
  constructor(bytes: Uint8Array) {
    if (bytes.length < 4) throw new RangeError(`it holds ${bytes.length} bytes, at least 4 are needed`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = view.getUint32(0, true);
    if (size === 0 || size % 4 !== 0 || size > bytes.length - 4)
      throw new RangeError(
        `its trie claims ${size} bytes of the ${bytes.length - 4} that follow (a multiple of 4 is needed)`,
      );
    this.#units = new Uint32Array(size / 4);
    for (let i = 0; i < this.#units.length; i++) this.#units[i] = view.getUint32(4 + 4 * i, true);
    this.#replacements = bytes.slice(4 + size);
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(this.#replacements);
    } catch {
      throw new RangeError("its replacement strings are not UTF-8");
    }
    for (let start = 0; start < this.#replacements.length; ) {
      const zero = this.#replacements.indexOf(0, start);
      const end = zero < 0 ? this.#replacements.length : zero;
      if (end - start > MAX_REPLACEMENT)
        throw new RangeError(`a replacement string of ${end - start} bytes, at most ${MAX_REPLACEMENT} are allowed`);
      start = end + 1;
    }
    this.#ascii = Array.from({ length: 128 }, (_, code) => this.#lookup(String.fromCharCode(code)));
  }

  /**
   * Rewrites a text.
   *
   * @param text well-formed text (no lone surrogates)
   * @param most how long the result may be
   * @throws TooLong where it would be longer
   */
  apply(text: string, most = Number.POSITIVE_INFINITY): string {
    let result = "";
    for (let start = 0; start < text.length; ) {
      if (result.length > most) throw new TooLong();
      const code = text.charCodeAt(start);
      // An ASCII character before another one is a cluster of its own, CR LF excepted.
      if (code < 0x80 && code !== 0x0d && !(text.charCodeAt(start + 1) >= 0x80)) {
        result += this.#ascii[code] ?? text[start];
        start++;
        continue;
      }
      const end = graphemeEnd(text, start);
      const cluster = text.slice(start, end);
      const whole = utf8Length(cluster) < LONG_CLUSTER ? this.#lookup(cluster) : undefined;
      if (whole !== undefined) result += whole;
      else for (const character of cluster) result += this.#lookup(character) ?? character;
      start = end;
    }
    if (result.length > most) throw new TooLong();
    return result;
  }

  /** The replacement of the shortest prefix that the trie knows, if any. */
  #lookup(text: string): string | undefined {
    const units = this.#units;
    const key = encoder.encode(text);
    let node = offsetOf(units[0]!);
    for (const byte of key) {
      if (byte === 0) return undefined;
      node ^= byte;
      if (node >= units.length || labelOf(units[node]!) !== byte) return undefined;
      const hasLeaf = (units[node]! >>> 8) & 1;
      node ^= offsetOf(units[node]!);
      if (hasLeaf) return node < units.length ? this.#replacementAt(units[node]! & 0x7fffffff) : undefined;
    }
    return undefined;
  }

  #replacementAt(offset: number): string | undefined {
    if (offset > this.#replacements.length) return undefined;
    let text = this.#decoded.get(offset);
    if (text === undefined) {
      const end = this.#replacements.indexOf(0, offset);
      text = decoder.decode(this.#replacements.subarray(offset, end < 0 ? undefined : end));
      this.#decoded.set(offset, text);
    }
    return text;
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

function labelOf(unit: number): number {
  return (unit & 0x800000ff) >>> 0;
}

/** At most 29 bits, so never negative as a 32-bit integer. */
function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function utf8Length(text: string): number {
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    // a surrogate is half of four
    length += code < 0x80 ? 1 : code < 0x800 ? 2 : code >= 0xd800 && code < 0xe000 ? 2 : 3;
  }
  return length;
}
