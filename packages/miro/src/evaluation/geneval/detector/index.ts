/** GenEval's detector: Mask2Former with Swin-S, from pictures to detections. */
export { planSampling, sample } from "./deformable-attention.js";
export { type Instance, instances } from "./instances.js";
export { type LoadDetectorOptions, loadDetector } from "./load-detector.js";
export { Mask2Former, type Stages } from "./mask2former.js";
export { type DetectorInput, detectorInput, resizedSize, SCALE, type Scale } from "./pixels.js";
export { type Mask2FormerShape, readShape, SWIN_S } from "./shape.js";
export { asCells, asPicture, type CellMap, PatchMerging } from "./swin.js";
export { type DetectorLayout, fromUnfold, layoutOf, loadMask2Former, storedKeys } from "./weights.js";
