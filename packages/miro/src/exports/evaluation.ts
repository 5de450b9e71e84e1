/**
 * `miro-t2i/evaluation`: GenEval's detector, rules and colours; rewards of folders of pictures; sweeps, tables of
 * pictures in which one thing changes along each side.
 */
import "../unbundled.js";

export { bootstrapIntervals, type Interval } from "../evaluation/bootstrap.js";
export { type ColourAnswer, ColourClassifier, type ColourOptions, cutOut } from "../evaluation/geneval/colours.js";
export type { Box, Detection, Detector, Mask } from "../evaluation/geneval/detection.js";
export {
  asPicture,
  detectorInput,
  fromUnfold,
  type Instance,
  instances,
  type LoadDetectorOptions,
  layoutOf,
  loadDetector,
  loadMask2Former,
  Mask2Former,
  type Mask2FormerShape,
  PatchMerging,
  readShape,
  type Scale,
  SWIN_S,
} from "../evaluation/geneval/detector/index.js";
export { judgeFile, type NamedVerdict } from "../evaluation/geneval/judge-file.js";
export { COLOURS, type PromptMetadata } from "../evaluation/geneval/metadata.js";
export { type PromptSet, publishedMetadata, publishedPrompts } from "../evaluation/geneval/prompts.js";
export { type DetectorOptions, registerSuite, type Suite } from "../evaluation/geneval/run/suites.js";
export { type Result, readResults, type Summary, summarise } from "../evaluation/geneval/summary.js";
export {
  type FolderRewards,
  type RewardSummary,
  type ScoreFolderOptions,
  scoreFolder,
} from "../evaluation/rewards/score-folder.js";
export { type RewardFigures, type RewardRow, rewardFigures } from "../evaluation/rewards/summary.js";
export { measureSpeed, type Seconds, type Speed, type SpeedOptions } from "../evaluation/speed.js";
export { type Axis, parseAxis } from "../evaluation/sweep/axis.js";
export { sweepSheet, sweepToJson } from "../evaluation/sweep/report.js";
export { runSweep, type SweepOptions, type SweepResult } from "../evaluation/sweep/run.js";
export { type LabelledSheetOptions, labelledSheet, type SheetCell } from "../pictures/labelled-sheet.js";
