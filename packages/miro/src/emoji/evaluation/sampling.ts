/** Samples of lists. */
import { SceneRandom } from "../scenes/random.js";

const STREAM = 23;

/**
 * `count` items from all over a list, in its order: one from each of as many equal parts, chosen by the seed; all where
 * there are fewer.
 */
export function sampleEvenly<T>(items: readonly T[], count: number, seed: number): T[] {
  if (count >= items.length) return [...items];
  const edge = (part: number) => Math.floor((part * items.length) / count);
  return Array.from({ length: count }, (_, i) => {
    const first = edge(i);
    return items[first + new SceneRandom(seed, i, STREAM).below(edge(i + 1) - first)]!;
  });
}
