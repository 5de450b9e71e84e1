/** What may follow a linear layer in the same kernel. */
import type { Tensor } from "@miro-t2i/torch";

/** What is done to x Wᵀ + b: an activation, or a product or a sum with a tensor of the result's shape. */
export type Epilogue = "none" | "silu" | "gelu" | { mul: Tensor } | { add: Tensor };
