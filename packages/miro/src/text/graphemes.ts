/**
 * Grapheme clusters: Unicode 17, UAX #29 section 3.1.1, extended clusters. Own tables and not `Intl.Segmenter`, so that
 * a prompt gives the same tokens on every Node (its ICU changes with its version) and because this is called per
 * prompt.
 */
import { GRAPHEME_CLASS_RUNS } from "./graphemes.generated.js";

// Grapheme_Cluster_Break, with Indic_Conjunct_Break and Extended_Pictographic folded in: the letters of the generated
// table.
const CONTROL = 67; // C  control characters, line separators, most format characters; CR and LF are told apart by code
const EXTEND = 69; // E  Extend with InCB=Extend
const EXTEND_ONLY = 71; // G  Extend without InCB, which ends an Indic conjunct
const SPACING = 83; // S  SpacingMark
const LINKER = 78; // N  Extend with InCB=Linker: viramas
const JOINER = 90; // Z  ZWJ
const PREPEND = 80; // P
const PICTOGRAPH = 88; // X  Extended_Pictographic
const CONSONANT = 75; // K  InCB=Consonant
const REGIONAL = 82; // R  Regional_Indicator
const HANGUL_L = 76; // L
const HANGUL_V = 86; // V
const HANGUL_T = 84; // T
const HANGUL_LV = 1; // computed
const HANGUL_LVT = 2; // computed

let table: Uint8Array | undefined;

function classTable(): Uint8Array {
  if (table) return table;
  const classes = new Uint8Array(0x110000);
  for (let code = 0xac00; code <= 0xd7a3; code++) classes[code] = (code - 0xac00) % 28 === 0 ? HANGUL_LV : HANGUL_LVT;
  let position = 0;
  for (const [, gap, letter, length] of GRAPHEME_CLASS_RUNS.matchAll(/([0-9a-z]+)([A-Z])([0-9a-z]+)/g)) {
    const start = position + Number.parseInt(gap!, 36);
    position = start + Number.parseInt(length!, 36);
    classes.fill(letter!.charCodeAt(0), start, position);
  }
  classes[0x0a] = CONTROL;
  classes[0x0d] = CONTROL;
  table = classes;
  return table;
}

/**
 * Where the grapheme cluster that begins at `start` ends.
 *
 * @param text well-formed text (no lone surrogates)
 * @param start index of a cluster's first code unit, below `text.length`
 * @returns index just behind the cluster, in code units
 */
export function graphemeEnd(text: string, start: number): number {
  const classes = classTable();
  const first = text.codePointAt(start)!;
  let end = start + (first > 0xffff ? 2 : 1);
  if (first === 0x0d) return text.charCodeAt(end) === 0x0a ? end + 1 : end; // GB3
  let before = classes[first]!;
  if (before === CONTROL) return end; // GB4
  let pictograph = before === PICTOGRAPH ? 1 : 0; // so far 1: ExtPict Extend*; 2: ExtPict Extend* ZWJ
  let regionals = before === REGIONAL ? 1 : 0;
  let conjunct = before === CONSONANT ? 1 : 0; // 1: a consonant, then only InCB=Extend; 2: with a linker among them
  while (end < text.length) {
    const code = text.codePointAt(end)!;
    const next = classes[code]!;
    const joined =
      next === EXTEND || next === EXTEND_ONLY || next === LINKER || next === JOINER || next === SPACING // GB9, GB9a
        ? true
        : next === CONTROL // GB5
          ? false
          : before === PREPEND || // GB9b
            (before === HANGUL_L &&
              (next === HANGUL_L || next === HANGUL_V || next === HANGUL_LV || next === HANGUL_LVT)) || // GB6
            ((before === HANGUL_LV || before === HANGUL_V) && (next === HANGUL_V || next === HANGUL_T)) || // GB7
            ((before === HANGUL_LVT || before === HANGUL_T) && next === HANGUL_T) || // GB8
            (next === CONSONANT && conjunct === 2) || // GB9c
            (next === PICTOGRAPH && pictograph === 2) || // GB11
            (next === REGIONAL && before === REGIONAL && regionals % 2 === 1); // GB12, GB13
    if (!joined) break;
    const extend = next === EXTEND || next === EXTEND_ONLY || next === LINKER;
    pictograph = next === PICTOGRAPH ? 1 : pictograph === 1 && extend ? 1 : pictograph === 1 && next === JOINER ? 2 : 0;
    if (next === REGIONAL) regionals++;
    if (next === CONSONANT) conjunct = 1;
    else if (next === LINKER && conjunct) conjunct = 2;
    else if (next !== EXTEND && next !== JOINER && next !== LINKER) conjunct = 0;
    before = next;
    end += code > 0xffff ? 2 : 1;
  }
  return end;
}
