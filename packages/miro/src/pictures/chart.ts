/**
 * Charts: rectangles, lines and words on a white ground, as SVG or as pixels.
 *
 * The pixels of shapes come from the SVG; words are set by `text.ts`, so that they are there without system fonts.
 */
import type { OverlayOptions } from "sharp";
import type { RgbImage } from "./rgb.js";
import { sharp } from "./sharp.js";
import { type TextStyle, textImage } from "./text.js";
import { escapeXml } from "./xml.js";

/** A word or a line on a {@link Chart}. */
interface Word {
  text: string;
  x: number;
  y: number;
  style: TextStyle;
}

/** A chart that is being drawn. */
export class Chart {
  readonly #shapes: string[] = [];
  readonly #words: Word[] = [];

  /** @param width pixels @param height pixels */
  constructor(
    readonly width: number,
    readonly height: number,
  ) {}

  rectangle(x: number, y: number, width: number, height: number, fill: string): void {
    this.#shapes.push(`<rect x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}" fill="${fill}"/>`);
  }

  /** A line through points; places that are not finite break it. */
  line(points: readonly (readonly [number, number])[], stroke: string, width = 1): void {
    let pen = "M";
    const path: string[] = [];
    for (const [x, y] of points) {
      if (!Number.isFinite(x) || !Number.isFinite(y)) {
        pen = "M";
        continue;
      }
      path.push(`${pen}${n(x)} ${n(y)}`);
      pen = "L";
    }
    if (path.length > 0) {
      this.#shapes.push(
        `<path d="${path.join(" ")}" fill="none" stroke="${stroke}" stroke-width="${width}" stroke-linejoin="round"/>`,
      );
    }
  }

  /** Words beside a point: left of it, around it or right of it as `style.align` says; `y` is their middle. */
  words(text: string, x: number, y: number, style: TextStyle): void {
    this.#words.push({ text, x, y, style });
  }

  /** A complete SVG document. */
  toSvg(): string {
    const anchor = { left: "start", centre: "middle", right: "end" };
    const words = this.#words.map(({ text, x, y, style }) => {
      const { size, bold, colour = "#111111", align = "left" } = style;
      const weight = bold ? ' font-weight="bold"' : "";
      return `<text x="${n(x)}" y="${n(y + size * 0.35)}" font-size="${size}"${weight} fill="${colour}" text-anchor="${anchor[align]}">${escapeXml(text)}</text>`;
    });
    return this.#document([...this.#shapes, ...words]);
  }

  /** 8-bit RGB. */
  async toImage(): Promise<RgbImage> {
    const { width, height } = this;
    const layers: OverlayOptions[] = [];
    for (const { text, x, y, style } of this.#words) {
      const image = await textImage(text, style, width);
      if (!image) continue;
      const left = x - { left: 0, centre: image.width / 2, right: image.width }[style.align ?? "left"];
      layers.push({
        input: image.data,
        raw: { width: image.width, height: image.height, channels: 4 },
        left: Math.round(Math.min(Math.max(left, 0), Math.max(0, width - image.width))),
        top: Math.round(Math.min(Math.max(y - image.height / 2, 0), Math.max(0, height - image.height))),
      });
    }
    const data = await sharp(Buffer.from(this.#document(this.#shapes)))
      .flatten({ background: "#ffffff" })
      .composite(layers)
      .removeAlpha()
      .raw()
      .toBuffer();
    return { width, height, data: new Uint8Array(data.buffer, data.byteOffset, data.length) };
  }

  #document(content: readonly string[]): string {
    const { width, height } = this;
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="DejaVu Sans, sans-serif"><rect width="100%" height="100%" fill="#ffffff"/>${content.join("")}</svg>\n`;
  }
}

/** Round numbers for about `count` ticks between two values. */
export function ticks(from: number, to: number, count: number): number[] {
  // Values that differ by rounding alone: counting them up in such steps would not move.
  if (!(to - from > 1e-9 * Math.max(Math.abs(from), Math.abs(to)))) return [from];
  const rough = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const list: number[] = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++)
    list.push(Number((i * step).toPrecision(12)));
  return list;
}

function n(value: number): string {
  return String(Math.round(value * 100) / 100);
}
