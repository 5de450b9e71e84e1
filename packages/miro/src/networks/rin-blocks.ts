/**
 * One block of the recurrent interface network (Jabri et al. 2022): few latents read the conditioning and the many data
 * tokens, compute among themselves, and write back.
 */
import { nn, type Tensor } from "@miro-t2i/torch";
import { CrossAttentionBlock, type KeyMask, type KeyValue, SelfAttentionBlock } from "./attention.js";
import type { RinConfig } from "./config.js";

/** What a block updates: latents z (B, N, L) and data tokens x (B, M, D). */
export type RinState = { z: Tensor; x: Tensor };

export class RinBlock extends nn.Module {
  /** The latents read the data. */
  readonly retriever: CrossAttentionBlock;
  /** The latents compute among themselves. */
  readonly processers: nn.ModuleList<SelfAttentionBlock>;
  /** The data reads the latents. */
  readonly writer: CrossAttentionBlock;
  /** The latents read time and conditioning. */
  readonly retrieveCond: CrossAttentionBlock | null;

  constructor(c: RinConfig) {
    super();
    const { dataDim: D, latentsDim: L, readWriteHeads, rwStochasticDepth } = c;
    const cross = (to: number, from: number, multiplier: number) =>
      new CrossAttentionBlock(to, from, readWriteHeads, multiplier, rwStochasticDepth);
    const processer = () =>
      new SelfAttentionBlock(L, c.computeHeads, c.latentMlpMultiplier, c.computeDropout, c.computeStochasticDepth);
    this.retriever = this.register("retriever_ca", cross(L, D, c.latentMlpMultiplier));
    this.processers = this.register(
      "processer_sa",
      new nn.ModuleList(Array.from({ length: c.numProcessingLayers }, processer)),
    );
    this.writer = this.register("writer_ca", cross(D, L, c.dataMlpMultiplier));
    this.retrieveCond = c.useCondRinBlock ? this.register("retrieve_cond", cross(L, L, c.latentMlpMultiplier)) : null;
  }

  /**
   * @param condition keys and values of time and conditioning for `retrieve_cond`, with their mask; null without it
   * @param latentMask which latents may be attended, null for all
   */
  forward({ z, x }: RinState, condition: { source: KeyValue; mask: KeyMask } | null, latentMask: KeyMask): RinState {
    if (this.retrieveCond !== null && condition !== null)
      z = this.retrieveCond.forward(z, condition.source, condition.mask);
    z = this.retriever.forward(z, this.retriever.ca.keyValue(x));
    for (const layer of this.processers.items) z = layer.forward(z, latentMask);
    x = this.writer.forward(x, this.writer.ca.keyValue(z), latentMask);
    return { z, x };
  }
}
