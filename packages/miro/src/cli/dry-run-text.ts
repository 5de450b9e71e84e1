/** A dry run's report for people. */
import { MiroError } from "../errors.js";
import { formatMemory as bytes } from "../files/sizes.js";
import { Message } from "../message.js";
import { counted, shortNumber, wholeNumber as whole } from "../numbers.js";
import type { DataCheck } from "../training/batches/finding.js";
import type { DryRunReport } from "../training/planning/dry-run.js";
import type { TaskDryRunReport } from "../training/planning/dry-run-task.js";
import { withFlags } from "./flag-names.js";

const MARKS = { ok: "ok     ", note: "note   ", missing: "MISSING" };

/** The report as lines of text. */
export function dryRunText({ name, size, batch, flops, memory, data, start, epochs, release }: DryRunReport): string {
  const { network, preconditioning, groups } = size;
  const device = batch.deviceBatchSize * batch.accumulateGradBatches;
  const lines = [
    name,
    `  parameters   ${whole(network.trainable)} trainable in ${counted(network.tensors, "tensor")}, ${whole(network.buffers)} constants; preconditioning ${whole(preconditioning.trainable)}`,
    `               ${whole(groups.decayed)} decayed, ${whole(groups.plain)} not`,
    `  batch        ${whole(batch.batchSize)} = micro-batch ${whole(batch.deviceBatchSize)} x ${counted(batch.accumulateGradBatches, "accumulation step")} x ${counted(batch.worldSize, "device")}`,
    `  arithmetic   ${si(flops.perSample)}FLOP a sample of ${counted(flops.textTokens, "text token")}, ${si(flops.perStep)}FLOP a step (${si(flops.perDeviceStep)}FLOP a device), ${si(flops.total)}FLOP in all`,
    `  memory       ${bytes(memory.total)} on each device, for ${whole(batch.deviceBatchSize)} of its ${counted(device, "sample")} at once:`,
    `               weights ${bytes(memory.weights)}, gradients ${bytes(memory.gradients)}, optimizer ${bytes(memory.optimizer)}, EMA weights ${bytes(memory.averages)},`,
    `               half-precision weights ${bytes(memory.castWeights)}, batch ${bytes(memory.batch)}, activations about ${bytes(memory.activations)}`,
    `  release      ${release ? "written at the end" : "none: data.uncond_embedding or data.text_encoder would be needed"}`,
    "  data",
    ...checkLines(data.checks),
  ];
  const passes = epochs === null ? "" : `, ${shortNumber(epochs)} passes over them`;
  if (data.samples !== null) lines.push(`    ${counted(data.samples, "sample")}${passes}`);
  return `${[...lines, "  start", ...checkLines(start)].join("\n")}\n`;
}

/** The report of a recipe that trains a part. */
export function taskDryRunText({ name, kind, size, batchSize, maxSteps, start }: TaskDryRunReport): string {
  const parameters = size && `${whole(size.trainable)} trainable in ${counted(size.tensors, "tensor")}`;
  const constants = size && size.buffers > 0 ? `, ${whole(size.buffers)} that stay as they are` : "";
  const lines = [
    `${name} (${kind})`,
    ...(size === null ? [] : [`  parameters   ${parameters}${constants}`]),
    `  batch        ${whole(batchSize)}, in ${counted(maxSteps, "step")}: ${counted(batchSize * maxSteps, "sample")}`,
    "  start",
    ...checkLines(start),
  ];
  return `${lines.join("\n")}\n`;
}

/** What was looked at, one line each, with what puts it right below. */
export function checkLines(checks: readonly DataCheck[]): string[] {
  return checks.flatMap(({ status, subject, finding, remedy }) => [
    `    ${MARKS[status]}  ${subject}: ${finding}`,
    ...(remedy === undefined ? [] : [`             ${remedy instanceof Message ? withFlags(remedy, {}) : remedy}`]),
  ]);
}

/** Ends with an error where something would stop a run. @param what as in "the run" */
export function refuseBlocked(what: string, found: readonly DataCheck[]): void {
  if (found.length === 0) return;
  const subjects = [...new Set(found.map(({ subject }) => subject))];
  throw new MiroError(
    `${what} cannot start: ${counted(found.length, "thing is", "things are")} missing: ${subjects.join(", ")}`,
  );
}

/** With a decimal prefix: `750 T`. */
function si(n: number): string {
  const power = Math.max(0, Math.min(8, Math.floor(Math.log10(n) / 3)));
  return `${(n / 1000 ** power).toPrecision(4)} ${["", "k", "M", "G", "T", "P", "E", "Z", "Y"][power]}`;
}
