/** The networks and the loss of a recipe. */
import { arange, noGrad, rand, randn, scope, stack, type Tensor, zeros } from "@miro-t2i/torch";
import { checkObject } from "../../arguments.js";
import { InvalidInputError } from "../../errors.js";
import { FlowMatchingLoss } from "../../flow/loss.js";
import { release } from "../../flow/release.js";
import { LinearSchedule } from "../../flow/schedule.js";
import { parsePrecondConfig, parseRinConfig } from "../../networks/config.js";
import { FlowPrecond } from "../../networks/precond.js";
import { Rin } from "../../networks/rin.js";
import { modelOrBundled } from "../../pipeline/loading/bundled.js";
import { type Checkpoint, loadCheckpoint, loadCheckpointFiles } from "../../pipeline/loading/checkpoint.js";
import { isRun } from "../../pipeline/loading/run-checkpoint.js";
import { openRunModel } from "../../pipeline/loading/run-model.js";
import type { Recipe } from "../recipes/recipe.js";
import { PublishedCheckpoint, TORCH_FILE } from "../state/published-checkpoint.js";
import { growPatches, growsInto } from "./grow-patches.js";

/** The network alone. */
export function createNetwork(recipe: Recipe): Rin {
  return new Rin(parseRinConfig(recipe.network), { nanRewardAsZeroInTraining: recipe.loss.nanRewardAsZero });
}

/** Network and preconditioning on the CPU, in training mode, with weights drawn from the global generator. */
export function createNetworks(recipe: Recipe): { network: Rin; preconditioning: FlowPrecond } {
  checkObject("recipe", recipe, "a recipe, as loadRecipe gives it", ["network"]);
  const network = createNetwork(recipe);
  if (recipe.initialization.distinctTokens) distinguishTokens(network);
  const preconditioning = new FlowPrecond(parsePrecondConfig(recipe.preconditioning));
  network.train();
  preconditioning.train();
  return { network, preconditioning };
}

/**
 * Copies weights into fresh networks: of a release folder, such as an earlier export, of another run, or of a training
 * checkpoint of the published code. Weights of a network with larger patches are grown (grow-patches.ts).
 * @param average of a training checkpoint: the average whose values the network gets; by default the network's own
 * @throws TorchError or MiroError that lists every tensor in which they differ
 */
export function startFrom(from: string, network: Rin, preconditioning: FlowPrecond, average = "network"): void {
  const reweights = preconditioning.config.doGradnormReweighting;
  if (TORCH_FILE.test(from)) {
    using checkpoint = PublishedCheckpoint.open(from);
    checkpoint.load(average, network);
    if (reweights) checkpoint.load("preconditioning", preconditioning);
    return;
  }
  const checkpoint = isRun(from) ? loadRun(from) : loadCheckpoint(modelOrBundled(from));
  try {
    checkRewards(from, checkpoint.network.config.coherenceKeys, network.config.coherenceKeys);
    noGrad(() => {
      const { config } = checkpoint.network;
      const weights = checkpoint.network.stateDict();
      scope(() => {
        const grows = growsInto(config, network.config);
        network.loadStateDict(grows ? growPatches(weights, config, network.config) : weights);
      });
      // A model trained without reweighting has no log-variance; the fresh one stays.
      if (reweights && checkpoint.preconditioning.config.doGradnormReweighting)
        preconditioning.loadStateDict(checkpoint.preconditioning.stateDict());
    });
  } finally {
    checkpoint.network.dispose();
    checkpoint.preconditioning.dispose();
    release([checkpoint.preprocessing, checkpoint.postprocessing, checkpoint.uncondEmbedding]);
  }
}

/** A run as a checkpoint, of which only the weights are taken: it need not know the empty prompt. */
function loadRun(run: string): Checkpoint {
  const files = openRunModel(run);
  return loadCheckpointFiles({ ...files, readUncondEmbedding: () => zeros([1, files.config.network.labelDim]) });
}

/** @throws InvalidInputError where a model has learned other rewards than a network is to have */
function checkRewards(from: string, theirs: readonly string[], ours: readonly string[]): void {
  if (theirs.join() === ours.join()) return;
  throw new InvalidInputError(
    `initialization.from: ${from} has learned the rewards ${theirs.join(", ")}, network.coherence_keys are ${ours.join(", ")}; keep its names in their order, and name your fields for them in data.score_columns`,
  );
}

/**
 * Standard deviation of the spatial frequencies, in waves a picture: neighbours in an 8 × 8 grid begin correlated by a
 * half.
 */
const POSITION_FREQUENCY = 1.5;

/**
 * Other initial values for two learned tables, of unit variance: latents are normal, data positions are random Fourier
 * features of their place. With upstream's 0.02 all latents, and all places, start nearly alike; small networks then
 * spend most of a short training on telling them apart (after 60,000 pictures the places had an effective rank of 8 of
 * 64).
 */
function distinguishTokens(network: Rin): void {
  noGrad(() =>
    scope(() => {
      network.latents.copy_(randn(network.latents.shape));
      const [places, dim] = network.dataPositions.shape as [number, number];
      const side = Math.sqrt(places);
      const index = arange(places);
      const place = stack([index.floorDivide(side), index.remainder(side)], 1)
        .float()
        .div(side); // (places, 2) in [0, 1)
      const frequencies = randn([2, dim]).mul(2 * Math.PI * POSITION_FREQUENCY);
      const phases = rand([dim]).mul(2 * Math.PI);
      network.dataPositions.copy_(place.matmul(frequencies).add(phases).cos().mul(Math.SQRT2));
    }),
  );
}

/** The loss of a recipe. */
export function createLoss(recipe: Recipe, uncondEmbedding: Tensor): FlowMatchingLoss {
  checkObject("recipe", recipe, "a recipe, as loadRecipe gives it", ["loss", "scheduler"]);
  return new FlowMatchingLoss({
    schedule: new LinearSchedule(recipe.scheduler),
    uncondEmbedding,
    ...recipe.loss,
    logitNormal: recipe.loss.logitNormalResample ? { mean: recipe.loss.muT, std: recipe.loss.stdT } : null,
    doGradnormReweighting: recipe.preconditioning.do_gradnorm_reweighting === true,
  });
}
