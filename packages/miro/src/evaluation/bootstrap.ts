/**
 * Intervals of means by the bootstrap (Efron 1979): the units, here the prompts, are drawn anew with replacement, as
 * many as there are, and the middle 95 % of the means is the interval. Pictures of one prompt are not independent;
 * prompts are.
 */
import { checkList } from "../arguments.js";
import { philox4x32 } from "../random/philox.js";

const RESAMPLES = 2000;

/** The middle 95 %. */
export type Interval = [low: number, high: number];

/**
 * The intervals of the means of several values of the same units; all see the same drawings.
 * @param columns the values of the units, column by column; null: the unit has none
 * @returns null for a column with fewer than two values: of one unit nothing tells how another would differ
 */
export function bootstrapIntervals(columns: readonly (readonly (number | null)[])[]): (Interval | null)[] {
  checkList("columns", columns, "a list of columns of numbers", Array.isArray);
  const units = columns[0]?.length ?? 0;
  const means: number[][] = columns.map(() => []);
  for (let round = 0; round < RESAMPLES && units > 0; round++) {
    const drawn = drawUnits(round, units);
    columns.forEach((values, c) => {
      let [sum, count] = [0, 0];
      for (const unit of drawn) {
        const value = values[unit]!;
        if (value === null) continue;
        sum += value;
        count++;
      }
      if (count > 0) means[c]!.push(sum / count);
    });
  }
  return means.map((list, c) => {
    if (columns[c]!.filter((value) => value !== null).length < 2) return null;
    return middleOf(list);
  });
}

/** The middle 95 % of values. */
export function middleOf(values: readonly number[]): Interval {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))]!;
  return [at(0.025), at(0.975)];
}

/** As many units as there are, with replacement. They depend on nothing but their number and the round. */
function drawUnits(round: number, units: number): Uint32Array {
  const drawn = new Uint32Array(units);
  for (let i = 0; i < units; i += 4) {
    philox4x32([i, 0, round, 0], [units, 0]).forEach((word, k) => {
      if (i + k < units) drawn[i + k] = Math.floor((word / 2 ** 32) * units);
    });
  }
  return drawn;
}
