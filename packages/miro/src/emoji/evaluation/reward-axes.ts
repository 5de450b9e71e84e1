/**
 * Does a picture follow its reward targets? Prompts and seeds are kept and one target moves through 0, ¼, ½, ¾, 1 while
 * the others stay 1; what the reward stands for is measured in the pictures and must rise with it.
 */
import { Chart, ticks } from "../../pictures/chart.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { haslerColorfulness, laplacianEnergy } from "../../rewards/measured.js";
import type { EmojiClassifier } from "./classifier.js";
import { type Asked, judge, shareOf } from "./retrieval.js";

/** The targets that a reward is moved through. */
export const REWARD_TARGETS = [0, 0.25, 0.5, 0.75, 1] as const;

export interface RewardAxis {
  /** What was measured, in words. */
  measure: string;
  targets: readonly number[];
  /** The measure at each target, averaged over prompts. */
  values: number[];
  /** Whether the measure at 1 exceeds that at 0. */
  rises: boolean;
  /** Whether it falls nowhere on the way. */
  monotone: boolean;
  /** The largest fall between two targets, as a share of the range of all values; 0 where it is monotone. */
  largestFall: number;
}

interface Measure {
  name: string;
  of: (images: readonly RgbImage[], asked: readonly Asked[], classifier: EmojiClassifier) => number;
}

/**
 * What each reward is held against. Captions that are wrong in part have a part of `clip_score`, a wrong background
 * too.
 */
export const REWARD_MEASURES: Readonly<Record<string, Measure>> = {
  clip_score: {
    name: "thing and background right",
    of: (images, asked, classifier) => {
      const judged = asked.map((one, i) => judge(images[i]!, one, classifier));
      return shareOf(judged, ({ label, named, rightBackground }) => named[0] === label && rightBackground);
    },
  },
  sharpness: { name: "Laplacian energy", of: (images) => average(images, laplacianEnergy) },
  colorfulness: { name: "colourfulness (Hasler and Süsstrunk)", of: (images) => average(images, haslerColorfulness) },
};

function average(images: readonly RgbImage[], measure: (image: RgbImage) => number): number {
  return images.reduce((sum, image) => sum + measure(image), 0) / images.length;
}

/** What a series of measures, one for each of {@link REWARD_TARGETS}, says. */
export function rewardAxis(reward: string, values: number[]): RewardAxis {
  const falls = values.slice(1).map((value, i) => values[i]! - value);
  const largest = Math.max(0, ...falls);
  return {
    measure: REWARD_MEASURES[reward]!.name,
    targets: REWARD_TARGETS,
    values,
    rises: values.at(-1)! > values[0]!,
    monotone: largest === 0,
    largestFall: largest === 0 ? 0 : largest / (Math.max(...values) - Math.min(...values)),
  };
}

const PANEL = { width: 300, height: 230 };
const PLOT = { left: 48, right: 18, top: 46, bottom: 40 };
const AXIS_COLOUR = "#777777";
const GRID_COLOUR = "#e6e6e6";
const CURVE_COLOUR = "#0072b2";
const MARK = 7;

/** The curves side by side, each from zero up. */
export function rewardChart(axes: Readonly<Record<string, RewardAxis>>): Chart {
  const shown = Object.entries(axes);
  const drawing = new Chart(shown.length * PANEL.width, PANEL.height);
  shown.forEach(([reward, axis], i) => {
    drawPanel(drawing, i * PANEL.width, reward, axis);
  });
  return drawing;
}

function drawPanel(drawing: Chart, left: number, reward: string, { measure, targets, values }: RewardAxis): void {
  const [x0, x1] = [left + PLOT.left, left + PANEL.width - PLOT.right];
  const [y0, y1] = [PANEL.height - PLOT.bottom, PLOT.top];
  const most = Math.max(...values) * 1.05 || 1;
  const across = (target: number) => x0 + target * (x1 - x0);
  const up = (value: number) => y0 - (value / most) * (y0 - y1);
  drawing.words(reward, (x0 + x1) / 2, 14, { size: 13, bold: true, align: "centre" });
  drawing.words(measure, (x0 + x1) / 2, 32, { size: 11, colour: AXIS_COLOUR, align: "centre" });
  for (const value of ticks(0, most, 5)) {
    drawing.line(
      [
        [x0, up(value)],
        [x1, up(value)],
      ],
      GRID_COLOUR,
    );
    drawing.words(String(value), x0 - 6, up(value), { size: 10, colour: AXIS_COLOUR, align: "right" });
  }
  for (const target of targets)
    drawing.words(String(target), across(target), y0 + 12, { size: 10, colour: AXIS_COLOUR, align: "centre" });
  drawing.words("target", (x0 + x1) / 2, y0 + 28, { size: 10, colour: AXIS_COLOUR, align: "centre" });
  drawing.line(
    [
      [x0, y1],
      [x0, y0],
      [x1, y0],
    ],
    AXIS_COLOUR,
  );
  const points = targets.map((target, i) => [across(target), up(values[i]!)] as const);
  drawing.line(points, CURVE_COLOUR, 2);
  for (const [x, y] of points) drawing.rectangle(x - MARK / 2, y - MARK / 2, MARK, MARK, CURVE_COLOUR);
}
