/**
 * What is asked for and who looks: GenEval's own prompts with its detector, and whatever else is registered with
 * prompts and a detector of its own.
 */
import { checkObject } from "../../../arguments.js";
import { invalid } from "../../../errors.js";
import { message } from "../../../message.js";
import type { ComputeDType } from "../../../pipeline/loading/device.js";
import { isRepositoryName } from "../../../pipeline/loading/hub.js";
import { awake, hashWeights, isWeightsName } from "../../../pipeline/loading/identity.js";
import type { Detector } from "../detection.js";
import { DETECTOR_ADDRESS } from "../detector/address.js";
import { CLASS_NAMES, type PromptSet, publishedPrompts } from "../prompts.js";

/** How a detector is loaded. */
export interface DetectorOptions {
  /** File, folder or repository of its weights. */
  source: string | undefined;
  /** Where it runs. */
  device: string;
  /** Of its backbone. */
  dtype: ComputeDType;
  /** Rounds resized pictures to whole grey levels, as the first GenEval did. */
  resizeU8: boolean;
  /** Cache of downloads. */
  cacheDir?: string | undefined;
  /** Stops loading. */
  signal?: AbortSignal | undefined;
}

/** Prompts and who judges their pictures. */
export interface Suite {
  /** By which it is chosen. */
  name: string;
  /** A line for people. */
  summary: string;
  /** The prompts. */
  prompts(): PromptSet;
  /** Pictures of each prompt where nobody says how many. */
  samples: number;
  /** Whether published scores can stand beside one's own. */
  compare: boolean;
  /** Whether the detector's weights have to be named. */
  needsWeights: boolean;
  /**
   * Names that the detector can find, told without loading it: what else is asked for is said before anything is drawn.
   * @param source file or folder of its weights
   */
  classes?(source: string | undefined): readonly string[];
  /** Loads the detector; its classes have the names that stand in the prompts. */
  loadDetector(options: DetectorOptions): Promise<Detector>;
}

const geneval: Suite = {
  name: "geneval",
  summary: "GenEval's 553 prompts, with Mask2Former as detector",
  prompts: publishedPrompts,
  samples: 4,
  compare: true,
  needsWeights: true,
  classes: () => CLASS_NAMES,
  loadDetector: async ({ source, ...options }) => (await import("../detector/index.js")).loadDetector(source!, options),
};

const suites = new Map<string, Suite>([[geneval.name, geneval]]);

/**
 * Makes prompts and their detector known.
 * @throws InvalidInputError when the name is taken
 */
export function registerSuite(suite: Suite): void {
  const parts = ["name", "summary", "prompts", "samples", "compare", "needsWeights", "loadDetector"] as const;
  checkObject("suite", suite, `{ ${parts.join(", ")} }`, parts);
  if (suites.has(suite.name)) throw invalid("name", "one that no other prompts have", suite.name);
  suites.set(suite.name, suite);
}

/** The prompts of a name. @throws InvalidInputError naming those that there are */
export function suiteOf(name: string): Suite {
  const suite = suites.get(name);
  if (suite === undefined) throw invalid("prompts", `one of ${suiteNames().join(", ")}`, name);
  return suite;
}

/** Names of all that is registered. */
export function suiteNames(): string[] {
  return [...suites.keys()];
}

/**
 * What tells weights from others: the hash of a file, or of all weights of a folder; of a repository its name.
 *
 * @param parameter the option that names them
 * @throws InvalidInputError for what is nothing of this: it would be looked for after hours of drawing
 */
export async function weightsKey(source: string, parameter: "detector" | "clip"): Promise<string> {
  const hash = await awake(hashWeights(source));
  if (hash !== null) return hash;
  if (isRepositoryName(source) && !isWeightsName(source)) return source;
  const where = parameter === "detector" ? `; OpenMMLab has GenEval's detector at ${DETECTOR_ADDRESS}` : "";
  throw invalid(
    parameter,
    "a file, a folder or a repository owner/name",
    message`${JSON.stringify(source)} (neither)${where}`,
  );
}
