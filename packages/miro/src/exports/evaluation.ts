/**
 * `miro-t2i/evaluation`: sweeps, tables of pictures in which one thing changes along each side.
 */
export { type Axis, parseAxis } from "../evaluation/sweep/axis.js";
export { sweepSheet, sweepToJson } from "../evaluation/sweep/report.js";
export { runSweep, type SweepOptions, type SweepResult } from "../evaluation/sweep/run.js";
export { type LabelledSheetOptions, labelledSheet, type SheetCell } from "../pictures/labelled-sheet.js";
