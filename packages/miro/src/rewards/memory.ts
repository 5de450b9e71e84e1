/**
 * Whether scorers fit in memory, asked before anything is loaded: what their weights take in the dtype that is asked
 * for, against what the system and the control group of the process (a container, a batch job) leave free.
 */
import { availableMemory } from "@miro-t2i/torch/limits";
import { MiroError } from "../errors.js";
import { isFolder } from "../files/make-folder.js";
import { formatSize } from "../files/sizes.js";
import { openTensors } from "../files/tensor-files.js";
import { message, option } from "../message.js";
import { resolveDType } from "../pipeline/loading/device.js";
import type { LoadScorerOptions, ScorerSpec } from "./scorer.js";

const BYTES = { float32: 4, bfloat16: 2, float16: 2 } as const;

/** Parameters of scorers by part; a part that several of them have counts once. */
function scorerParameters(
  specs: readonly ScorerSpec[],
  weights: Readonly<Record<string, string>> = {},
): Map<string, number> {
  const parts = new Map<string, number>();
  for (const { key, memory, repositories = [] } of specs) {
    const folders = repositories.flatMap(({ givenAs = key, weights: names }) => {
      const folder = weights[givenAs];
      return folder !== undefined && isFolder(folder) ? [{ folder, names }] : [];
    });
    if (folders.length === 0) for (const [part, size] of Object.entries(memory?.parts ?? {})) parts.set(part, size);
    for (const { folder, names } of folders) parts.set(folder, parametersIn(folder, names));
  }
  return parts;
}

/** What the headers of a folder's files tell; nothing where they cannot be read, which loading says better. */
function parametersIn(folder: string, names: readonly string[]): number {
  try {
    using file = openTensors(folder, names);
    return file.keys().reduce((sum, key) => sum + file.info(key).shape.reduce((a, b) => a * b, 1), 0);
  } catch {
    return 0;
  }
}

/** What scorers take in memory when they are loaded together, in bytes. */
export function scorerBytes(
  specs: readonly ScorerSpec[],
  { dtype = "auto", device = "cpu", precision, weights }: LoadScorerOptions,
): number {
  const parts = [...scorerParameters(specs, weights).values()];
  const bytes = parts.map((parameters) => {
    const resolved = precision === "upstream" ? "float32" : resolveDType(dtype, device, parameters);
    return parameters * BYTES[resolved];
  });
  const working = Math.max(0, ...specs.map(({ memory }) => memory?.workingBytes ?? 0));
  const large = parts.reduce((sum, parameters) => sum + parameters, 0) > SMALL;
  return bytes.reduce((sum, size) => sum + size, 0) + (large ? working : 0);
}

/** Fewer parameters are no published model, and what a batch of theirs takes is not known. */
const SMALL = 64e6;

/**
 * Refuses scorers that do not fit together in the memory of this machine. Those that read their layers from the disk
 * where memory is short always do, and on a GPU nothing is checked.
 *
 * @throws MiroError with what is needed, what there is, and what to do
 */
export function checkMemory(
  specs: readonly ScorerSpec[],
  options: LoadScorerOptions,
  available = availableMemory(),
): void {
  const kept = specs.filter(({ memory }) => memory && !memory.streams);
  if (kept.length === 0 || (options.device ?? "cpu") !== "cpu") return;
  const needed = scorerBytes(kept, options);
  if (needed <= available) return;
  const half = scorerBytes(kept, { ...options, dtype: "bfloat16" });
  const remedies = [
    ...(half < needed && half <= available ? [message`take ${option("dtype", "bfloat16")} (${formatSize(half)})`] : []),
    ...(kept.length > 1 ? [message`use fewer scorers at a time`] : []),
  ];
  const ways = remedies.length > 0 ? remedies : [message`free some, or use a machine with more`];
  const end = ways.slice(1).reduce((text, way) => message`${text}, or ${way}`, ways[0]!);
  throw new MiroError(
    message`${kept.map(({ key }) => key).join(", ")}: ${formatSize(needed)} of memory are needed, ${formatSize(available)} are free; ${end}`,
  );
}
