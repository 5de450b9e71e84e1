/**
 * A finished sweep for people and for programs: one labelled sheet, and one JSON object with every setting and score.
 */
import { checkObject } from "../../arguments.js";
import { counted } from "../../numbers.js";
import { labelledSheet } from "../../pictures/labelled-sheet.js";
import type { RgbImage } from "../../pictures/rgb.js";
import type { ImageSettings } from "../../pipeline/settings.js";
import type { Axis } from "./axis.js";
import type { SweepCell, SweepImage, SweepResult } from "./run.js";

/** Mean scores along one side of a sweep. */
export interface AxisSummary {
  value: string | number;
  /** By scorer; the mean over the whole row or column, null where no picture of it has a score. */
  scores: Record<string, number | null>;
}

/** Options of {@link sweepSheet}. */
export interface SweepSheetOptions {
  title?: string | undefined;
  footer?: string | undefined;
  /** Side of a picture on the sheet, pixels. */
  cellSize?: number | undefined;
}

/** The pictures of a sweep in a table with its axes; under each the mean of its scores. */
export async function sweepSheet(result: SweepResult, options: SweepSheetOptions = {}): Promise<RgbImage> {
  checkObject("result", result, "a sweep, as runSweep gives it", ["x", "y", "cells"]);
  const { x, y, cells } = result;
  return labelledSheet({
    ...options,
    cells: cells.map((row) => row.map((cell) => ({ image: counting(cell)[0] ?? null, ...withLabel(cell) }))),
    columnTitle: axisTitle(x),
    columnLabels: x.points.map(({ label }) => label),
    rowTitle: axisTitle(y),
    rowLabels: y.points.map(({ label }) => label),
  });
}

/** What all places have in common: axes change it by their values, and checkpoints by their defaults. */
export function sweepFooter({ cells }: SweepResult): string {
  const [first = [], ...others] = cells.flat().map(({ images }) => partsOf(images[0]!.settings));
  return first.filter((part, i) => others.every((other) => other[i] === part)).join(", ");
}

function partsOf({ model, variant, steps, sampler, guidanceScale, seed, versions }: ImageSettings): string[] {
  return [
    `${model}${variant ? `/${variant}` : ""}`,
    counted(steps, "step"),
    sampler,
    guidanceScale > 0 ? `guidance ${guidanceScale}` : "unguided",
    `seed ${seed}`,
    `miro-t2i ${versions.miro}`,
  ];
}

/** Everything about a sweep but its pixels. */
export function sweepToJson(result: SweepResult): Record<string, unknown> {
  checkObject("result", result, "a sweep, as runSweep gives it", ["x", "y", "cells"]);
  const axis = ({ name, points }: Axis) => ({ name, values: points.map(({ value }) => value) });
  return {
    x: axis(result.x),
    y: axis(result.y),
    scorers: result.scorers,
    cells: result.cells.flat().map((cell) => ({
      row: cell.row,
      column: cell.column,
      x: result.x.points[cell.column]!.value,
      y: result.y.points[cell.row]!.value,
      scores: meanScores([cell]),
      ...(cell.best !== undefined && { best: cell.best }),
      ...(cell.ignoredRewards.length > 0 && { ignoredRewards: cell.ignoredRewards }),
      images: cell.images.map(({ path, seed, scores, settings }) => ({ path, seed, scores, settings })),
    })),
    means: { x: summariseSide(result, "column"), y: summariseSide(result, "row") },
  };
}

/** Mean scores of each column, or of each row. */
export function summariseSide(result: SweepResult, side: "column" | "row"): AxisSummary[] {
  const { points } = side === "column" ? result.x : result.y;
  return points.map(({ value }, i) => ({
    value,
    scores: meanScores(result.cells.flat().filter((cell) => cell[side] === i)),
  }));
}

/** The pictures of a cell that count: all, or the best. */
function counting({ images, best }: SweepCell): SweepImage[] {
  return best === undefined ? images : images.slice(best, best + 1);
}

/** By scorer, the mean over the pictures of some cells that count and have a score. */
function meanScores(cells: readonly SweepCell[]): Record<string, number | null> {
  const images = cells.flatMap(counting);
  return Object.fromEntries(
    Object.keys(images[0]?.scores ?? {}).map((key) => {
      const values = images.flatMap(({ scores }) => scores[key] ?? []);
      return [key, values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length];
    }),
  );
}

/** A mean for people. */
export function meanText(mean: number | null, digits: number): string {
  return mean === null ? "none" : mean.toPrecision(digits);
}

function axisTitle({ name }: Axis): string {
  const [kind, a, b] = name.split(".");
  if (kind === "tradeoff") return `negative target, ${a} : ${b}`;
  if (kind === "reward") return `${a}, target`;
  if (kind === "negative") return `${a}, negative target`;
  return name;
}

function withLabel(cell: SweepCell): { label?: string } {
  const lines = Object.entries(meanScores([cell])).map(([key, value]) => `${key} ${meanText(value, 3)}`);
  if (lines.length > 0 && cell.images.length > 1)
    lines.push(`${cell.best === undefined ? "mean" : "best"} of ${cell.images.length}`);
  return lines.length > 0 ? { label: lines.join("\n") } : {};
}
