/** Pictures on a sheet, row by row, each with its prompt below. */
import { labelledSheet, type SheetCell } from "../../pictures/labelled-sheet.js";
import type { RgbImage } from "../../pictures/rgb.js";

/** A picture with the prompt that it was drawn for. */
export interface CaptionedPicture {
  image: RgbImage;
  caption: string;
}

const EMPTY: SheetCell = { image: null, label: "" };

/** Draws the sheet. @param cellSize side of the square that each picture has, by default at most 256 pixels */
export function captionedSheet(
  pictures: readonly CaptionedPicture[],
  { columns, title, cellSize }: { columns: number; title: string; cellSize?: number },
): Promise<RgbImage> {
  const width = Math.min(columns, pictures.length);
  const rows: SheetCell[][] = [];
  for (let start = 0; start < pictures.length; start += width) {
    const row = pictures.slice(start, start + width).map(({ image, caption }) => ({ image, label: caption }));
    rows.push([...row, ...Array.from({ length: width - row.length }, () => EMPTY)]);
  }
  return labelledSheet({ cells: rows, title, cellSize });
}
