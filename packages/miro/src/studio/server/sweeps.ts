/** Sweeps over HTTP: the options of `miro sweep` as a job, whose result is a labelled sheet and its pictures. */
import { z } from "zod";
import { invalid } from "../../errors.js";
import { parseAxis } from "../../evaluation/sweep/axis.js";
import { layOutSweep } from "../../evaluation/sweep/run.js";
import { field } from "../../options.js";
import { checkCellSize } from "../../pictures/labelled-sheet.js";
import { type PromptOptions, promptOptionsSchema } from "../../pipeline/requests/prompt-file.js";
import { scorerSpec } from "../../rewards/registry.js";
import { checkRewards, checkTogether, chooseModel, jobBody, parseBody, type WorkContext } from "./bodies.js";
import type { JobWork } from "./job.js";
import { MAX_SWEEP_PICTURES } from "./limits.js";

const { prompt, prompts, model, previewEvery, cancelOnDisconnect } = jobBody.shape;
const { image: _, mask: __, strength: ___, imagesPerPrompt: ____, ...settings } = promptOptionsSchema.shape;

/** The body of `POST /api/sweeps`. */
export const sweepBody = z.strictObject({
  ...settings,
  prompt,
  prompts,
  model,
  previewEvery,
  cancelOnDisconnect,
  /** What changes from column to column, `NAME=VALUES`. */
  x: field(z.string().max(10_000), { expected: "an axis and its values, NAME=VALUES", help: "from column to column" }),
  /** What changes from row to row. Default: the prompts. */
  y: field(z.string().max(10_000).optional(), {
    expected: "an axis and its values, NAME=VALUES",
    help: "from row to row; default: the prompts",
  }),
  /** Seed of every place. Default: 0. */
  seed: field(z.int().min(0).default(0), { expected: "an integer of at least 0", help: "seed of every place" }),
  /** Pictures of each place, seeds upwards. Default: 1. */
  imagesPerCell: field(z.int().min(1).max(1000).default(1), {
    expected: "an integer of at least 1",
    help: "pictures of each place, seeds upwards",
  }),
  /** Scorers of every picture. */
  by: field(z.array(z.string().max(100)).max(100).default([]), {
    expected: "a list of keys of scorers",
    help: "score every picture",
  }),
  /** Score every picture by its distance from the one that its steps lead to. */
  distance: field(z.boolean().default(false), {
    expected: "true or false",
    help: "score every picture by its distance from the one that its steps lead to",
  }),
  /** Title of the sheet. Default: the prompt. */
  title: field(z.string().max(1000).optional(), { expected: "a text", help: "title of the sheet" }),
  /** Side of a picture on the sheet, pixels. */
  cellSize: field(z.int().min(1).max(2048).optional(), {
    expected: "an integer from 1 to 2048",
    help: "side of a picture on the sheet, pixels",
  }),
});

/**
 * The work of a sweep, with every option checked.
 * @throws InvalidInputError naming the field
 */
export function sweepWorkOf(given: unknown, { engine }: WorkContext): JobWork {
  const body = parseBody(sweepBody, given);
  if ((body.prompt === undefined) === (body.prompts === undefined))
    throw invalid("prompt", "one prompt, or a list of prompts", body.prompt);
  const texts = body.prompts ?? [body.prompt!];
  if (texts.some((text) => text.trim() === "")) throw invalid(body.prompts ? "prompts" : "prompt", "texts", "");
  const card = chooseModel(body.model, engine);
  const x = parseAxis(body.x, "x", texts);
  const y = body.y === undefined ? undefined : parseAxis(body.y, "y", texts);
  for (const key of body.by) scorerSpec(key, "by");
  const { seed, imagesPerCell, by, distance, title, cellSize } = body;
  const own = Object.fromEntries(Object.entries(body).filter(([key]) => key in settings)) as PromptOptions;
  const layout = { prompts: texts, x, y, seed, imagesPerCell, settings: own, model: card.id };
  const rows = (y?.points ?? texts).length;
  const cells = rows * x.points.length;
  checkCellSize(cellSize, rows, x.points.length);
  if (cells * imagesPerCell > MAX_SWEEP_PICTURES)
    throw invalid("x", `at most ${MAX_SWEEP_PICTURES} pictures in a sweep`, cells * imagesPerCell);
  const places = layOutSweep(layout);
  for (const place of places) checkTogether(place.options);
  const ids = places.map((place) => (place.variant === undefined ? place.model : `${place.model}@${place.variant}`));
  const cards = new Map(ids.map((id) => [id, chooseModel(id, engine)]));
  // Of several models each leaves out the targets that it does not know.
  if (cards.size === 1) {
    for (const { options } of places)
      for (const name of ["rewardTargets", "negativeRewardTargets"] as const)
        checkRewards(name, options[name], [...cards.values()][0]!);
  }
  const loads = Object.fromEntries([...cards.keys()].map((id) => [id, engine.loadOf(id)]));
  return {
    model: [...cards.values()][0]!.id,
    cancelOnDisconnect: body.cancelOnDisconnect,
    call: {
      pictures: places.map(({ index, prompt, seed, options }) => ({ index, prompt, seed, options, path: "" })),
      edits: [],
      sweep: { ...layout, by, distance, title, cellSize, loads },
      ...(body.previewEvery !== undefined && { previewEvery: body.previewEvery }),
    },
  };
}
