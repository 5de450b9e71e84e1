import type { DType } from "@miro-t2i/torch";

/** Names of the precisions, as upstream has them. */
export const PRECISIONS = ["32-true", "bf16-mixed", "16-mixed"] as const;
/** One of {@link PRECISIONS}. */
export type PrecisionName = (typeof PRECISIONS)[number];

/** What matrix products are computed in. */
export const MATMUL_DTYPE = {
  "32-true": "float32",
  "bf16-mixed": "bfloat16",
  "16-mixed": "float16",
} as const satisfies Record<PrecisionName, DType>;
