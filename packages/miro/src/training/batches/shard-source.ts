/** `data.kind: shards`: enriched shards, as the published preparation and `miro preprocess` write them. */
import type { RinConfig } from "../../networks/config.js";
import { type RecipeFault, recipeFault } from "./recipe-fault.js";
import { checkShards, checkUncond, checkValidationShards } from "./shard-check.js";
import { rootsOf, type ShardData, scoreColumnsOf, shardDataSchema, validationData } from "./shard-data.js";
import type { SourceFacts, SourceRecipe, SourceSpec } from "./sources.js";

export const shardSource: SourceSpec<ShardData> = {
  schema: shardDataSchema,
  faults,
  facts,
  async check(data, recipe, validation, readAll) {
    const report = await checkShards(data, recipe, readAll);
    report.checks.push(...checkUncond(data, recipe.network));
    if (validation !== undefined) report.checks.push(...(await checkValidationShards(data, validation, recipe)));
    return report;
  },
  async open(data, context) {
    const { ShardBatches } = await import("./shard-batches.js");
    return ShardBatches.open({ data, ...context });
  },
  async openValidation(data, root, context) {
    const { ShardBatches } = await import("./shard-batches.js");
    const source = await ShardBatches.open({
      ...context,
      data: validationData(data, root),
      batchSizeKey: "validation.batch_size",
    });
    return { source, batches: Math.floor(source.set.length / context.batchSize) };
  },
};

function facts(data: ShardData, { dataSize }: Pick<RinConfig, "dataSize">): SourceFacts {
  const { maxTextLen, autoencoder, textEncoder, uncondEmbedding, imgResolution, latentNormalization } = data;
  const knowsEmptyPrompt = uncondEmbedding !== undefined || (textEncoder ?? undefined) !== undefined;
  return {
    textTokens: maxTextLen,
    halfPrecisionTexts: true,
    autoencoder: autoencoder ?? undefined,
    textEncoder: textEncoder ?? undefined,
    ...(latentNormalization !== "data" && {
      sdxlLatents: {
        channelWise: latentNormalization === "sdxl",
        vaeSample: data.vaeSample,
        mean: data.vaeEmbeddingNameMean,
        std: data.vaeEmbeddingNameStd,
      },
    }),
    ...(knowsEmptyPrompt && { release: { imgResolution: imgResolution ?? 8 * dataSize } }),
  };
}

/** What in a recipe's shards does not fit the rest of it. */
function faults(data: ShardData, { network, loss: { condDropRate, textDropRate } }: SourceRecipe): RecipeFault[] {
  const found: RecipeFault[] = [];
  const columns = scoreColumnsOf(data, network.coherenceKeys);
  if (columns.length !== network.coherenceKeys.length)
    found.push(
      recipeFault(
        "data.score_columns",
        `expected a field for each of the ${network.coherenceKeys.length} network.coherence_keys (received ${columns.length})`,
      ),
    );
  const unknown = columns.filter((key) => data.coherenceScores !== undefined && !data.coherenceScores.includes(key));
  if (unknown.length > 0)
    found.push(recipeFault("data.coherence_scores", `lacks ${unknown.join(", ")} of network.coherence_keys`));
  const knowsEmptyPrompt = data.uncondEmbedding !== undefined || (data.textEncoder ?? undefined) !== undefined;
  if (condDropRate + textDropRate > 0 && !knowsEmptyPrompt)
    found.push(
      recipeFault(
        "data.uncond_embedding",
        "dropping texts (loss.cond_drop_rate, loss.text_drop_rate) needs the empty prompt; name its file, or data.text_encoder",
      ),
    );
  const roots = rootsOf(data);
  if (data.weights !== undefined && data.weights.length !== roots.length)
    found.push(
      recipeFault(
        "data.weights",
        `expected a number for each of the ${roots.length} of data.root (received ${data.weights.length})`,
      ),
    );
  if (data.vaeSample && data.vaeEmbeddingNameStd === null)
    found.push(recipeFault("data.vae_sample", "expected false without data.vae_embedding_name_std (received true)"));
  if (data.binStrategy === "refined_quantile" && data.refineLastNBins >= data.numBins)
    found.push(
      recipeFault(
        "data.refine_last_n_bins",
        `expected fewer than the ${data.numBins} bins (received ${data.refineLastNBins})`,
      ),
    );
  return found;
}
