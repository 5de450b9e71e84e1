/** True pictures of the things that a model is asked for. */
import type { RgbImage } from "../../pictures/rgb.js";
import { toRgb8 } from "../scenes/render.js";
import { EmojiScenes } from "../scenes/scenes.js";
import { loadVocabulary } from "../scenes/vocabulary.js";

/** The given names, and others where they are fewer than scenes need. */
export function atLeastEight(labels: readonly string[]): string[] {
  const others = loadVocabulary("everyday").map(({ label }) => label);
  const more = others.filter((label) => !labels.includes(label)).slice(0, Math.max(0, 8 - labels.length));
  return [...labels, ...more];
}

/** Each thing alone on white, undamaged, as the scenes of the training show it. */
export async function rendersOf(labels: readonly string[], size: number, seed: number): Promise<RgbImage[]> {
  const scenes = await EmojiScenes.load({
    vocabulary: atLeastEight(labels),
    size,
    seed,
    kinds: { one: 1, small: 0, count: 0, pair: 0 },
    backgrounds: { white: 1, named: 0, gradient: 0 },
    tint: 0,
    degraded: 0,
  });
  return labels.map((label, index) => {
    const scene = scenes.describe(index);
    const entryIndex = scenes.vocabulary.findIndex((entry) => entry.label === label);
    const thing = { ...scene.objects[0]!, entry: scenes.vocabulary[entryIndex]!, entryIndex };
    const planes = new Float32Array(3 * size * size);
    scenes.render({ ...scene, objects: [thing] }, planes);
    return { width: size, height: size, data: toRgb8(planes, size) };
  });
}
