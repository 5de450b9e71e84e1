/** A dry run's report for people. */
import { Message } from "../message.js";
import type { DryRunReport } from "../training/planning/dry-run.js";
import { withFlags } from "./flag-names.js";

const MARKS = { ok: "ok     ", note: "note   ", missing: "MISSING" };

/** The report as lines of text. */
export function dryRunText({ name, size, batch, flops, memory, data, epochs, release }: DryRunReport): string {
  const { network, preconditioning, groups } = size;
  const device = batch.deviceBatchSize * batch.accumulateGradBatches;
  const lines = [
    name,
    `  parameters   ${whole(network.trainable)} trainable in ${network.tensors} tensors, ${whole(network.buffers)} constants; preconditioning ${whole(preconditioning.trainable)}`,
    `               ${whole(groups.decayed)} decayed, ${whole(groups.plain)} not`,
    `  batch        ${batch.batchSize} = micro-batch ${batch.deviceBatchSize} x ${batch.accumulateGradBatches} accumulation steps x ${batch.worldSize} devices`,
    `  arithmetic   ${si(flops.perSample)}FLOP a sample of ${flops.textTokens} text tokens, ${si(flops.perStep)}FLOP a step (${si(flops.perDeviceStep)}FLOP a device), ${si(flops.total)}FLOP in all`,
    `  memory       ${gib(memory.total)} on each device, for ${batch.deviceBatchSize} of its ${device} samples at once:`,
    `               weights ${gib(memory.weights)}, gradients ${gib(memory.gradients)}, optimizer ${gib(memory.optimizer)}, EMA weights ${gib(memory.averages)},`,
    `               half-precision weights ${gib(memory.castWeights)}, batch ${gib(memory.batch)}, activations about ${gib(memory.activations)}`,
    `  release      ${release ? "written at the end" : "none: data.uncond_embedding or data.text_encoder would be needed"}`,
    "  data",
    ...data.checks.flatMap(({ status, subject, finding, remedy }) => [
      `    ${MARKS[status]}  ${subject}: ${finding}`,
      ...(remedy === undefined ? [] : [`             ${remedy instanceof Message ? withFlags(remedy, {}) : remedy}`]),
    ]),
  ];
  if (data.samples !== null)
    lines.push(`    ${whole(data.samples)} samples, ${epochs!.toPrecision(3)} passes over them`);
  return `${lines.join("\n")}\n`;
}

function whole(n: number): string {
  return n.toLocaleString("en-US");
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

/** With a decimal prefix: `750 T`. */
function si(n: number): string {
  const power = Math.max(0, Math.min(8, Math.floor(Math.log10(n) / 3)));
  return `${(n / 1000 ** power).toPrecision(4)} ${["", "k", "M", "G", "T", "P", "E", "Z", "Y"][power]}`;
}
