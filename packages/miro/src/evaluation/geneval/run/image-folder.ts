/**
 * The folder of an evaluation: pictures of each prompt, as GenEval's own programs read and write them.
 *
 *   hparams.json                 how the pictures were made
 *   00000/metadata.jsonl         the prompt's record, without an end of line
 *   00000/samples/0000.png       its pictures
 *
 * Names are read whole and in numerical order; `0.png` is `0000.png`. What does not belong there is named and left.
 */
import { type Dirent, readdirSync } from "node:fs";
import { join } from "node:path";
import { MiroError, systemReason } from "../../../errors.js";
import { pythonJson } from "../../../files/python-json.js";
import { readTextFile } from "../../../files/text-file.js";
import { counted } from "../../../numbers.js";
import type { PromptMetadata } from "../metadata.js";
import { type PromptSet, parseMetadata } from "../prompts.js";

/** Something that was found and that the evaluation does without. */
export interface Problem {
  kind: "foreign file" | "missing prompt" | "surplus prompt" | "wrong metadata" | "missing picture" | "damaged picture";
  /** Relative to the folder. */
  path: string;
  /** What is wrong, in words. */
  reason: string;
}

/** One prompt of a folder. */
export interface PromptFolder {
  index: number;
  metadata: PromptMetadata;
  /** In numerical order. */
  samples: SampleFile[];
}

/** One picture of a prompt. */
export interface SampleFile {
  index: number;
  /** Relative to the folder of the evaluation. */
  path: string;
}

/** What {@link readImageFolder} finds. */
export interface ImageFolder {
  /** In numerical order. */
  prompts: PromptFolder[];
  problems: Problem[];
}

/** Sub-folders and files that this program puts beside the pictures. */
const OWN =
  /^(?:detections|colours|hparams\.json|results\.jsonl|summary\.(?:json|md)|failures\.png|rewards\S*|grid\.png)$/;

/** `00012` */
export function folderName(prompt: number): string {
  return String(prompt).padStart(5, "0");
}

/** `00012/samples/0003.png` */
export function samplePath(prompt: number, sample: number): string {
  return join(folderName(prompt), "samples", `${String(sample).padStart(4, "0")}.png`);
}

/**
 * Finds the prompts and pictures of a folder.
 *
 * @param expected the prompts that should be there; what is missing or surplus is a problem
 * @throws MiroError when the folder itself cannot be read
 */
export function readImageFolder(folder: string, expected?: PromptSet): ImageFolder {
  const problems: Problem[] = [];
  const prompts = new Map<number, PromptFolder>();
  const found = (kind: Problem["kind"], path: string, reason: string) => problems.push({ kind, path, reason });
  for (const entry of entriesOf(folder)) {
    const { name } = entry;
    if (!entry.isDirectory() || !/^\d+$/.test(name)) {
      if (!OWN.test(name) && !name.startsWith(".")) found("foreign file", name, "is no folder of a prompt");
      continue;
    }
    const index = Number(name);
    const path = join(name, "metadata.jsonl");
    let metadata: PromptMetadata;
    try {
      metadata = parseMetadata(readTextFile(join(folder, path)), path);
    } catch (error) {
      if (!(error instanceof MiroError)) throw error;
      found("wrong metadata", path, reasonOf(error, path, join(folder, path)));
      continue;
    }
    const wanted = expected?.prompts[index];
    if (prompts.has(index)) found("surplus prompt", name, `is prompt ${index} once more`);
    else if (expected && wanted === undefined)
      found("surplus prompt", name, `is beyond the ${counted(expected.prompts.length, "prompt")} of ${expected.name}`);
    else if (wanted !== undefined && pythonJson(wanted) !== pythonJson(metadata))
      found("wrong metadata", path, `is another record than that of prompt ${index} in ${expected!.name}`);
    else prompts.set(index, { index, metadata, samples: samplesOf(folder, name, found) });
  }
  for (const index of expected?.prompts.keys() ?? []) {
    const name = folderName(index);
    const isKnown = prompts.has(index) || problems.some(({ path }) => Number.parseInt(path, 10) === index);
    if (!isKnown) found("missing prompt", name, "has no folder");
  }
  return { prompts: [...prompts.values()].sort((a, b) => a.index - b.index), problems };
}

function samplesOf(
  folder: string,
  prompt: string,
  found: (kind: Problem["kind"], path: string, reason: string) => void,
): SampleFile[] {
  const inside = join(prompt, "samples");
  let entries: Dirent[];
  try {
    entries = entriesOf(join(folder, inside));
  } catch (error) {
    found("missing picture", inside, reasonOf(error as Error, inside, join(folder, inside)));
    return [];
  }
  const samples = new Map<number, SampleFile>();
  for (const entry of entries) {
    const path = join(inside, entry.name);
    const number = /^(\d+)\.(?:png|jpe?g|webp)$/i.exec(entry.name)?.[1];
    if (number === undefined || entry.isDirectory()) {
      if (!entry.name.startsWith(".")) found("foreign file", path, "is no numbered picture");
    } else if (samples.has(Number(number))) found("foreign file", path, `is picture ${Number(number)} once more`);
    else samples.set(Number(number), { index: Number(number), path });
  }
  if (samples.size === 0) found("missing picture", inside, "holds no picture");
  return [...samples.values()].sort((a, b) => a.index - b.index);
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    throw new MiroError(`${folder}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

/** The message of an error without the path that it is about. */
function reasonOf({ message }: Error, ...paths: readonly string[]): string {
  const path = paths.find((path) => message.startsWith(path));
  return path === undefined ? message : message.slice(path.length).replace(/^[:,] /, "");
}

/** Samples that prompts have fewer of than most do: numbers from 0 that are absent. */
export function missingSamples(prompts: readonly PromptFolder[], samples: number): Problem[] {
  return prompts.flatMap(({ index, samples: present }) =>
    present.length === 0
      ? []
      : Array.from({ length: samples }, (_, i) => i)
          .filter((i) => !present.some((sample) => sample.index === i))
          .map((i) => ({ kind: "missing picture" as const, path: samplePath(index, i), reason: "is not there" })),
  );
}

/** Problems by kind, with the first of each. */
export function problemCounts(problems: readonly Problem[]): Record<string, { count: number; first: string[] }> {
  const counts: Record<string, { count: number; first: string[] }> = {};
  for (const { kind, path, reason } of problems) {
    counts[kind] ??= { count: 0, first: [] };
    const one = counts[kind];
    one.count++;
    if (one.first.length < 5) one.first.push(`${path}: ${reason}`);
  }
  return counts;
}
