/** What `miro evaluate geneval --dry-run` says: how much there is to do, and how long it takes. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { EvaluationRun } from "../evaluation/geneval/run/evaluate.js";
import {
  expectedHours,
  measureColours,
  measureDrawing,
  measureLooking,
  type PartSeconds,
  PUBLISHED_SECONDS,
  type Workload,
} from "../evaluation/geneval/run/expected.js";
import { samplePath } from "../evaluation/geneval/run/image-folder.js";
import type { Suite } from "../evaluation/geneval/run/suites.js";
import { counted } from "../numbers.js";

/** Devices of the table for the published model. */
const DEVICES = [1, 8];

/**
 * The plan as text, or as JSON. Times a few steps of the model, and the detector and the colours on a picture where
 * their weights were given.
 *
 * @param asked.clip whether CLIP's weights were given
 */
export async function dryRun(
  run: EvaluationRun,
  suite: Suite,
  asked: { json: boolean; clip: boolean },
): Promise<string> {
  const { set, includes = () => true, draw, images, resources } = run;
  const indices = (set?.prompts ?? []).flatMap(({ tag }, index) => (includes(index, tag) ? [index] : []));
  const tasks: Record<string, number> = {};
  for (const index of indices) {
    const { tag } = set!.prompts[index]!;
    tasks[tag] = (tasks[tag] ?? 0) + 1;
  }
  const samples = draw?.samples ?? suite.samples;
  const pictures = indices.length * samples;
  const present = indices.flatMap((index) =>
    Array.from({ length: samples }, (_, sample) => sample).filter((sample) =>
      existsSync(join(images, samplePath(index, sample))),
    ),
  ).length;
  const pipe = draw && indices.length > 0 ? await resources.get("pipeline") : null;
  const drawing = pipe && (await measureDrawing(pipe, set!.prompts[indices[0]!]!.prompt, draw!.options));
  const steps = draw?.options.steps ?? pipe?.defaultSteps ?? 0;
  const detector = suite.needsWeights && run.detectorKey.includes("included") ? null : await resources.get("detector");
  const detect = detector ? await measureLooking(detector) : 0;
  const coloured = indices.flatMap((index) => set!.prompts[index]!.include.filter(({ color }) => color !== undefined));
  const objects = samples * coloured.reduce((sum, { count }) => sum + count, 0);
  const classes = new Set(coloured.map((one) => one.class)).size;
  const colours =
    objects > 0 && asked.clip && suite.needsWeights ? await measureColours(await resources.get("colours")) : null;
  const here: PartSeconds = {
    ...(drawing ?? { step: 0, text: 0, decode: 0 }),
    detect,
    ...(colours ?? { colour: 0, colourTexts: 0 }),
  };
  const left = (seen: number): Workload => ({
    prompts: Math.ceil((pictures - seen) / samples),
    pictures: draw ? pictures - seen : 0,
    detections: pictures,
    steps,
    objects,
    classes,
  });
  const hours = { here: expectedHours(left(present), here) };
  const published = suite.compare
    ? Object.fromEntries(
        Object.entries(PUBLISHED_SECONDS).map(([machine, seconds]) => [
          machine,
          DEVICES.map((devices) => ({ devices, hours: expectedHours({ ...left(0), steps: 50 }, seconds, devices) })),
        ]),
      )
    : {};
  if (asked.json) {
    const plan = { folder: images, prompts: indices.length, tasks, samples, pictures, present, steps, objects };
    return `${JSON.stringify({ ...plan, seconds: here, hours, published })}\n`;
  }
  const untimed = [...(detector ? [] : ["the detector"]), ...(objects > 0 && !colours ? ["the colours"] : [])];
  const time = (value: number) => (value < 1 ? `${(60 * value).toFixed(1)} minutes` : `${value.toFixed(1)} hours`);
  const milli = (seconds: number) => (seconds === 0 ? "not timed" : `${(1000 * seconds).toFixed(1)} ms`);
  return [
    `${images}: ${counted(indices.length, "prompt")} of ${set?.name ?? "the folder"}, ${counted(pictures, "picture")}, ${present} there already`,
    ...Object.entries(tasks).map(([tag, count]) => `  ${tag.padEnd(16)} ${counted(count, "prompt")}`),
    `one picture here: ${counted(steps, "step")} of ${milli(here.step)}, text ${milli(here.text)}, decoder ${milli(here.decode)}, detector ${milli(here.detect)}`,
    ...(objects > 0 ? [`${counted(objects, "object")} whose colour is asked for, ${milli(here.colour)} each`] : []),
    `expected here: ${time(hours.here)} in one process${untimed.length > 0 ? `, without ${untimed.join(" and ")}` : ""}`,
    ...Object.entries(published).map(
      ([machine, rows]) =>
        `the published model, 50 steps, ${machine}: ${rows
          .map(({ devices, hours }) => `${time(hours)} on ${devices === 1 ? "one" : devices}`)
          .join(", ")}`,
    ),
    "",
  ].join("\n");
}
