/**
 * `miro-t2i/networks`: what a pipeline is made of. The RIN and its conditioning, text encoder and autoencoders, the
 * schedule, guidance, samplers and loss of rectified flow, and checkpoints as files.
 */
import "../unbundled.js";

export * from "../autoencoder/index.js";
export type { LatentNormalization } from "../autoencoder/normalization.js";
export { combine, type Guidance, guidanceWeight } from "../flow/guidance.js";
export {
  type DrawPurpose,
  FlowMatchingLoss,
  type FlowMatchingLossOptions,
  type LossBatch,
  type LossCallOptions,
  type LossTerms,
} from "../flow/loss.js";
export {
  evaluationsOf,
  registerSampler,
  type SamplerOption,
  type SamplerOptionValue,
  samplerNames,
  stepsWithin,
} from "../flow/samplers/index.js";
export {
  type Evaluation,
  type Method,
  type SampleOptions,
  type Step,
  type StepReport,
  sample,
  type VelocityModel,
  type VelocityOutput,
} from "../flow/sampling.js";
export { dynamicShift, LinearSchedule, type ScheduleOptions } from "../flow/schedule.js";
export {
  type FlowPrecondConfig,
  type FlowPrecondConfigInput,
  parsePrecondConfig,
  parseRinConfig,
  precondConfigToJson,
  REWARD_KEYS,
  type RinConfig,
  type RinConfigInput,
  rinConfigToJson,
} from "../networks/config.js";
export { type ForwardWork, forwardFlops, forwardWork, trainingFlops } from "../networks/flops.js";
export { FlowPrecond, type Network } from "../networks/precond.js";
export {
  type Conditioning,
  type ConditioningInput,
  Rin,
  type RinInput,
  type RinOptions,
  type RinOutput,
  type UpstreamBatch,
} from "../networks/rin.js";
export { type Checkpoint, type LoadCheckpointOptions, loadCheckpoint } from "../pipeline/loading/checkpoint.js";
export { type ComputeDType, resolveDType } from "../pipeline/loading/device.js";
export { type ReleaseConfig, readReleaseConfig } from "../pipeline/loading/release-config.js";
export { type SaveCheckpointOptions, saveCheckpoint } from "../pipeline/loading/save-checkpoint.js";
export { T5Encoder } from "../text/t5.js";
export { type EncodeBatchOptions, type EncodedBatch, Tokenizer } from "../text/tokenizer.js";
