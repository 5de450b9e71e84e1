/**
 * Training batches from enriched shards: latents drawn from the stored mean and deviation, stored text states, rewards
 * as levels.
 *
 * Which samples a step has, which captions, which noise: all of it follows from (seed, step), so a run can start at any
 * step. The text encoder and the autoencoder take no part; where the recipe names them they serve sample sheets and the
 * release.
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { scope, type Tensor, tensor } from "@miro-t2i/torch";
import { defaultNormalization, type LatentNormalization, normalize } from "../../autoencoder/normalization.js";
import { syntheticName } from "../../data/dataset/caption-source.js";
import { latentNoise, sampleLatents } from "../../data/dataset/latents.js";
import type { OpenHooks } from "../../data/dataset/open-shards.js";
import { type PlannedSample, TrainingSet } from "../../data/dataset/training-set.js";
import { textMember, trainingSetOptionsSchema } from "../../data/dataset/training-set-options.js";
import { type RowRequest, ShardLoader } from "../../data/shards/loader.js";
import { stepPosition } from "../../data/shards/order.js";
import { problemText } from "../../data/shards/shard-error.js";
import { InvalidInputError, MiroError } from "../../errors.js";
import { readJson } from "../../files/whole-files.js";
import type { LossBatch } from "../../flow/loss.js";
import type { RinConfig } from "../../networks/config.js";
import { counted, plural } from "../../numbers.js";
import { fetchTextEncoder } from "../../pipeline/loading/sources.js";
import { Permutation } from "../../random/permutation.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import type { BatchSource, DataConstants, FrozenModels } from "./batches.js";
import { encodedEmptyPrompt, storedEmptyPrompt } from "./empty-prompt.js";
import { normalizationOf } from "./latent-statistics.js";
import { pairedScores, rootsOf, type ShardData, scoreColumnsOf, withoutPairs } from "./shard-data.js";
import type { SourceContext } from "./sources.js";

/** What {@link ShardBatches.open} needs. */
export interface ShardBatchesOptions
  extends OpenHooks,
    Pick<SourceContext, "seed" | "batchSize" | "spans" | "rows" | "sigmaData" | "needs"> {
  data: ShardData;
  /** The network's sizes and rewards, which the shards must fit. */
  network: Pick<RinConfig, "numInputChannels" | "dataSize" | "labelDim" | "coherenceKeys">;
  /** Where the constants lie; batches are made on the CPU. */
  device: string;
  /** Latents become x with these statistics, whatever the data say: those of the training data, for validation. */
  normalization?: LatentNormalization;
  /** The setting that says how large batches are, for an error; by default `trainer.batch_size`. */
  batchSizeKey?: string;
}

/** A row on its way through the loader. */
interface Row extends RowRequest {
  epoch: number;
  /** Levels of the scores, in the order of the set; NaN where unknown. */
  rewards: PlannedSample["rewards"];
}

/** Samples that `latent_normalization: data` looks at. */
const NORMALIZATION_SAMPLES = 1024;

export class ShardBatches implements BatchSource {
  readonly #loader: ShardLoader;
  readonly #options: ShardBatchesOptions;

  private constructor(
    options: ShardBatchesOptions,
    readonly set: TrainingSet,
    /** How latents become x. */
    readonly normalization: LatentNormalization,
    readonly constants: DataConstants | undefined,
    readonly frozen: FrozenModels | undefined,
  ) {
    this.#options = options;
    this.#loader = new ShardLoader(set.shards, {
      fields: fieldsOf(options.data),
      prefetch: options.data.prefetchFactor,
      plan: (step) => this.#plan(step),
      replace: (row, attempt) => this.#replacement(row as Row, attempt),
      onWaiting: (problem) => options.onMessage?.(`${problemText(problem)}; it is tried again for a minute`),
    });
  }

  /**
   * Opens the shards; makes their tables and bin edges where they are missing.
   * @throws InvalidInputError naming what does not fit the network; ShardError naming a bad shard
   */
  static async open(options: ShardBatchesOptions): Promise<ShardBatches> {
    const { data, network, seed, batchSize, batchSizeKey = "trainer.batch_size" } = options;
    // The order stays that of the first batches, whatever size they have had since.
    const firstSize = options.spans?.[0]?.batchSize ?? batchSize;
    const own = Object.keys(trainingSetOptionsSchema.shape);
    const set = await TrainingSet.open(
      { ...Object.fromEntries(Object.entries(data).filter(([key]) => own.includes(key))), root: rootsOf(data) },
      { scores: scoreColumnsOf(data, network.coherenceKeys), seed, batchSize: firstSize },
      options,
    );
    try {
      checkFit(set, options);
      warnOfUnpaired(set, options);
      if (set.length < batchSize) {
        const most = `at most ${set.length}, the samples of ${rootsOf(data).join(", ")} that pass the filters`;
        throw new InvalidInputError(`${batchSizeKey}: expected ${most} (received ${batchSize})`);
      }
      const normalization = await normalizationFor(set, options);
      const text = await textModels(options);
      const given = uncondFrom(options);
      if (given !== undefined) text?.uncondEmbedding.dispose();
      const uncondEmbedding = given ?? text?.uncondEmbedding;
      const constants = uncondEmbedding && { normalization, uncondEmbedding };
      const frozen = constants && text?.models ? { ...text.models, ...constants } : undefined;
      return new ShardBatches(options, set, normalization, constants, frozen);
    } catch (error) {
      set.close();
      throw error;
    }
  }

  async ready(step: number, signal?: AbortSignal): Promise<void> {
    await this.#loader.ready(step, signal);
  }

  batch(step: number): LossBatch {
    const { data, seed, network } = this.#options;
    const { rows, tensors, masks } = this.#loader.take(step);
    const { mean, std, text } = tensors as { mean: Tensor; std?: Tensor; text: Tensor };
    const latents =
      std === undefined
        ? mean.float()
        : sampleLatents(mean, std, latentNoise(rows as Row[], seed, mean.shape.slice(1)), data.latentDtype);
    const columns = scoreColumnsOf(data, network.coherenceKeys);
    const column = (key: string) => {
      const s = this.set.scores.indexOf(columns[network.coherenceKeys.indexOf(key)]!);
      const values = Float32Array.from(rows as Row[], ({ rewards }) => rewards[s]!);
      return tensor(values, { dtype: "float32" });
    };
    return {
      x0: normalize(latents.float(), this.normalization),
      textEmbeddings: text,
      textMask: masks.text!,
      rewards: Object.fromEntries(network.coherenceKeys.map((key) => [key, column(key)])),
    };
  }

  /** Which shards, which of their samples pass, and in which bins their rewards are; not where they lie. */
  get identity(): string {
    const { shards, selection, bins } = this.set;
    const described = {
      shards: shards.shards.map(({ path, count, header }) => [
        basename(path),
        count,
        header.fingerprint.sizeBytes,
        header.probe,
      ]),
      selected: selection.shardSizes,
      bins: bins && [...bins].map(([name, edges]) => [name, [...edges]]),
    };
    return createHash("sha256").update(JSON.stringify(described)).digest("hex");
  }

  /** Samples of each shard, by folder and name. */
  get shards(): Record<string, number> {
    return Object.fromEntries(
      this.set.shards.shards.map(({ path, count }) => [join(basename(dirname(path)), basename(path)), count]),
    );
  }

  /** What was read so far, bad samples and cut texts counted. */
  get stats() {
    return this.#loader.stats;
  }

  async close(): Promise<void> {
    const { samples, bad, truncated, problems } = this.stats;
    const cut = truncated.text!;
    if (bad > 0)
      this.#options.onMessage?.(
        `${counted(bad, "sample")} could not be used and ${plural(bad, "was", "were")} replaced; the last: ${problemText(problems.at(-1)!)}`,
      );
    const [most, were] = [this.#options.data.maxTextLen, plural(cut, "was", "were")];
    if (cut > 0)
      this.#options.onMessage?.(
        `${cut} of ${counted(samples, "text")} ${were} longer than data.max_text_len (${most}) and ${were} cut`,
      );
    await this.#loader.close();
    this.set.close();
    this.frozen?.encoder.dispose();
    for (const tensor of [this.normalization.scale, this.normalization.bias, this.constants?.uncondEmbedding])
      tensor?.dispose();
  }

  #plan(step: number): Row[] {
    const { batchSize, spans = batchSize, rows: { start, count } = { start: 0, count: batchSize } } = this.#options;
    const { epoch, position } = stepPosition(step, spans, this.set.length);
    return Array.from({ length: count }, (_, row) => this.#row(epoch, this.set.at(epoch, position + start + row)));
  }

  #row(epoch: number, { sample, synthetic, rewards }: PlannedSample): Row {
    return { sample, variant: synthetic ? 1 : 0, epoch, rewards };
  }

  /** A passing sample in the place of one that cannot be read; which, follows from the unreadable one. */
  #replacement({ sample, epoch }: Row, attempt: number): Row {
    const { selection } = this.set;
    const other = new Permutation(selection.length, "unreadableRow", [this.#options.seed, sample, attempt]).at(0);
    return this.#row(epoch, this.set.planned(epoch, selection.at(other)));
  }
}

function fieldsOf(data: ShardData): ConstructorParameters<typeof ShardLoader>[1]["fields"] {
  const sampled = data.vaeSample && data.vaeEmbeddingNameStd !== null;
  return {
    mean: { kind: "array", member: `${data.vaeEmbeddingNameMean}.npy`, finite: true },
    ...(sampled ? { std: { kind: "array", member: `${data.vaeEmbeddingNameStd}.npy`, finite: true } as const } : {}),
    text: {
      kind: "sequence",
      member: [textMember(data, false), textMember(data, true)],
      maxLength: data.maxTextLen,
      padTo: data.textPadding === "fixed" ? data.maxTextLen : "longest",
    },
  };
}

/** Compares the shapes in the shards with those that the network takes. */
function checkFit({ shards, selection }: TrainingSet, { data, network }: ShardBatchesOptions): void {
  const { shard, local } = shards.locate(selection.at(0));
  const table = shards.table(shard);
  const expect = (member: string, shape: (number | null)[], names: string) => {
    const found = table.array(local, member)?.shape;
    if (
      found === undefined ||
      (found.length === shape.length && shape.every((size, i) => size === null || size === found[i]))
    )
      return;
    throw new InvalidInputError(
      `${table.path}, member "${table.key(local)}.${member}": expected the shape (${shape.map((size) => size ?? "tokens").join(", ")}) of ${names}, found (${found.join(", ")})`,
    );
  };
  const { numInputChannels: C, dataSize: side, labelDim } = network;
  for (const name of [data.vaeEmbeddingNameMean, data.vaeEmbeddingNameStd])
    if (name !== null) expect(`${name}.npy`, [C, side, side], "network.num_input_channels and network.data_size");
  expect(textMember(data, false), [null, labelDim], "network.label_dim");
}

/** Says why synthetic captions that were asked for are not trained with, where a score of theirs is nowhere. */
function warnOfUnpaired({ shards, scores, options }: TrainingSet, { onMessage }: ShardBatchesOptions): void {
  const fields = new Set(shards.shards.flatMap(({ header }) => header.columns));
  const without = pairedScores(options, scores).filter((name) => fields.has(name) && !fields.has(syntheticName(name)));
  if (without.length > 0)
    onMessage?.(
      `data.synthetic_embedding_prob: no sample has ${without.map(syntheticName).join(", ")}, ${withoutPairs(without)}; data.score_mode=original takes the scores of the original captions`,
    );
}

async function normalizationFor(set: TrainingSet, options: ShardBatchesOptions): Promise<LatentNormalization> {
  const { data, network, sigmaData, signal, normalization: given } = options;
  if (given !== undefined) return { scale: given.scale.clone().keep(), bias: given.bias.clone().keep() };
  if (data.latentNormalization !== "data") {
    if (network.numInputChannels !== 4)
      throw new InvalidInputError(
        `data.latent_normalization: the SDXL statistics are of 4 channels, network.num_input_channels is ${network.numInputChannels}; use data`,
      );
    const normalization = defaultNormalization({ channel_wise_normalisation: data.latentNormalization === "sdxl" });
    return keep(normalization);
  }
  const count = Math.min(NORMALIZATION_SAMPLES, set.selection.length);
  const loader = new ShardLoader(set.shards, {
    fields: { mean: { kind: "array", member: `${data.vaeEmbeddingNameMean}.npy`, finite: true } },
    prefetch: 1,
    plan: () => Array.from({ length: count }, (_, i) => ({ sample: set.selection.at(i) })),
  });
  try {
    await loader.ready(0, signal);
    return scope(() => keep(normalizationOf(loader.take(0).tensors.mean!, sigmaData)));
  } finally {
    await loader.close();
  }
}

function keep(normalization: LatentNormalization): LatentNormalization {
  return { scale: normalization.scale.keep(), bias: normalization.bias.keep() };
}

/** Text states of the empty prompt from their file. */
function uncondFrom({ data, network, device }: ShardBatchesOptions): Tensor | undefined {
  const { uncondEmbedding: path } = data;
  return path === undefined ? undefined : storedEmptyPrompt(path, network.labelDim, device);
}

/**
 * The text states of the empty prompt, and the text encoder with its tokenizer where sheets need it; undefined where
 * nothing is needed of them, or the recipe names none.
 */
async function textModels(
  options: ShardBatchesOptions,
): Promise<{ uncondEmbedding: Tensor; models: Pick<FrozenModels, "tokenizer" | "encoder"> | null } | undefined> {
  const { data, network, device, signal, needs = { emptyPrompt: "always", textEncoder: true } } = options;
  const isGiven = data.uncondEmbedding !== undefined;
  if (typeof data.textEncoder !== "string") return undefined;
  if (!needs.textEncoder && (isGiven || needs.emptyPrompt === "never")) return undefined;
  const folder = await textEncoderFolder(
    data.textEncoder,
    options,
    !needs.textEncoder && needs.emptyPrompt === "release",
  );
  if (folder === null) return undefined;
  const path = join(folder, "config.json");
  const { dModel } = T5Encoder.configFromJson(readJson(path), path);
  if (dModel !== network.labelDim)
    throw new MiroError(`data.text_encoder: its states are ${dModel} wide, network.label_dim is ${network.labelDim}`);
  const tokenizer = await Tokenizer.fromFile(folder);
  const encoder = await T5Encoder.fromPretrained(folder, { device, dtype: "float32", signal });
  encoder.requiresGrad_(false).eval();
  const uncondEmbedding = encodedEmptyPrompt({ tokenizer, encoder }, data.maxTextLen, device);
  if (needs.textEncoder) return { uncondEmbedding, models: { tokenizer, encoder } };
  encoder.dispose();
  return { uncondEmbedding, models: null };
}

/**
 * The folder of a text encoder, fetched where it is a repository.
 * @param canDoWithout where it cannot be had, that is told and training goes on
 * @returns null where it cannot be had
 */
async function textEncoderFolder(
  name: string,
  { signal, onMessage }: ShardBatchesOptions,
  canDoWithout: boolean,
): Promise<string | null> {
  try {
    const part = { name, parameter: "data.text_encoder", source: null, prefix: "" };
    return await fetchTextEncoder(part, { signal, onMessage });
  } catch (error) {
    if (!canDoWithout || !(error instanceof MiroError) || error instanceof InvalidInputError) throw error;
    onMessage?.(
      `${error.message}; without it there will be no release at the end, until data.uncond_embedding names the states of the empty prompt or the run is resumed with the text encoder at hand`,
    );
    return null;
  }
}
