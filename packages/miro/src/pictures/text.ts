/**
 * Lines of text as pictures, set by Pango with the DejaVu fonts that the package brings: sheets and charts look the
 * same on a server that has no fonts. What DejaVu lacks (emoji, Chinese, …) is taken from the system's fonts where
 * there are any.
 */
import { createRequire } from "node:module";
import { sharp } from "./sharp.js";
import { escapeXml } from "./xml.js";

/** How a text looks. */
export interface TextStyle {
  /** Pixels. */
  size: number;
  bold?: boolean;
  /** `#rrggbb`, default nearly black. */
  colour?: string;
  align?: "left" | "centre" | "right";
}

/** A picture of text: RGBA, transparent around the letters. */
export interface TextImage {
  data: Buffer;
  width: number;
  height: number;
}

const fonts = createRequire(import.meta.url);

/**
 * Draws a text.
 *
 * @param value any text; control characters are left out, lines are broken to fit
 * @param width pixels that a line may have
 * @returns as large as the text needs, or null where there is nothing to be seen
 */
export async function textImage(value: string | undefined, style: TextStyle, width: number): Promise<TextImage | null> {
  if (value === undefined || value.trim() === "") return null;
  const { size, bold = false, colour = "#111111", align = "left" } = style;
  const { data, info } = await sharp({
    text: {
      text: `<span foreground="${colour}">${toMarkup(value)}</span>`,
      font: `DejaVu Sans ${bold ? "Bold " : ""}${size}`,
      fontfile: fonts.resolve(`dejavu-fonts-ttf/ttf/DejaVuSans${bold ? "-Bold" : ""}.ttf`),
      rgba: true,
      dpi: 72,
      width: Math.max(16, Math.floor(width)),
      wrap: "word-char",
      align,
    },
  })
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

/** Text as Pango markup; control characters other than line breaks are left out. */
function toMarkup(value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what markup cannot hold
  return escapeXml(value.replace(/[\x00-\x09\x0b-\x1f\x7f]/g, " "));
}
