/** What is evaluated by GenEval and how, and what came of it. */
import type { PromptSet } from "../prompts.js";
import type { Rules } from "../rules.js";
import type { Summary } from "../summary.js";
import type { GenerateRun } from "./generate.js";
import type { Problem } from "./image-folder.js";
import type { Resources } from "./resources.js";

/** Steps of an evaluation. */
export const STAGES = ["generate", "detect", "judge", "summary"] as const;
export type Stage = (typeof STAGES)[number];

/** What progress is reported of, in this order. */
export const REPORTED = ["drawing", "finding objects", "classifying colours"] as const;
export type Reported = (typeof REPORTED)[number];

/** What is evaluated and how. */
export interface EvaluationRun {
  /** Folder of the pictures. */
  images: string;
  /** Folder of everything else; mostly the same. */
  output: string;
  /** File of the verdicts. Default: `results.jsonl` in `output`. */
  outfile?: string | undefined;
  /** The prompts; where they are not known, those of the folder. */
  set?: PromptSet | undefined;
  /** Prompts that are evaluated, by their place. Default: all. */
  includes?: ((index: number, tag: string) => boolean) | undefined;
  /** What is drawn; absent where pictures are only judged. */
  draw?: Omit<GenerateRun, "folder" | "set" | "indices" | "signal" | "onPicture" | "onMessage"> | undefined;
  /** One step alone. */
  only?: Stage | undefined;
  rules: Rules;
  /** Which detector detections are of. */
  detectorKey: string;
  /** Which classifier colours are of. */
  colourKey: string;
  /** Pictures on the sheet of failures. */
  failures: number;
  /** What was measured, in the table. */
  name: string;
  /** Whether published scores stand beside one's own. */
  compare: boolean;
  resources: Resources;
  signal?: AbortSignal | undefined;
  onProgress?: ((what: Reported, done: number, total: number) => void) | undefined;
  onMessage?: ((message: string) => void) | undefined;
}

/** What an evaluation came to. */
export interface EvaluationReport {
  /** Pictures that were drawn by this call. */
  drawn: number;
  /** Pictures that were looked at by this call. */
  detected: number;
  /** Who found the objects, and who trained that. */
  detector?: string | undefined;
  problems: Problem[];
  /** Null where `only` ends before. */
  summary: Summary | null;
  /** Files of the last step, by what they are. */
  files: Partial<Record<"results" | "summary" | "table" | "failures", string>>;
}
