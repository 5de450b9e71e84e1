/** The networks and the loss of a recipe. */
import type { Tensor } from "@miro-t2i/torch";
import { FlowMatchingLoss } from "../flow/loss.js";
import { LinearSchedule } from "../flow/schedule.js";
import { parsePrecondConfig, parseRinConfig } from "../networks/config.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import type { Recipe } from "./recipe.js";

/** Network and preconditioning on the CPU, in training mode, with weights drawn from the global generator. */
export function createNetworks(recipe: Recipe): { network: Rin; preconditioning: FlowPrecond } {
  const network = new Rin(parseRinConfig(recipe.network));
  const preconditioning = new FlowPrecond(parsePrecondConfig(recipe.preconditioning));
  network.train();
  preconditioning.train();
  return { network, preconditioning };
}

export function createLoss(recipe: Recipe, uncondEmbedding: Tensor): FlowMatchingLoss {
  return new FlowMatchingLoss({
    schedule: new LinearSchedule(recipe.scheduler),
    uncondEmbedding,
    ...recipe.loss,
    logitNormal: recipe.loss.logitNormalResample ? { mean: recipe.loss.muT, std: recipe.loss.stdT } : null,
    doGradnormReweighting: recipe.preconditioning.do_gradnorm_reweighting === true,
  });
}
