/** Which of a checkpoint's weights are released: one of its EMA copies, or the network's own. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { invalid, MiroError } from "../errors.js";
import { message, option } from "../message.js";
import { emaName } from "../training/loop/ema.js";
import type { Recipe } from "../training/recipes/recipe.js";
import { emaFile } from "../training/state/checkpoint.js";

/** The place of an EMA copy, from 0, or `raw` for the network's own weights. */
export type EmaChoice = number | "raw";

/** The file of a run's checkpoint with the weights that are meant; null: the network's own. */
export function emaFiles(
  checkpoint: string,
  { ema }: Recipe,
  choice: EmaChoice = ema.defaultIndex,
): { file: string | null; words: string } {
  if (choice === "raw") return { file: null, words: "the network's own weights, not averaged" };
  const decays = Array.isArray(ema.decay) ? ema.decay : [ema.decay];
  const decay = decays[choice];
  if (decay === undefined) throw invalid("ema", placesOf(decays.length), choice);
  const file = emaFile(emaName(decay, choice));
  if (!existsSync(join(checkpoint, file))) throw new MiroError(`${join(checkpoint, file)}: is missing`);
  return { file, words: `EMA weights, decay ${decay}` };
}

/** The module of a published checkpoint with the weights that are meant. @throws InvalidInputError */
export function emaModule(
  path: string,
  averages: readonly string[],
  choice: EmaChoice,
): { name: string; words: string } {
  if (choice === "raw") return { name: "network", words: "the network's own weights, not averaged" };
  if (averages.length === 0)
    throw new MiroError(
      message`${path}: holds no EMA weights; ${option("ema", "raw")} takes the network's own weights`,
    );
  const name = averages[choice];
  if (name === undefined) throw invalid("ema", placesOf(averages.length), choice);
  const decay = /^ema_network_(\d+)_(\d+)$/.exec(name);
  return { name, words: decay === null ? "EMA weights" : `EMA weights, decay ${decay[1]}.${decay[2]}` };
}

function placesOf(count: number): string {
  return count === 1 ? "0, the only EMA weights, or raw" : `0 to ${count - 1}, the place of EMA weights, or raw`;
}
