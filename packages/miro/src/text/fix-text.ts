/**
 * Repairs of broken text, as the Python library ftfy 6.3 makes them with its default settings ("fixes text for you",
 * Robyn Speer): OpenAI's CLIP tokenizer and those that derive from it apply them to every caption, so equal tokens need
 * equal repairs.
 *
 * Each line, until nothing changes any more (at most a hundred times): HTML entities are decoded (unless a `<` came
 * before); UTF-8 that was read in a single-byte encoding is put right; then C1 controls, ligatures, full-width forms,
 * curly quotes, line breaks, surrogates, terminal escapes and control characters; then NFC.
 *
 * Wrongly read UTF-8 is recognised by pairs of characters that nobody writes ("Ã©", "â€™"). Text that has such pairs is
 * encoded in each encoding that has all its characters; if the bytes are UTF-8, or become it by a repair, that is the
 * text.
 */
import { lowerCaseNames, namedEntity, unescapeHtml } from "./html-entities.js";
import { MOJIBAKE, SINGLE_BYTE_ENCODINGS, UTF8_CLUES } from "./mojibake.generated.js";
import { PYTHON_SPACE } from "./whitespace.js";

/** Longer lines are repaired in pieces of this many characters. */
const MAX_LINE = 1_000_000;
/**
 * Repairs of repairs. Nobody's mistakes lie so deep, but a text can ask for as many as it is long: `&amp;amp;amp;…`
 * loses one `amp;` a time.
 */
const MAX_REPAIRS = 100;

/** The repaired text. */
export function fixText(text: string): string {
  let entities = true;
  return lines(text)
    .map((line) => {
      if (line.includes("<")) entities = false;
      return fixLine(line, entities);
    })
    .join("");
}

function lines(text: string): string[] {
  const parts: string[] = [];
  for (const line of text.split(/(?<=\n)/)) {
    if (line.length <= MAX_LINE) parts.push(line);
    else {
      const characters = [...line];
      for (let i = 0; i < characters.length; i += MAX_LINE) parts.push(characters.slice(i, i + MAX_LINE).join(""));
    }
  }
  return parts;
}

function fixLine(line: string, entities: boolean): string {
  let text = line;
  for (let repair = 0; repair < MAX_REPAIRS; repair++) {
    const before = text;
    if (entities) text = text.replace(ENTITY, decodeEntity);
    text = fixEncoding(text);
    text = fixC1(text)
      .replace(LIGATURE, (character) => LIGATURES.get(character)!)
      .replace(/\u3000/g, " ")
      .replace(/[\uff01-\uffef]/g, (character) => character.normalize("NFKC"))
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .replace(/\r\n|[\r\u2028\u2029\u0085]/g, "\n")
      .replace(/\p{Surrogate}/gu, "\ufffd")
      .replace(TERMINAL_ESCAPE, "")
      .replace(CONTROLS, "")
      .normalize("NFC");
    if (text === before) break;
  }
  return text;
}

// --- single characters ---

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is removed
const TERMINAL_ESCAPE = /\x1b\[[\p{Nd};]*[a-zA-Z]/gu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is removed
const CONTROLS = /[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

const LIGATURES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    Ĳ: "IJ",
    ĳ: "ij",
    ŉ: "ʼn",
    Ǳ: "DZ",
    ǲ: "Dz",
    ǳ: "dz",
    Ǆ: "DŽ",
    ǅ: "Dž",
    ǆ: "dž",
    Ǉ: "LJ",
    ǈ: "Lj",
    ǉ: "lj",
    Ǌ: "NJ",
    ǋ: "Nj",
    ǌ: "nj",
    ﬀ: "ff",
    ﬁ: "fi",
    ﬂ: "fl",
    ﬃ: "ffi",
    ﬄ: "ffl",
    ﬅ: "ſt",
    ﬆ: "st",
  }),
);
const LIGATURE = new RegExp(`[${[...LIGATURES.keys()].join("")}]`, "g");

const WINDOWS_1252 = SINGLE_BYTE_ENCODINGS.find(([name]) => name === "sloppy-windows-1252")![1];

function fixC1(text: string): string {
  return text.replace(/[\x80-\x9f]/g, (character) => WINDOWS_1252[character.charCodeAt(0) - 0x80]!);
}

// --- entities ---

const ENTITY = /&#?[0-9A-Za-z]{1,24};/g;

/** Entities that somebody's capital letters broke: `&EACUTE;`. */
const CAPITALS: ReadonlyMap<string, string> = new Map(
  lowerCaseNames()
    .map((name) => [`&${name.toUpperCase()};`, namedEntity(name)!.toUpperCase()] as const)
    .filter(([entity]) => unescapeHtml(entity) === entity),
);

function decodeEntity(entity: string): string {
  if (!entity.startsWith("&#")) return namedEntity(entity.slice(1, -1)) ?? CAPITALS.get(entity) ?? entity;
  const decoded = unescapeHtml(entity);
  return decoded.includes(";") ? entity : decoded;
}

// --- wrongly read UTF-8 ---

const BAD = unlikelyPairs();
const EMBEDDED = new RegExp(
  `(?<![${UTF8_CLUES.continuation_strict}])` +
    `(?:[${UTF8_CLUES.first_of_2}][${UTF8_CLUES.continuation}]` +
    `|[${UTF8_CLUES.first_of_3}][${UTF8_CLUES.continuation}]{2}` +
    `|[${UTF8_CLUES.first_of_4}][${UTF8_CLUES.continuation}]{3})+`,
  "gu",
);
const MAC = "macroman";
/** Byte of a character that somebody's decoder could not read; only in the encodings that have holes. */
const LOST = 0x1a;

/** The byte of each character, by encoding. */
const ENCODERS: readonly { name: string; byteOf: ReadonlyMap<number, number> }[] = SINGLE_BYTE_ENCODINGS.map(
  ([name, upper]) => {
    const byteOf = new Map<number, number>();
    for (let byte = 0; byte < 0x80; byte++) if (byte !== LOST) byteOf.set(byte, byte);
    byteOf.set(name.startsWith("sloppy") ? 0xfffd : LOST, LOST);
    for (let i = 0; i < 0x80; i++) byteOf.set(upper.charCodeAt(i), 0x80 + i);
    return { name, byteOf };
  },
);

function fixEncoding(text: string): string {
  let fixed = text;
  for (;;) {
    const next = fixEncodingOnce(fixed);
    if (next === fixed) return fixed;
    fixed = next;
  }
}

function fixEncodingOnce(text: string): string {
  if (/^[\0-\x7f]*$/.test(text) || !BAD.test(text)) return text;
  for (const { name, byteOf } of ENCODERS) {
    const encoded = encode(text, byteOf);
    if (encoded === null) continue;
    // Bytes as text of the characters 0 to 255, so that regular expressions can search them.
    let bytes = encoded;
    if (name !== MAC && ALTERED.test(bytes)) bytes = restoreNoBreakSpaces(bytes);
    if (name.startsWith("sloppy")) bytes = bytes.replace(LOSSY, "\xef\xbf\xbd");
    const decoded = /[\xed\xc0]/.test(bytes) ? decodeVariants(bytes) : decodeUtf8(bytes);
    if (decoded !== null) return decoded;
  }
  const inParts = text.replace(EMBEDDED, (part) =>
    part.length < text.length && BAD.test(part) ? fixEncoding(part) : part,
  );
  return inParts === text ? fixC1(text) : inParts;
}

function encode(text: string, byteOf: ReadonlyMap<number, number>): string | null {
  let bytes = "";
  for (let i = 0; i < text.length; i++) {
    const byte = byteOf.get(text.charCodeAt(i));
    if (byte === undefined) return null;
    bytes += String.fromCharCode(byte);
  }
  return bytes;
}

/** Characters whose continuation byte A0, a no-break space, has become a space. */
const ALTERED_SOURCE = [
  "[\\xc2\\xc3\\xc5\\xce\\xd0\\xd9] ",
  "[\\xe2\\xe3] [\\x80-\\x84\\x86-\\x9f\\xa1-\\xbf]",
  "[\\xe0-\\xe3][\\x80-\\x84\\x86-\\x9f\\xa1-\\xbf] ",
  "\\xf0 [\\x80-\\xbf][\\x80-\\xbf]",
  "\\xf0[\\x80-\\xbf] [\\x80-\\xbf]",
  "\\xf0[\\x80-\\xbf][\\x80-\\xbf] ",
].join("|");
const ALTERED = new RegExp(ALTERED_SOURCE);
const ALL_ALTERED = new RegExp(ALTERED_SOURCE, "g");

/**
 * "Ã" before a space is most often the word "à", which keeps the space, but for the Portuguese words that begin with
 * it.
 */
function restoreNoBreakSpaces(bytes: string): string {
  return bytes
    .replace(/\xc3 (?! |quele|quela|quilo|s )/g, "\xc3\xa0 ")
    .replace(ALL_ALTERED, (part) => part.replaceAll(" ", "\xa0"));
}

/** Characters of which a byte was lost, and has become a question mark or the byte for what cannot be read. */
const LOSSY = new RegExp(
  [
    "[\\xc2-\\xdf]\\x1a",
    "[\\xc2-\\xc3]\\?",
    "\\xed[\\xa0-\\xaf][\\x1a?]\\xed[\\xb0-\\xbf][\\x1a?\\x80-\\xbf]",
    "\\xed[\\xa0-\\xaf][\\x1a?\\x80-\\xbf]\\xed[\\xb0-\\xbf][\\x1a?]",
    "[\\xe0-\\xef][\\x1a?][\\x1a\\x80-\\xbf]",
    "[\\xe0-\\xef][\\x1a\\x80-\\xbf][\\x1a?]",
    "[\\xf0-\\xf4][\\x1a?][\\x1a\\x80-\\xbf][\\x1a\\x80-\\xbf]",
    "[\\xf0-\\xf4][\\x1a\\x80-\\xbf][\\x1a?][\\x1a\\x80-\\xbf]",
    "[\\xf0-\\xf4][\\x1a\\x80-\\xbf][\\x1a\\x80-\\xbf][\\x1a?]",
    "\\x1a",
  ].join("|"),
  "g",
);

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeUtf8(bytes: string): string | null {
  try {
    return UTF8.decode(Buffer.from(bytes, "latin1"));
  } catch {
    return null;
  }
}

/** NUL in two bytes, a surrogate pair in six, a lone surrogate in three, each perhaps cut by the end. */
const SPECIAL =
  /\xc0(?:\x80|(?=\n?$))|\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]|\xed[\xa0-\xbf][\x80-\xbf]/g;

/**
 * UTF-8 in which characters beyond the first 65,536 may be two surrogates (CESU-8), and NUL two bytes, as Java writes
 * it.
 */
function decodeVariants(bytes: string): string | null {
  let text = "";
  let position = 0;
  for (const { index, 0: found } of bytes.matchAll(SPECIAL)) {
    // A NUL whose second byte is a line break takes that with it.
    if (index < position) continue;
    const before = decodeUtf8(bytes.slice(position, index));
    if (before === null || found.length === 3) return null;
    text += before;
    if (found.length === 6) {
      const [, a, b, , c, d] = [...found].map((character) => character.charCodeAt(0)) as [0, 1, 1, 0, 1, 1];
      text += String.fromCodePoint(((a & 15) << 16) + ((b & 63) << 10) + ((c & 15) << 6) + (d & 63) + 0x10000);
      position = index + 6;
    } else {
      if (index + 1 === bytes.length) return null;
      text += "\0";
      position = index + 2;
    }
  }
  const rest = decodeUtf8(bytes.slice(position));
  return rest === null ? null : text + rest;
}

/** Pairs and longer sequences that stand in wrongly read text and almost nowhere else. */
function unlikelyPairs(): RegExp {
  const {
    c1,
    bad,
    common,
    law,
    currency,
    start_punctuation: start,
    end_punctuation: end,
    numeric,
    kaomoji,
    upper_accented: upper,
    lower_accented: lower,
    upper_common: upperCommon,
    lower_common: lowerCommon,
    box,
  } = MOJIBAKE;
  const any = lower + upper + box + start + end + currency + numeric + law;
  const arabic = `[ØÙ][${common}${currency}${bad}${numeric}${start}ŸŠ®°µ»]`;
  const sequences = [
    `[${c1}]`,
    `[${bad}${any}][${bad}]`,
    `[a-zA-Z][${lowerCommon}${upperCommon}][${bad}]`,
    `[${bad}][${any}]`,
    `[${lower}${lowerCommon}${box}${end}${currency}${numeric}][${upper}]`,
    `[${box}${end}${currency}${numeric}][${lower}]`,
    `[${lower}${box}${end}][${currency}]`,
    `[${PYTHON_SPACE}][${upper}][${currency}]`,
    `[${upper}${box}][${numeric}${law}]`,
    `[${lower}${upper}${box}${currency}${end}][${start}][${numeric}]`,
    `[${lower}${upper}${currency}${numeric}${box}${law}][${end}][${start}]`,
    `[${currency}${numeric}${box}][${start}]`,
    `[a-z][${upper}][${start}${currency}]`,
    `[${box}][${kaomoji}]`,
    `[${lower}${upper}${currency}${numeric}${start}${end}${law}][${box}]`,
    `[${box}][${end}]`,
    `[${lower}${upper}][${start}${end}][\\p{L}\\p{N}_]`,
    "[Œœ][^A-Za-z]",
    `[${upper}]°`,
    // Windows-1252, two characters
    `[ÂÃÎÐ][€œŠš¢£Ÿž\\xa0\\xad®©°·»${start}${end}–—´]`,
    "×[²³]",
    `${arabic}${arabic}`,
    "à[²µ¹¼½¾]",
    // Mac Roman
    "√[±∂†≠®™´≤≥¥µø]",
    "≈[°¢]",
    "‚Ä[ìîïòôúùû†°¢π]",
    "‚[âó][àä°ê]",
    // Windows-1251
    "вЂ",
    `[ВГРС][${c1}${bad}${start}${end}${currency}°µ][ВГРС]`,
    "ГўВЂВ[^\\n][A-Za-z ]",
    // "à" and "á", and "Â" before what it was read from
    "Ã[\\xa0¡]",
    `[a-z][${PYTHON_SPACE}]?[ÃÂ] `,
    "^[ÃÂ] ",
    `[a-z.,?!${end}]Â[ ${start}${end}]`,
    // Windows-1253
    "β€[™\\xa0Ά\\xad®°]",
    `[ΒΓΞΟ][${c1}${bad}${start}${end}${currency}°][ΒΓΞΟ]`,
    // Windows-1257
    "ā€",
  ];
  return new RegExp(sequences.join("|"), "u");
}
