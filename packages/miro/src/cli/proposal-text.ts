/** What is proposed for a training, for people. */
import { processors } from "@miro-t2i/torch/limits";
import { formatMemory } from "../files/sizes.js";
import { counted, shortNumber, wholeNumber } from "../numbers.js";
import { blocking } from "../training/planning/dry-run.js";
import type { TrainingProposal } from "../training/planning/propose.js";
import { checkLines } from "./dry-run-text.js";

/** The proposal as lines of text. @param command that trains so */
export function proposalText(proposal: TrainingProposal, command: string): string {
  const { report, steps, device, freeMemory, totalSeconds } = proposal;
  const { batch, data, epochs, memory } = report;
  const parts = batch.deviceBatchSize * batch.worldSize < batch.batchSize ? `, ${batch.deviceBatchSize} at once` : "";
  const free = freeMemory === null ? "" : `, ${formatMemory(freeMemory)} are free`;
  const lines = [
    `${report.name} on ${device}${device === "cpu" ? ` (${processors()} cores)` : ""}`,
    `  data      ${data.samples === null ? "their number is not known" : counted(data.samples, "sample")}`,
    `  batch     ${batch.batchSize}${parts}`,
    `  steps     ${wholeNumber(steps)}${epochs === null ? "" : `: ${shortNumber(epochs)} passes over the data`}`,
    `  memory    ${formatMemory(memory.total)} on each device${free}`,
    `  time      ${timeText(proposal, totalSeconds)}`,
    ...checkLines(blocking(report)),
    "",
    command,
  ];
  return `${lines.join("\n")}\n`;
}

function timeText({ time }: TrainingProposal, totalSeconds: number | null): string {
  if (time.how === "unknown") return `not known: ${time.reason}`;
  const step = `${Number(time.secondsPerStep.toPrecision(2))} s a step`;
  const why =
    time.how === "measured"
      ? `${step}, measured over ${counted(time.steps, "step")}`
      : `${step}, estimated at ${Number(time.tflops.toPrecision(2))} TFLOP/s on each device`;
  return `about ${duration(totalSeconds!)} (${why}); sheets and scores of samples come on top`;
}

/** `40 s`, `6 min`, `3.5 h`, `12 days`. */
function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return counted(Math.round(seconds / 86_400), "day");
}
