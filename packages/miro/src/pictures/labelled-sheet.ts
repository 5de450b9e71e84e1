/**
 * Pictures in a table with a title, labels for its columns and rows, and a line under each picture.
 */
import type { OverlayOptions } from "sharp";
import { checkCount, checkImage, checkList, checkObject, checkText, isText } from "../arguments.js";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import { counted } from "../numbers.js";
import type { RgbImage } from "./rgb.js";
import { sharp } from "./sharp.js";
import { type TextImage, type TextStyle, textImage } from "./text.js";

/** One place of a {@link labelledSheet}. */
export interface SheetCell {
  /** Null leaves the place empty. */
  image: RgbImage | null;
  /** Shown under the picture; may have several lines. */
  label?: string;
}

/** Cells in rows of at most `columns`, the last row filled up with empty ones. */
export function inRows(cells: readonly SheetCell[], columns: number): SheetCell[][] {
  const width = Math.min(columns, cells.length);
  return Array.from({ length: Math.ceil(cells.length / width) }, (_, row) =>
    Array.from({ length: width }, (_, i) => cells[row * width + i] ?? { image: null }),
  );
}

/** What {@link labelledSheet} draws. All rows have the same number of cells. */
export interface LabelledSheetOptions {
  /** Pictures, row by row. */
  cells: readonly (readonly SheetCell[])[];
  /** Text above the table. */
  title?: string | undefined;
  /** Name of what changes from column to column, above their labels. */
  columnTitle?: string | undefined;
  /** What stands above each column. */
  columnLabels?: readonly string[] | undefined;
  /** Name of what changes from row to row. */
  rowTitle?: string | undefined;
  /** What stands beside each row. */
  rowLabels?: readonly string[] | undefined;
  /** Small print at the foot. */
  footer?: string | undefined;
  /**
   * Side of the square that each picture is fitted into, pixels. Default: the longest side of all, at most 256, and
   * less where the sheet would be too large.
   */
  cellSize?: number | undefined;
}

const GAP = 6;
const MARGIN = 14;
const BACKGROUND = { r: 250, g: 250, b: 250 };
const ROW_LABEL_WIDTH = 180;
/** Longest side of a sheet: larger pictures cannot be opened by many viewers. */
const MAX_SIDE = 30_000;

const TITLE: TextStyle = { size: 17, bold: true };
const AXIS: TextStyle = { size: 13, bold: true, colour: "#444444" };
const LABEL: TextStyle = { size: 13 };
const CELL: TextStyle = { size: 11, colour: "#333333" };
const FOOTER: TextStyle = { size: 11, colour: "#666666" };

/**
 * Draws a table of pictures.
 *
 * @returns 8-bit RGB
 * @throws InvalidInputError naming what is no picture or no text, when rows differ in length, labels do not fit them,
 *   or the sheet would be larger than 30,000 pixels on a side
 */
export async function labelledSheet(options: LabelledSheetOptions): Promise<RgbImage> {
  checkSheet(options);
  const { cells, cellSize } = options;
  const images = cells.flat().flatMap(({ image }) => image ?? []);
  const largest = Math.max(1, ...images.flatMap(({ width, height }) => [width, height]));
  let layout = await layOut(options, cellSize ?? Math.min(256, largest));
  while (cellSize === undefined && isTooLarge(layout) && layout.cell > 1)
    layout = await layOut(options, Math.ceil(layout.cell * 0.75) - 1);
  const { cell, texts, gridWidth, left, titleBottom, columnsBottom, rowTops, bottom, width, height } = layout;
  const { title, columnTitle, rowTitle, columnTexts, rowTexts, cellTexts, footer } = texts;
  if (isTooLarge(layout)) {
    throw invalid(
      "cells",
      `a sheet of at most ${MAX_SIDE} pixels on a side; use fewer or smaller cells`,
      message`${width} x ${height}`,
    );
  }

  const layers: OverlayOptions[] = [];
  const put = (t: TextImage | null, x: number, y: number): void => {
    if (t) layers.push({ ...raw(t, 4), left: Math.round(x), top: Math.round(y) });
  };
  put(title, MARGIN, MARGIN);
  put(columnTitle, left + (gridWidth - (columnTitle?.width ?? 0)) / 2, titleBottom);
  put(rowTitle, left - GAP - (rowTitle?.width ?? 0), columnsBottom - GAP - (rowTitle?.height ?? 0));
  columnTexts.forEach((t, i) => {
    if (t) put(t, left + i * (cell + GAP) + (cell - t.width) / 2, columnsBottom - GAP - t.height);
  });
  rowTexts.forEach((t, i) => {
    if (t) put(t, left - GAP - t.width, rowTops[i]! + (cell - t.height) / 2);
  });
  for (const [r, row] of cells.entries()) {
    for (const [c, { image }] of row.entries()) {
      const x = left + c * (cell + GAP);
      const y = rowTops[r]!;
      if (image) {
        const fitted = await fit(image, cell);
        layers.push({
          ...raw(fitted, 3),
          left: x + Math.floor((cell - fitted.width) / 2),
          top: y + Math.floor((cell - fitted.height) / 2),
        });
      }
      const label = cellTexts[r]![c]!;
      if (label) put(label, x + (cell - label.width) / 2, y + cell + 2);
    }
  }
  put(footer, MARGIN, bottom);

  const data = await sharp({ create: { width, height, channels: 3, background: BACKGROUND } })
    .composite(layers)
    .removeAlpha()
    .raw()
    .toBuffer();
  return { width, height, data: new Uint8Array(data.buffer, data.byteOffset, data.length) };
}

/**
 * @param cellSize as of {@link LabelledSheetOptions}
 * @throws InvalidInputError naming it, when pictures of this side in so many rows and columns are too large for a
 *   sheet, whatever their labels
 */
export function checkCellSize(cellSize: number | undefined, rows: number, columns: number): void {
  const most = Math.max(1, Math.floor(MAX_SIDE / Math.max(rows, columns)) - GAP);
  if (cellSize !== undefined && cellSize > most)
    throw invalid("cellSize", `at most ${most} for ${counted(rows, "row")} of ${counted(columns, "column")}`, cellSize);
}

/** Where everything is on a sheet with cells of this side, pixels. */
async function layOut(options: LabelledSheetOptions, cell: number) {
  const gridWidth = options.cells[0]!.length * (cell + GAP) - GAP;
  const texts = await textsOf(options, cell, gridWidth);
  const { title, columnTitle, rowTitle, columnTexts, rowTexts, cellTexts, footer } = texts;
  const left = MARGIN + gutter([rowTitle, ...rowTexts].map((t) => t?.width ?? 0));
  const titleBottom = MARGIN + gutter([title?.height ?? 0]);
  const columnTitleBottom = titleBottom + gutter([columnTitle?.height ?? 0]);
  const columnsBottom = columnTitleBottom + gutter(columnTexts.map((t) => t?.height ?? 0));
  const rowHeights = cellTexts.map((row) => cell + inside(row.map((t) => t?.height ?? 0)));
  const rowTops: number[] = [];
  let bottom = columnsBottom;
  for (const height of rowHeights) {
    rowTops.push(bottom);
    bottom += height + GAP;
  }
  const width = left + Math.max(gridWidth, (title?.width ?? 0) - left, (footer?.width ?? 0) - left, 0) + MARGIN;
  const height = bottom + gutter([footer?.height ?? 0]) + MARGIN - GAP;
  return { cell, texts, gridWidth, left, titleBottom, columnsBottom, rowTops, bottom, width, height };
}

function isTooLarge({ width, height }: { width: number; height: number }): boolean {
  return Math.max(width, height) > MAX_SIDE;
}

/** @throws InvalidInputError naming what is wrong, when rows differ in length, or labels do not fit them */
function checkSheet(options: LabelledSheetOptions): void {
  checkObject("options", options, "{ cells, … }", ["cells"]);
  checkList("cells", options.cells, "a list of rows of cells", Array.isArray);
  const { cells, columnLabels, rowLabels, cellSize, title, columnTitle, rowTitle, footer } = options;
  for (const [r, row] of cells.entries()) for (const [c, cell] of row.entries()) checkCell(`cells.${r}.${c}`, cell);
  for (const [name, labels] of Object.entries({ columnLabels, rowLabels }))
    if (labels !== undefined) checkList(name, labels, "a list of texts", isText);
  for (const [name, text] of Object.entries({ title, columnTitle, rowTitle, footer }))
    if (text !== undefined) checkText(name, text);
  if (cellSize !== undefined) checkCount("cellSize", cellSize);
  const rows = cells.length;
  const columns = cells[0]?.length ?? 0;
  if (columns === 0) throw invalid("cells", "at least one row with one cell", cells);
  if (cells.some((row) => row.length !== columns))
    throw invalid("cells", `rows of ${columns} cells`, message`rows of several lengths`);
  if (columnLabels && columnLabels.length !== columns)
    throw invalid("columnLabels", `one for each of ${columns} columns`, columnLabels.length);
  if (rowLabels && rowLabels.length !== rows)
    throw invalid("rowLabels", `one for each of ${rows} rows`, rowLabels.length);
}

function checkCell(name: string, cell: SheetCell): void {
  checkObject(name, cell, "{ image, label }", ["image"]);
  if (cell.image !== null) checkImage(`${name}.image`, cell.image);
  if (cell.label !== undefined) checkText(`${name}.label`, cell.label);
}

/** The texts of a sheet as pictures: null for one that is not given. */
async function textsOf(options: LabelledSheetOptions, cell: number, gridWidth: number) {
  const whole = Math.max(gridWidth, 320);
  return {
    title: await textImage(options.title, TITLE, whole),
    columnTitle: await textImage(options.columnTitle, { ...AXIS, align: "centre" }, gridWidth),
    rowTitle: await textImage(options.rowTitle, { ...AXIS, align: "right" }, ROW_LABEL_WIDTH),
    columnTexts: await each(options.columnLabels, { ...LABEL, align: "centre" }, cell),
    rowTexts: await each(options.rowLabels, { ...LABEL, align: "right" }, ROW_LABEL_WIDTH),
    cellTexts: await Promise.all(
      options.cells.map((row) =>
        Promise.all(row.map(({ label }) => textImage(label, { ...CELL, align: "centre" }, cell))),
      ),
    ),
    footer: await textImage(options.footer, FOOTER, whole),
  };
}

/** The widest of what stands in a margin, with the gap to what follows; 0 when nothing does. */
function gutter(sizes: readonly number[]): number {
  const most = Math.max(0, ...sizes);
  return most === 0 ? 0 : most + GAP;
}

/** The height of the tallest line under the pictures of a row, with the gap above it. */
function inside(sizes: readonly number[]): number {
  const most = Math.max(0, ...sizes);
  return most === 0 ? 0 : most + 4;
}

function raw(image: { data: Uint8Array; width: number; height: number }, channels: 3 | 4): OverlayOptions {
  return { input: Buffer.from(image.data), raw: { width: image.width, height: image.height, channels } };
}

/** A picture made to fit a square, as a sheet shows it; never enlarged. */
export async function fit(image: RgbImage, side: number): Promise<RgbImage> {
  if (image.width <= side && image.height <= side) return image;
  const { data, info } = await sharp(image.data, { raw: { width: image.width, height: image.height, channels: 3 } })
    .resize(side, side, { fit: "inside" })
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data };
}

function each(labels: readonly string[] | undefined, style: TextStyle, width: number): Promise<(TextImage | null)[]> {
  return Promise.all((labels ?? []).map((label) => textImage(label, style, width)));
}
