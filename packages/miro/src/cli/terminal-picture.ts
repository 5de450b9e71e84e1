/**
 * Pictures for terminals: as escape sequences of kitty's graphics protocol
 * (https://sw.kovidgoyal.net/kitty/graphics-protocol), of iTerm2's inline images
 * (https://iterm2.com/documentation-images.html), or as sixels (DEC STD 070, chapter 9).
 */
import { encodePng } from "../pictures/png.js";
import type { RgbImage } from "../pictures/rgb.js";
import { sharp } from "../pictures/sharp.js";
import type { ShowProtocol } from "./words.js";

/** What a terminal understands. */
export type Protocol = Exclude<ShowProtocol, "auto">;

/** What the variables of a terminal tell of it; null where it is not known to show pictures. */
export function protocolOf(env: NodeJS.ProcessEnv): Protocol | null {
  const { TERM = "", TERM_PROGRAM = "", LC_TERMINAL, KITTY_WINDOW_ID, KONSOLE_VERSION = "0", WT_SESSION } = env;
  // A multiplexer keeps what it does not know from the terminal around it, whose variables are still there.
  if (TERM_PROGRAM === "tmux" || /^(?:tmux|screen)/.test(TERM)) return null;
  if (KITTY_WINDOW_ID || /kitty|ghostty/.test(TERM) || TERM_PROGRAM === "ghostty") return "kitty";
  if (TERM_PROGRAM === "iTerm.app" || TERM_PROGRAM === "WezTerm" || LC_TERMINAL === "iTerm2") return "iterm";
  if (/sixel|^(?:foot|mlterm|contour|yaft)/.test(TERM) || TERM_PROGRAM === "mintty") return "sixel";
  if (Number(KONSOLE_VERSION) >= 220_400 || WT_SESSION) return "sixel";
  return null;
}

/** A picture as a terminal draws it, with the end of its line. */
export async function terminalPicture(image: RgbImage, protocol: Protocol): Promise<string> {
  return `${await ENCODERS[protocol](image)}\n`;
}

const ENCODERS: Record<Protocol, (image: RgbImage) => string | Promise<string>> = { kitty, iterm, sixel };

const base64Png = ({ data, width, height }: RgbImage) => Buffer.from(encodePng(data, width, height)).toString("base64");

/** Bytes of one part of a picture that kitty accepts. */
const KITTY_PART = 4096;

/** A PNG in parts, drawn where the cursor is; answers are not wanted. */
function kitty(image: RgbImage): string {
  const data = base64Png(image);
  const parts = Array.from({ length: Math.ceil(data.length / KITTY_PART) }, (_, i) =>
    data.slice(i * KITTY_PART, (i + 1) * KITTY_PART),
  );
  return parts
    .map((part, i) => {
      const more = `m=${i < parts.length - 1 ? 1 : 0}`;
      return `\x1b_G${i === 0 ? `a=T,f=100,q=2,${more}` : more};${part}\x1b\\`;
    })
    .join("");
}

function iterm(image: RgbImage): string {
  const data = base64Png(image);
  return `\x1b]1337;File=inline=1;size=${Buffer.byteLength(data, "base64")};width=${image.width}px;height=${image.height}px:${data}\x07`;
}

/** Registers that every terminal with sixels has. */
const SIXEL_COLOURS = 256;

/** Bands of six rows; a band is a pass for each of its colours, of one character for six pixels of a column. */
async function sixel({ data, width, height }: RgbImage): Promise<string> {
  const { pixels, palette } = await inFewColours(data, width, height);
  const registers = palette.map(([r, g, b], i) => `#${i};2;${percent(r)};${percent(g)};${percent(b)}`);
  const bands: string[] = [];
  for (let top = 0; top < height; top += 6) {
    const columns = new Map<number, Uint8Array>();
    for (let y = top; y < Math.min(height, top + 6); y++)
      for (let x = 0; x < width; x++) {
        const colour = pixels[y * width + x]!;
        const bits = columns.get(colour) ?? new Uint8Array(width);
        columns.set(colour, bits);
        bits[x]! |= 1 << (y - top);
      }
    bands.push([...columns].map(([colour, bits]) => `#${colour}${runLengths(bits)}`).join("$"));
  }
  return `\x1bP0;1q"1;1;${width};${height}${registers.join("")}${bands.join("-")}\x1b\\`;
}

const percent = (value: number) => Math.round((value / 255) * 100);

/** Sixels of a row, where the same stand beside each other with their number. */
function runLengths(bits: Uint8Array): string {
  let text = "";
  for (let x = 0; x < bits.length; ) {
    let end = x + 1;
    while (end < bits.length && bits[end] === bits[x]) end++;
    const character = String.fromCharCode(63 + bits[x]!);
    text += end - x > 3 ? `!${end - x}${character}` : character.repeat(end - x);
    x = end;
  }
  return text;
}

type Colour = readonly [number, number, number];

/** The picture in so few colours that registers have them: the number of each pixel's colour, and the colours. */
async function inFewColours(
  data: Uint8Array,
  width: number,
  height: number,
): Promise<{ pixels: Uint8Array; palette: Colour[] }> {
  const raw = { width, height, channels: 3 as const };
  const png = await sharp(data, { raw }).png({ palette: true, colours: SIXEL_COLOURS }).toBuffer();
  const reduced = await sharp(png).removeAlpha().toColourspace("srgb").raw().toBuffer();
  const pixels = new Uint8Array(width * height);
  const numbers = new Map<number, number>();
  const palette: Colour[] = [];
  for (let i = 0; i < pixels.length; i++) {
    const [r, g, b] = [reduced[3 * i]!, reduced[3 * i + 1]!, reduced[3 * i + 2]!];
    const key = (r << 16) | (g << 8) | b;
    let number = numbers.get(key);
    if (number === undefined) {
      number = palette.push([r, g, b]) - 1;
      numbers.set(key, number);
    }
    pixels[i] = number;
  }
  return { pixels, palette };
}
