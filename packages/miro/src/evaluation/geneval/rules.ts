/**
 * GenEval's rules (Ghosh, Hajishirzi, Schmidt 2023): from what a detector found in a picture to whether the picture
 * shows what its prompt asks for, and why not. Verdicts, reasons and kept boxes are those of the published evaluator.
 */
import { z } from "zod";
import { field } from "../../options.js";
import type { Box } from "./detection.js";
import { COLOURS, type Colour, type PromptMetadata, type Relation, type Requirement } from "./metadata.js";

/** An object that was found. */
export interface Found {
  readonly box: Box;
  readonly score: number;
}

const share = z.number().min(0).max(1);

/** The rules' constants, under the names of the published evaluator. */
export const rulesSchema = z.strictObject({
  /** An object counts with a score above it. Default: 0.3. */
  threshold: field(share.default(0.3), {
    expected: "a number from 0 to 1",
    help: "an object counts with a score above it",
  }),
  /** What stands for `threshold` in the task counting. Default: 0.9. */
  counting_threshold: field(share.default(0.9), {
    expected: "a number from 0 to 1",
    help: "what stands for it in the task counting",
  }),
  /** Objects of a class that are kept, best first. Default: 16. */
  max_objects: field(z.int().min(1).default(16), {
    expected: "an integer of at least 1",
    help: "objects of a class that are kept, best first",
  }),
  /** An object is dropped when its box overlaps a better one of its class by that much. Default: 1, never. */
  max_overlap: field(share.default(1), {
    expected: "a number from 0 to 1",
    help: "an object is dropped when its box overlaps a better one of its class by that much; 1: never",
  }),
  /** How far an object must be off another one, as a share of their sizes. Default: 0.1. */
  position_threshold: field(z.number().min(0).default(0.1), {
    expected: "a number of at least 0",
    help: "how far an object must be off another one, as a share of their sizes",
  }),
});
/** The rules' constants, checked. */
export type Rules = z.output<typeof rulesSchema>;

/** Whether a picture shows what was asked for. */
export interface Verdict<F extends Found> {
  correct: boolean;
  /** What is wrong, one fault a line; empty if nothing is. */
  reason: string;
  /** The objects that count, best first, of every class that has any. */
  kept: Map<string, F[]>;
}

/** Tells the colours of objects of a class. */
export type ColoursOf<F extends Found> = (className: string, objects: readonly F[]) => readonly Colour[];

/**
 * Judges a picture.
 *
 * @param found the objects of each class, in any order
 * @param coloursOf asked for the best objects of a class where the prompt gives their colour
 */
export function judge<F extends Found>(
  metadata: PromptMetadata,
  found: ReadonlyMap<string, readonly F[]>,
  coloursOf: ColoursOf<F>,
  rules: Rules,
): Verdict<F> {
  const kept = new Map<string, F[]>();
  for (const [name, objects] of found) {
    const best = keepBest(objects, metadata.tag, rules);
    if (best.length > 0) kept.set(name, best);
  }
  const reasons: string[] = [];
  /** What fulfils each requirement so far; null where nothing does. */
  const groups: (readonly F[] | null)[] = [];
  for (const requirement of metadata.include) {
    const objects = (kept.get(requirement.class) ?? []).slice(0, requirement.count);
    const reason = faultOf(requirement, objects, groups, coloursOf, rules);
    groups.push(reason === null ? objects : null);
    if (reason !== null) reasons.push(reason);
  }
  for (const { class: name, count } of metadata.exclude ?? []) {
    const { length } = kept.get(name) ?? [];
    if (length >= count) reasons.push(`expected ${name}<${count}, found ${length}`);
  }
  return { correct: reasons.length === 0, reason: reasons.join("\n"), kept };
}

/** The objects of one class that count in a task, best first. */
export function keepBest<F extends Found>(objects: readonly F[], tag: string, rules: Rules): F[] {
  const threshold = tag === "counting" ? rules.counting_threshold : rules.threshold;
  const best = objects
    .filter(({ score }) => score > threshold)
    .sort((a, b) => b.score - a.score)
    .slice(0, rules.max_objects);
  if (rules.max_overlap === 1) return best;
  const kept: F[] = [];
  for (const object of best) {
    if (kept.every((better) => overlap(better.box, object.box) < rules.max_overlap)) kept.push(object);
  }
  return kept;
}

function faultOf<F extends Found>(
  { class: name, count, color, position }: Requirement,
  objects: readonly F[],
  groups: readonly (readonly F[] | null)[],
  coloursOf: ColoursOf<F>,
  { position_threshold: slack }: Rules,
): string | null {
  if (objects.length < count) return `expected ${name}>=${count}, found ${objects.length}`;
  if (color !== undefined) {
    const colours = coloursOf(name, objects);
    const times = (colour: Colour) => colours.filter((one) => one === colour).length;
    if (times(color) < count) {
      const tally = COLOURS.filter((colour) => times(colour) > 0).map((colour) => `${times(colour)} ${colour}`);
      return `expected ${color} ${name}>=${count}, found ${times(color)} ${color}; and ${tally.join(", ")}`;
    }
  }
  if (position === undefined) return null;
  const [relation, target] = position;
  const targets = groups[target];
  if (!targets) return `no target for ${name} to be ${relation}`;
  for (const object of objects) {
    for (const other of targets) {
      const { relations } = relativePosition(object.box, other.box, slack);
      // With no relation at all two spaces stay, as the published evaluator writes it.
      if (!relations.includes(relation))
        return `expected ${name} ${relation} target, found ${relations.join(" and ")} target`;
    }
  }
  return null;
}

/** Share of the pixels of two boxes that both have; the corners are pixels of theirs. */
export function overlap(a: Box, b: Box): number {
  const area = ([x1, y1, x2, y2]: Box) => Math.max(x2 - x1 + 1, 0) * Math.max(y2 - y1 + 1, 0);
  const common = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  const union = area(a) + area(b) - common;
  return union === 0 ? 0 : common / union;
}

/**
 * Where a box is, seen from another one. The offset o of the centres, less what the sizes d allow, is divided by the
 * length of the offset as it was:
 *
 *   (u, v) = max(|o| − slack (dₐ + d_b), 0) sign(o) / ‖o‖      left u < −½, right u > ½, above v < −½, below v > ½
 *
 * @returns the relations, the horizontal one first, and (u, v), which is null where the boxes are too close
 */
export function relativePosition(
  a: Box,
  b: Box,
  slack: number,
): { relations: Relation[]; direction: readonly [number, number] | null } {
  const offset = [0, 1].map((i) => (a[i]! + a[i + 2]!) / 2 - (b[i]! + b[i + 2]!) / 2);
  const revised = offset.map((o, i) => {
    const sizes = Math.abs(a[i + 2]! - a[i]!) + Math.abs(b[i + 2]! - b[i]!);
    return Math.max(Math.abs(o) - slack * sizes, 0) * Math.sign(o);
  });
  if (revised.every((r) => Math.abs(r) < 1e-3)) return { relations: [], direction: null };
  const length = Math.hypot(...offset);
  const [u, v] = revised.map((r) => r / length) as [number, number];
  const relations: Relation[] = [];
  if (u < -0.5) relations.push("left of");
  if (u > 0.5) relations.push("right of");
  if (v < -0.5) relations.push("above");
  if (v > 0.5) relations.push("below");
  return { relations, direction: [u, v] };
}
