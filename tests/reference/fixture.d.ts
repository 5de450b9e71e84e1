import { type Tensor } from "@miro-t2i/torch";
/** Where a size's recording is looked for: the committed one for tiny, else what was recorded into .cache. */
export declare function referenceFolder(size?: string): string;
/** Where a recording of the scorers is looked for: the committed one for tiny, else what was recorded into .cache. */
export declare function scorerFolder(size?: string): string;
/** What reference.json says of a training run. */
export interface RecordedTraining {
  reweighted: boolean;
  steps: number;
  self_cond_rate: number;
  cond_drop_rate: number;
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  warmup_steps: number;
  total_steps: number;
  clip: number;
  ema_decay: number;
}
/** What reference.json says of a call of the pipeline. */
export interface RecordedRun {
  seed: number;
  steps: number;
  guidance_scale: number;
  num_images_per_prompt?: number;
  reward_targets?: Record<string, number>;
  negative_reward_targets?: Record<string, number>;
}
/** `reference.json` */
export interface RecordedInfo {
  size: string;
  seed: number;
  torch: string;
  miro?: string;
  prompts: string[];
  parameters: number;
  untruncated_ids: number[][];
  runs: Record<string, RecordedRun>;
  train?: RecordedTraining;
  train_reweighted?: RecordedTraining;
  /** How many values of each gradient and trained weight were kept; absent when all were. */
  compact?: number;
}
/** A recording. Its tensors are mapped from the file and live until `close()`. */
export interface Reference {
  folder: string;
  info: RecordedInfo;
  tensors: Map<string, Tensor>;
  /** A tensor of the recording. @throws when it is missing */
  get(key: string): Tensor;
  /** Everything recorded under a prefix, by the rest of its name. */
  under(prefix: string): Map<string, Tensor>;
  /** The weights of the release checkpoint that begin with a prefix, without it. */
  checkpoint(prefix: string): Map<string, Tensor>;
  /** `config.json` of the release checkpoint. */
  config: Record<string, Record<string, unknown>>;
  /**
   * Constructor arguments of a variant of the network, and its weights by the names of its state dict; null when not
   * recorded.
   */
  variant(name: string): {
    config: unknown;
    weights(names: Iterable<string>): Map<string, Tensor>;
  } | null;
  close(): void;
}
/** @param device where the tensors of the recording are to lie; on the CPU they stay mapped from the file */
export declare function loadReference(folder?: string, device?: string): Reference;
/**
 * max |actual − expected| / max |expected|: the largest error of a tensor as a part of its largest value. Elementwise
 * relative error would divide by values that cancellation made nearly zero; a norm would hide one wrong value among
 * many. Another shape, or a NaN in one of the two, is an infinite error.
 */
export declare function relativeError(actual: Tensor, expected: Tensor): number;
/**
 * The values of a tensor that a recording kept of it: all, or of a large one in a compact recording every k-th.
 * @returns the shape of `kept`
 */
export declare function thinned(full: Tensor, kept: Tensor, { compact }: Pick<RecordedInfo, "compact">): Tensor;
//# sourceMappingURL=fixture.d.ts.map
