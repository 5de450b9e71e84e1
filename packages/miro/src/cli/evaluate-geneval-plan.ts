/** What `miro evaluate geneval --dry-run` says: how much there is to do, and how long it takes. */
import { type PromptState, promptStates } from "../evaluation/geneval/run/evaluate.js";
import type { EvaluationRun, Stage } from "../evaluation/geneval/run/evaluation-run.js";
import {
  expectedHours,
  measureColours,
  measureDrawing,
  measureLooking,
  type PartSeconds,
  PUBLISHED_SECONDS,
  type Workload,
} from "../evaluation/geneval/run/expected.js";
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
  const { set, draw, only, images, resources } = run;
  const prompts = promptStates(run);
  const tasks: Record<string, number> = {};
  for (const { metadata } of prompts) tasks[metadata.tag] = (tasks[metadata.tag] ?? 0) + 1;
  const samples = draw?.samples ?? suite.samples;
  const sum = (of: (prompt: PromptState) => number) => prompts.reduce((total, prompt) => total + of(prompt), 0);
  const pictures = sum((one) => one.pictures);
  const present = sum((one) => one.present);
  const detected = sum((one) => (one.isDetected ? one.pictures : 0));
  const does = (stage: Stage) => only === undefined || only === stage;
  const pipe = draw && prompts.length > 0 ? await resources.get("pipeline") : null;
  const drawing = pipe && (await measureDrawing(pipe, prompts[0]!.metadata.prompt, draw!.options));
  const steps = draw?.options.steps ?? pipe?.defaultSteps ?? 0;
  const looks = does("detect") && !(suite.needsWeights && run.detectorKey.includes("included"));
  const detector = looks ? await resources.get("detector") : null;
  const detect = detector ? await measureLooking(detector) : 0;
  const { objects, classes } = colouredOf(prompts);
  const colours =
    objects > 0 && asked.clip && suite.needsWeights ? await measureColours(await resources.get("colours")) : null;
  const here: PartSeconds = {
    ...(drawing ?? { step: 0, text: 0, decode: 0 }),
    detect,
    ...(colours ?? { colour: 0, colourTexts: 0 }),
  };
  const undrawn = draw ? pictures - present : 0;
  const left: Workload = {
    prompts: Math.ceil(undrawn / samples),
    pictures: undrawn,
    detections: pictures - detected,
    steps,
    ...colouredOf(prompts.filter(({ isClassified }) => !isClassified)),
  };
  const hours = { here: expectedHours(left, here) };
  const whole = { prompts: prompts.length, pictures, detections: pictures, steps: 50, objects, classes };
  const published =
    suite.compare && draw
      ? Object.fromEntries(
          Object.entries(PUBLISHED_SECONDS).map(([machine, seconds]) => [
            machine,
            DEVICES.map((devices) => ({ devices, hours: expectedHours(whole, seconds, devices) })),
          ]),
        )
      : {};
  if (asked.json) {
    const plan = {
      folder: images,
      prompts: prompts.length,
      tasks,
      samples,
      pictures,
      present,
      detected,
      steps,
      objects,
    };
    return `${JSON.stringify({ ...plan, seconds: here, hours, published })}\n`;
  }
  const untimed = [...(detector ? [] : ["the detector"]), ...(objects > 0 && !colours ? ["the colours"] : [])];
  const time = (value: number) => (value < 1 ? `${(60 * value).toFixed(1)} minutes` : `${value.toFixed(1)} hours`);
  const milli = (seconds: number) => (seconds === 0 ? "not timed" : `${(1000 * seconds).toFixed(1)} ms`);
  const asks = `${counted(prompts.length, "prompt")} of ${set?.name ?? "the folder"}`;
  const drawn = draw && [
    `${counted(steps, "step")} of ${milli(here.step)}`,
    `text ${milli(here.text)}`,
    `decoder ${milli(here.decode)}`,
  ];
  return [
    `${images}: ${asks}, ${counted(pictures, "picture")}, ${present} there and ${detected} looked at already`,
    ...Object.entries(tasks).map(([tag, count]) => `  ${tag.padEnd(16)} ${counted(count, "prompt")}`),
    `one picture here: ${[...(drawn ?? []), `detector ${milli(here.detect)}`].join(", ")}`,
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

/** Objects of some prompts' pictures whose colour is asked for, and the classes that these are of. */
function colouredOf(prompts: readonly PromptState[]): Pick<Workload, "objects" | "classes"> {
  const coloured = prompts.flatMap(({ metadata, pictures }) =>
    metadata.include.flatMap(({ class: name, color, count }) => (color ? [{ name, objects: pictures * count }] : [])),
  );
  return {
    objects: coloured.reduce((sum, { objects }) => sum + objects, 0),
    classes: new Set(coloured.map(({ name }) => name)).size,
  };
}
