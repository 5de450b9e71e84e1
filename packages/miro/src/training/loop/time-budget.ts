/** `trainer.max_minutes`: how long a run may take, counted from its start. */
import { plural, shortNumber } from "../../numbers.js";

/** When the time of a run that begins now is over, by performance.now(); never without a limit. */
export function deadlineOf(maxMinutes: number | undefined): number {
  return maxMinutes === undefined ? Number.POSITIVE_INFINITY : performance.now() + maxMinutes * 60_000;
}

/** `, within 30 minutes`, or nothing. */
export function within(maxMinutes: number | undefined): string {
  return maxMinutes === undefined ? "" : `, within ${minutes(maxMinutes)}`;
}

/** `1 minute`, `1.5 minutes`. */
export function minutes(count: number): string {
  return `${shortNumber(count)} ${plural(count, "minute")}`;
}
