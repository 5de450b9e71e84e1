/** A table of vectors looked up by index, as `torch.nn.Embedding`. */
import { empty } from "../creation.js";
import { options as known } from "../named-options.js";
import type { Tensor } from "../tensor.js";
import { embedding } from "./functional.js";
import { normal_ } from "./init.js";
import { FACTORY_OPTIONS, type FactoryOptions } from "./linear.js";
import { Module } from "./module.js";

/** A table of vectors. PyTorch: `nn.Embedding`. */
export class Embedding extends Module {
  /** (entries, dim), drawn from N(0, 1) */
  readonly weight: Tensor;

  constructor(
    /** Rows of the table. */
    readonly numEmbeddings: number,
    /** Width of a row. */
    readonly embeddingDim: number,
    options: FactoryOptions = {},
  ) {
    super();
    const factory = known("Embedding", options, FACTORY_OPTIONS);
    this.weight = this.parameter("weight", normal_(empty([numEmbeddings, embeddingDim], factory)));
  }

  /** Integer indices (…) → (…, dim) */
  forward(indices: Tensor): Tensor {
    return embedding(indices, this.weight);
  }
}
