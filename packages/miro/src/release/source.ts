/** What a release is made from, wherever it comes from. */
import type { Tensor } from "@miro-t2i/torch";
import type { SafetensorsFile } from "@miro-t2i/torch/io";
import type { ReleaseConfig } from "../pipeline/loading/release-config.js";
import type { Release } from "../pipeline/loading/releases.js";
import type { Recipe } from "../training/recipes/recipe.js";
import type { TrainingState } from "../training/state/checkpoint.js";
import type { ReleaseFacts } from "./facts.js";
import type { Weight } from "./weights.js";
import type { ReleaseDType } from "./write-weights.js";

/** A checkpoint that is open: its tensors are read when they are written. */
export interface ReleaseSource extends Disposable {
  /** The file or folder, for people. */
  path: string;
  config: ReleaseConfig;
  /** By their names in a release: `network.*`, `preconditioning.*`, `data_preprocessing.*`, `postprocessing.*`. */
  weights: ReadonlyMap<string, Weight>;
  /** Text states of the empty prompt, (n, d); owned by the source. */
  uncondEmbedding: Tensor;
  /** Which weights these are, in words: `EMA weights of decay 0.9999`. */
  average: string;
  /** Optimizer steps behind the weights, where that is known. */
  step: number | null;
  /** The published release that it is, told by the folder's name. */
  preset: Release | null;
  /** How they were trained, where that is known. */
  training: ReleaseFacts["training"];
  /** Of a run of `miro train`: its recipe. */
  recipe: Recipe | null;
  /** Of such a run: the checkpoint's state, and its open files by name. */
  checkpoint: { state: TrainingState; files: ReadonlyMap<string, SafetensorsFile> } | null;
  /**
   * Copies the text encoder and the autoencoder that come with the checkpoint into a release's folder.
   * @param dtype of the release: the parts of one in float32 stay as they are
   * @throws the signal's reason
   */
  copyParts(folder: string, dtype: ReleaseDType, signal?: AbortSignal): void | Promise<void>;
}
