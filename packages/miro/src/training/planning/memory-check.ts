/** Whether a training fits into the memory of its device. */
import { cuda } from "@miro-t2i/torch";
import { availableMemory } from "@miro-t2i/torch/limits";
import { formatMemory } from "../../files/sizes.js";
import { cudaIndex } from "../../pipeline/loading/device.js";
import type { DataCheck } from "../batches/finding.js";

/**
 * @param bytes what is needed by estimate, and what is needed at the very least; the same where there is no estimate
 * @param remedy what needs less
 */
export function checkMemory(device: string, bytes: { needed: number; least: number }, remedy: string): DataCheck {
  const gpu = cudaIndex(device);
  const there = gpu === null ? availableMemory() : cuda.devices()[gpu]!.memoryBytes;
  const how = bytes.needed === bytes.least ? "at least" : "about";
  const figures = `${how} ${formatMemory(bytes.needed)} of ${formatMemory(there)}${gpu === null ? " that are free" : " of the GPU"}`;
  if (bytes.needed <= there) return { status: "ok", subject: "memory", finding: figures };
  return { status: bytes.least > there ? "missing" : "note", subject: "memory", finding: figures, remedy };
}
