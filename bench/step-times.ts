/** What steps took, by the moments at which they ended. */

/**
 * The time of each step but the first, whose end is where the measuring begins. On a device the host only queues a
 * step, so that the moments in between say nothing: there it is one time, the mean of all. The first and the last
 * moment must then be ones at which the device had done all that was queued.
 */
export function stepTimes(ends: readonly number[], queued: boolean): number[] {
  if (queued) return [(ends.at(-1)! - ends[0]!) / (ends.length - 1)];
  return ends.slice(1).map((end, i) => end - ends[i]!);
}
