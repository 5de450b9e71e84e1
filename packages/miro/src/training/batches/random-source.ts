/** `data.kind: random`: random latents, texts and rewards, for benchmarks and tests. */
import { z } from "zod";
import { setting } from "../../options.js";
import { RandomBatches } from "./batches.js";
import type { SourceSpec } from "./sources.js";

const schema = z.strictObject({
  textLen: setting(z.int().positive().default(8), "tokens of each random text"),
});

export const randomSource: SourceSpec<z.output<typeof schema>> = {
  schema,
  facts: ({ textLen }) => ({ textTokens: textLen }),
  check: () => ({ samples: null, checks: [{ status: "ok", subject: "data", finding: "random, nothing to read" }] }),
  async open({ textLen }, { network, seed, batchSize, rows }) {
    return new RandomBatches({
      seed,
      batchSize,
      rows,
      channels: network.numInputChannels,
      size: network.dataSize,
      textLength: textLen,
      textWidth: network.labelDim,
      rewardKeys: network.coherenceKeys,
    });
  },
};
