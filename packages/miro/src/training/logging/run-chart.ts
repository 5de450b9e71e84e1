/** Charts of what runs have logged: one panel for each name, the runs over each other, raw and smoothed. */
import { z } from "zod";
import { checkList, isObject } from "../../arguments.js";
import { invalid } from "../../errors.js";
import { nearest } from "../../nearest.js";
import { commaSeparated, field, flag, type OptionsOf, parseOptions } from "../../options.js";
import { Chart, ticks } from "../../pictures/chart.js";
import { type RunLog, type Series, smooth } from "./run-log.js";

/** Options of a chart; the command's flags have the same help. */
export const runChartOptionsSchema = z.strictObject({
  /**
   * Names to draw, one panel each; * stands for anything. Default: losses, learning rate, speed, gradient norm,
   * rewards.
   */
  keys: field(z.array(z.string().min(1)).optional(), {
    expected: "names of the log; * stands for anything",
    help: "names to draw, separated by commas, one panel each; * stands for anything",
    flag: "--keys <names>",
    parse: commaSeparated,
    otherwise: "losses, learning rate, speed, gradient norm, rewards",
  }),
  /** What the horizontal axis shows: `step`, or a name of the log such as `images` or `seconds`. Default: step. */
  x: field(z.string().min(1).default("step"), {
    expected: "step, or a name of the log such as images or seconds",
    help: "what the horizontal axis shows: step, or a name of the log such as images or seconds",
    flag: "--x <name>",
  }),
  /** Weight of the past in the smoothed curves, 0 for none. Default: means over about a 25th of the points. */
  smoothing: field(z.number().min(0).lt(1).optional(), {
    expected: "a number from 0 to below 1",
    help: "weight of the past in the smoothed curves, 0 for none",
    flag: "--smooth <weight>",
    otherwise: "means over about a 25th of the points",
  }),
  /** Logarithmic vertical axes where all values are positive. */
  logScale: flag("logarithmic vertical axes where all values are positive", "--log"),
  /** Title of the picture. */
  title: field(z.string().optional(), { expected: "a text", help: "title of the picture", flag: "--title <text>" }),
});

/** Options of {@link runChart}. */
export type RunChartOptions = OptionsOf<typeof runChartOptionsSchema>;

/** What a chart shows of one name of one run. */
export interface CurveSummary {
  run: string;
  key: string;
  points: number;
  firstStep: number;
  lastStep: number;
  last: number | null;
  /** Smoothed, at the last step that has a value. */
  lastSmoothed: number | null;
  min: number;
  minStep: number;
  max: number;
}

/** A chart and what is in it. */
export interface RunChart {
  drawing: Chart;
  curves: CurveSummary[];
}

/** What is drawn when nothing is asked for: the first of each row that a log has, and all of the last two. */
const DEFAULT_KEYS: readonly (readonly string[])[] = [
  ["train/raw_loss", "raw_loss"],
  ["train/loss", "loss"],
  ["lr-*/pg1", "lr"],
  ["speed/images_per_second", "images_per_second"],
  ["train/grad_norm", "grad_norm", "gradient_norm"],
];
const DEFAULT_PATTERNS = ["val/*", "*rewards/*", "*_score", "accuracy"];

/** Okabe and Ito's colours, which colour-blind readers can tell apart. */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#9a6324"];
const PANEL = { width: 470, height: 270 };
const PLOT = { left: 64, right: 16, top: 34, bottom: 38 };
const AXIS = "#777777";
const GRID = "#e6e6e6";
const COLUMNS = 2;
/** What is set, not measured, and is drawn as it is. */
const EXACT = /^lr(-|$)/;
/** Share of the raw values that may lie outside of a panel, at either end: spikes would flatten everything else. */
const OUTLIERS = 0.005;

/**
 * Draws the logs of runs.
 *
 * @param logs at least one; they get names that differ
 * @throws InvalidInputError when no log has a name that is asked for, naming near ones
 */
export function runChart(logs: readonly RunLog[], options: RunChartOptions = {}): RunChart {
  checkList("logs", logs, "a list of logs, as readRunLog gives them", isObject);
  const { keys, x, smoothing, logScale, title } = parseOptions(runChartOptionsSchema, options);
  const runs = distinctNames(logs).map((name, i) => ({ name, log: logs[i]!, colour: COLOURS[i % COLOURS.length]! }));
  const known = [...new Set(logs.flatMap(({ series }) => [...series.keys()]))];
  const shown = keys === undefined ? defaultKeys(known) : chosenKeys(keys, known);
  if (x !== "step" && !known.includes(x)) unknownName("x", x, ["step", ...known]);

  const curves: CurveSummary[] = [];
  const panels = shown.map((key) => ({
    key,
    curves: runs.flatMap(({ name, log, colour }) => {
      const series = log.series.get(key);
      if (series === undefined) return [];
      const smoothed = smooth(series.values, EXACT.test(key) ? 0 : (smoothing ?? usualSmoothing(series.values.length)));
      curves.push(summarise(name, key, series, smoothed));
      const places = placesOf(log, series, x);
      const placed = (list: readonly number[]) => list.filter((_, i) => Number.isFinite(places[i]));
      return [{ colour, places: placed(places), values: placed(series.values), smoothed: placed(smoothed) }];
    }),
  }));

  const columns = Math.min(COLUMNS, panels.length);
  const width = Math.max(columns * PANEL.width, 420);
  const legend = legendRows(runs, width);
  const top = 12 + (title === undefined ? 0 : 26) + legend.length * 20 + 4;
  const drawing = new Chart(width, top + Math.ceil(panels.length / columns) * PANEL.height);
  if (title !== undefined) drawing.words(title, 14, 22, { size: 15, bold: true });
  legend.forEach((row, r) => {
    const y = top - 14 - (legend.length - 1 - r) * 20;
    for (const { x, colour, name } of row) {
      drawing.rectangle(x, y - 2, 18, 4, colour);
      drawing.words(name, x + 24, y, { size: 12 });
    }
  });
  panels.forEach(({ key, curves }, i) => {
    const place = { left: (i % columns) * PANEL.width, top: top + Math.floor(i / columns) * PANEL.height };
    drawPanel(drawing, place, { key, curves, x, logScale, smoothed: smoothing !== 0 });
  });
  return { drawing, curves };
}

/** Many points are smoothed over more of them; few are left nearly as they are. */
function usualSmoothing(points: number): number {
  return Math.min(0.99, Math.max(0, 1 - 25 / points));
}

/** One run's values in a panel, those that have a place in it. */
interface Curve {
  colour: string;
  places: number[];
  values: number[];
  smoothed: number[];
}

function drawPanel(
  drawing: Chart,
  { left, top }: { left: number; top: number },
  panel: { key: string; curves: Curve[]; x: string; logScale: boolean; smoothed: boolean },
): void {
  const { key, curves, x } = panel;
  const [x0, x1] = [left + PLOT.left, left + PANEL.width - PLOT.right];
  const [y0, y1] = [top + PANEL.height - PLOT.bottom, top + PLOT.top];
  drawing.words(key, (x0 + x1) / 2, top + 18, { size: 12, bold: true, align: "centre" });
  const finite = curves.flatMap(({ places, values }) => places.filter((_, i) => Number.isFinite(values[i])));
  if (finite.length === 0) return; // none of these runs has logged the horizontal axis
  // Not `Math.min(...finite)`: a run may have logged more values than a call takes arguments.
  const [least, most] = finite.reduce(
    ([low, high], place) => [Math.min(low, place), Math.max(high, place)],
    [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  );
  const [from, to] = padded(least, most, 0);
  const range = verticalRange(curves, panel.smoothed);
  const logarithmic = panel.logScale && curves.every(({ values }) => values.every((v) => !(v <= 0)));
  const scale = (value: number) => (logarithmic ? Math.log10(value) : value);
  const [low, high] = padded(scale(range.low), scale(range.high), 0.04);
  const across = (place: number) => x0 + ((place - from) / (to - from)) * (x1 - x0);
  const up = (value: number) => y0 - ((Math.min(Math.max(scale(value), low), high) - low) / (high - low)) * (y0 - y1);

  for (const value of logarithmic ? logTicks(low, high) : ticks(low, high, 5)) {
    const y = up(value);
    drawing.line(
      [
        [x0, y],
        [x1, y],
      ],
      GRID,
    );
    drawing.words(short(value), x0 - 6, y, { size: 10, colour: AXIS, align: "right" });
  }
  for (const value of ticks(from, to, 5)) {
    drawing.line(
      [
        [across(value), y0],
        [across(value), y0 + 4],
      ],
      AXIS,
    );
    drawing.words(short(value), across(value), y0 + 13, { size: 10, colour: AXIS, align: "centre" });
  }
  const draw = (values: number[], places: number[], colour: string, width: number) =>
    drawing.line(
      thinned(
        places.map((place, i) => [across(place), Number.isFinite(values[i]) ? up(values[i]!) : Number.NaN] as const),
      ),
      colour,
      width,
    );
  if (panel.smoothed) for (const { colour, places, values } of curves) draw(values, places, pale(colour), 1);
  for (const { colour, places, values, smoothed } of curves)
    draw(panel.smoothed ? smoothed : values, places, colour, 1.6);
  drawing.line(
    [
      [x0, y1],
      [x0, y0],
      [x1, y0],
    ],
    AXIS,
  );
  drawing.words(x, (x0 + x1) / 2, y0 + 28, { size: 10, colour: AXIS, align: "centre" });
}

/** From the least to the largest value, all smoothed ones and nearly all raw ones. */
function verticalRange(curves: readonly Curve[], useSmoothed: boolean): { low: number; high: number } {
  const raw = curves.flatMap(({ values }) => values.filter(Number.isFinite)).sort((a, b) => a - b);
  if (!useSmoothed) return { low: raw[0]!, high: raw.at(-1)! };
  const cut = Math.floor(raw.length * OUTLIERS);
  let [low, high] = [raw[cut]!, raw[raw.length - 1 - cut]!];
  for (const { smoothed } of curves)
    for (const value of smoothed)
      if (Number.isFinite(value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
  return { low, high };
}

/** Room around a range; a single value gets some too. */
function padded(low: number, high: number, share: number): [number, number] {
  // Values that differ by rounding alone are one.
  const size = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const by = high - low > 1e-9 * size ? share * (high - low) : 0.5 * size;
  return [low - by, high + by];
}

/** Powers of ten, or with few of them also twice and five times them. */
function logTicks(low: number, high: number): number[] {
  const factors = high - low > 2.5 ? [1] : [1, 2, 5];
  const list: number[] = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (Math.log10(value) >= low && Math.log10(value) <= high) list.push(value);
    }
  return list.length > 1 ? list : [10 ** low, 10 ** high];
}

/** At most two points, the lowest and the highest, for each column of pixels: what a finer line would show. */
function thinned(points: readonly (readonly [number, number])[]): (readonly [number, number])[] {
  if (points.length < 4 * PANEL.width) return [...points];
  const kept: (readonly [number, number])[] = [];
  for (let start = 0; start < points.length; ) {
    const column = Math.floor(points[start]![0]);
    let end = start;
    while (end < points.length && Math.floor(points[end]![0]) === column) end++;
    const some = points.slice(start, end);
    const known = some.filter(([, y]) => Number.isFinite(y)).sort(([, a], [, b]) => a - b);
    const ends = known.length > 1 ? [known[0]!, known.at(-1)!] : known;
    kept.push(...(ends.length > 0 ? ends.sort(([a], [b]) => a - b) : [some[0]!]));
    start = end;
  }
  return kept;
}

/**
 * Where the values of a series lie on the horizontal axis: at their steps, or at what another name had at or before
 * them; NaN where it had nothing yet.
 */
function placesOf(log: RunLog, { steps }: Series, x: string): number[] {
  if (x === "step") return steps;
  const axis = log.series.get(x);
  if (axis === undefined) return steps.map(() => Number.NaN);
  let i = -1;
  return steps.map((step) => {
    while (i + 1 < axis.steps.length && axis.steps[i + 1]! <= step) i++;
    return i < 0 ? Number.NaN : axis.values[i]!;
  });
}

function summarise(run: string, key: string, { steps, values }: Series, smoothed: readonly number[]): CurveSummary {
  const finite = values.flatMap((value, i) => (Number.isFinite(value) ? [i] : []));
  const at = finite.reduce((best, i) => (values[i]! < values[best]! ? i : best), finite[0]!);
  const last = values.at(-1)!;
  return {
    run,
    key,
    points: values.length,
    firstStep: steps[0]!,
    lastStep: steps.at(-1)!,
    last: Number.isFinite(last) ? last : null,
    lastSmoothed: smoothed[finite.at(-1)!]!,
    min: values[at]!,
    minStep: steps[at]!,
    max: finite.reduce((most, i) => Math.max(most, values[i]!), values[at]!),
  };
}

function defaultKeys(known: readonly string[]): string[] {
  const chosen = DEFAULT_KEYS.flatMap((names) => {
    const found = names.map((name) => known.filter((key) => matches(name, key)));
    return found.find((keys) => keys.length > 0) ?? [];
  });
  const more = known.filter((key) => DEFAULT_PATTERNS.some((pattern) => matches(pattern, key)));
  const all = [...new Set([...chosen, ...more])];
  return all.length > 0 ? all : [...known];
}

function chosenKeys(patterns: readonly string[], known: readonly string[]): string[] {
  return [
    ...new Set(
      patterns.flatMap((pattern) => {
        const found = known.filter((key) => matches(pattern, key));
        return found.length > 0 ? found : unknownName("keys", pattern, known);
      }),
    ),
  ];
}

function unknownName(option: string, name: string, known: readonly string[]): never {
  const near = nearest(name, known);
  throw invalid(option, `a name of the log: ${(near.length > 0 ? near : known).join(", ")}`, name);
}

/**
 * Whether a name fits a pattern in which `*` stands for any text: each part is looked for once, behind the one before
 * it.
 */
function matches(pattern: string, key: string): boolean {
  const [first, ...others] = pattern.split("*") as [string, ...string[]];
  const last = others.pop();
  if (last === undefined) return key === first;
  if (!key.startsWith(first)) return false;
  let at = first.length;
  for (const part of others) {
    const found = key.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return key.length - last.length >= at && key.endsWith(last);
}

/** The names of the logs; where some are the same, with a number. */
function distinctNames(logs: readonly RunLog[]): string[] {
  return logs.map(({ name }, i) => {
    const same = logs.filter((log) => log.name === name);
    return same.length === 1 ? name : `${name} (${logs.slice(0, i + 1).filter((log) => log.name === name).length})`;
  });
}

/** The runs in rows that fit the picture. */
function legendRows(runs: readonly { name: string; colour: string }[], width: number) {
  const rows: { x: number; colour: string; name: string }[][] = [[]];
  let x = 14;
  for (const { name, colour } of runs) {
    const needed = 24 + name.length * 7.6 + 22;
    if (x + needed > width && rows.at(-1)!.length > 0) {
      rows.push([]);
      x = 14;
    }
    rows.at(-1)!.push({ x, colour, name });
    x += needed;
  }
  return rows;
}

/** A colour mixed with two parts of white. */
function pale(colour: string): string {
  const mixed = [1, 3, 5].map((at) => Math.round((Number.parseInt(colour.slice(at, at + 2), 16) + 2 * 255) / 3));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** A number in a few letters: `12k`, `0.05`, `2e-5`. */
function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e9 || (size > 0 && size < 1e-3)) return value.toExponential().replace("e+", "e");
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return String(Number(value.toPrecision(4)));
}
