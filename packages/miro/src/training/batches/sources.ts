/**
 * What training batches can come from: sources by the `kind` of a recipe's `data`.
 *
 * A source says what its section of a recipe holds, what of it does not fit the rest, how its batches are opened, and
 * what a dry run looks at. Everything else (the order of steps, processes that share a batch, resuming) is the same for
 * all.
 */
import { z } from "zod";
import { checkName } from "../../arguments.js";
import type { LatentNormalization } from "../../autoencoder/normalization.js";
import type { BatchSpan } from "../../data/shards/order.js";
import { invalid } from "../../errors.js";
import { addModule } from "../../extension-modules.js";
import type { RinConfig } from "../../networks/config.js";
import { setting } from "../../options.js";
import type { SdxlLatents } from "../../pipeline/loading/release-config.js";
import type { Rows } from "./batch-slices.js";
import type { BatchSource } from "./batches.js";
import type { DataCheck } from "./finding.js";
import type { RecipeFault } from "./recipe-fault.js";

/** A checked `data` section: its kind, and what the schema of its source gives. */
export interface SourceData {
  kind: string;
  [setting: string]: unknown;
}

/** What of the rest of a recipe matters to its data. */
export interface SourceRecipe {
  network: RinConfig;
  loss: { condDropRate: number; textDropRate: number };
  /** Samples of one optimizer step, all devices together. */
  batchSize: number;
}

/** What a process needs of the frozen models besides the batches. */
export interface FrozenNeeds {
  /**
   * Text states of the empty prompt. `always`: steps or sheets use them; `release`: the release alone does, and
   * training goes on without them; `never`: another process sees to it.
   */
  emptyPrompt: "always" | "release" | "never";
  /** The text encoder itself, as sheets of the recipe's prompts do. */
  textEncoder: boolean;
}

/** What batches are opened with. */
export interface SourceContext {
  seed: number;
  batchSize: number;
  /**
   * The sizes that batches have had, where the size has changed since the run began; by default `batchSize` from step 0
   * on. Of samples that come one after another, a size goes on behind the last of the one before.
   */
  spans?: readonly BatchSpan[] | undefined;
  /** The rows of each batch that this process reads; by default all. */
  rows?: Rows | undefined;
  /** Where the training is. Batches may lie there, or on the CPU, from where all of one are sent together. */
  device: string;
  network: RinConfig;
  /** Standard deviation that the network expects of normalised latents. */
  sigmaData: number;
  /** False: another process makes the files that are missing, and this one waits for them. */
  makesFiles: boolean;
  /** What of the frozen models this process needs; by default all of it. */
  needs?: FrozenNeeds | undefined;
  signal?: AbortSignal | undefined;
  /** Told what a person should know. */
  onMessage?: ((message: string) => void) | undefined;
  /** Told how far it is, in shards or in what `unit` says. */
  onProgress?: ((what: string, done: number, all: number, unit?: string) => void) | undefined;
}

/** Batches of samples that are not trained with, the same ones whenever they are asked for. */
export interface ValidationBatches {
  source: BatchSource;
  /** Whole batches that there are. */
  batches: number;
}

/** What is known of the data before they are opened. */
export interface SourceFacts {
  /** Tokens of the longest text. */
  textTokens: number;
  /** Whether text states are stored in half precision. */
  halfPrecisionTexts?: boolean;
  /** Folders, or repositories, of the frozen models, for sample sheets and the release. */
  autoencoder?: string | undefined;
  textEncoder?: string | undefined;
  /** Which latents of the SDXL autoencoder the data hold; absent where they are those of another. */
  sdxlLatents?: SdxlLatents;
  /**
   * What a release states of the data, and texts that lie beside its weights by their names; absent where there can be
   * none, because the empty prompt is not known.
   */
  release?: { imgResolution: number; files?: () => Promise<Readonly<Record<string, string>>> };
}

/** What a source's `check` found. */
export interface SourceReport {
  /** Samples that pass the filters, where their number is known. */
  samples: number | null;
  checks: DataCheck[];
}

/** A kind of data. @typeParam D what its schema gives */
export interface SourceSpec<D = SourceData> {
  /** The `data` section without its `kind`, in camelCase. */
  readonly schema: z.ZodObject;
  /**
   * The module that registers the source, as `import.meta.url`: further processes of a training load it too. It is a
   * file of its own, not the program. Those of this package know their own.
   */
  readonly module?: string | URL;
  /** It needs files that only a clone has: a copy of what is installed cannot open it. */
  readonly needsClone?: boolean;
  /** What in the section does not fit the rest of the recipe. */
  faults?(data: D, recipe: SourceRecipe): RecipeFault[];
  /** By default texts have as many tokens as the network reads, and nothing else is known. */
  facts?(data: D, network: RinConfig): SourceFacts;
  /** Opens the batches. The caller closes them. */
  open(data: D, context: SourceContext): Promise<BatchSource>;
  /**
   * Opens the samples in `root` for validation, with the normalization of the training's latents. Absent where there is
   * no such thing.
   */
  openValidation?(
    data: D,
    root: string | string[],
    context: SourceContext & { normalization: LatentNormalization },
  ): Promise<ValidationBatches>;
  /**
   * Whether the data are there; computes nothing.
   * @param validation the samples that the recipe validates with, and how large their batches are
   * @param readAll look at all of the data, so that the number of samples is known
   */
  check(
    data: D,
    recipe: SourceRecipe,
    validation?: { root: string | string[]; batchSize: number },
    readAll?: boolean,
  ): SourceReport | Promise<SourceReport>;
}

const specs = new Map<string, SourceSpec>();

/**
 * Makes a kind of data known: recipes may then have `data: { kind, … }`.
 * @throws InvalidInputError when the kind is taken
 */
export function registerSource<D>(kind: string, spec: SourceSpec<D>): void {
  checkName("kind", kind, "the kind of a source");
  if (!/^[a-z][a-z0-9-]*$/.test(kind)) throw invalid("kind", "lower-case letters, digits and -", kind);
  if (specs.has(kind)) throw invalid("kind", "one that no source has", kind);
  if (typeof spec?.schema?.shape !== "object" || typeof spec.open !== "function" || typeof spec.check !== "function")
    throw invalid(kind, "a source { schema: z.strictObject({ … }), open, check }", spec);
  addModule(`${kind}.module`, spec.module);
  specs.set(kind, spec as unknown as SourceSpec);
}

/** The source of a checked `data` section. */
export function sourceOf({ kind }: SourceData): SourceSpec {
  const spec = specs.get(kind);
  if (spec === undefined) throw invalid("data.kind", `one of ${[...specs.keys()].join(", ")}`, kind);
  return spec;
}

/** What is known of data before they are opened. */
export function sourceFacts(data: SourceData, network: RinConfig): SourceFacts {
  return sourceOf(data).facts?.(data, network) ?? { textTokens: network.numCondTokens };
}

/** The schema of a recipe's `data`: one of the sections that are known now. */
export function sourceDataSchema(): z.ZodType<SourceData> {
  const sections = [...specs].map(([kind, { schema }]) =>
    z.strictObject({ kind: setting(z.literal(kind), "what this section is"), ...schema.shape }),
  );
  const [first, ...others] = sections;
  const kinds = `expected one of ${[...specs.keys()].join(", ")}, or a kind whose source a module registers`;
  const error = ({ code }: { code: string }) => (code === "invalid_union" ? kinds : undefined);
  return z.discriminatedUnion("kind", [first!, ...others], { error }) as unknown as z.ZodType<SourceData>;
}

/** How many kinds there are: a schema that was built with fewer is out of date. */
export function sourceCount(): number {
  return specs.size;
}
