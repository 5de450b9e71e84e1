/** Names of the precisions, as upstream has them. */
export const PRECISIONS = ["32-true", "bf16-mixed", "16-mixed"] as const;
/** One of {@link PRECISIONS}. */
export type PrecisionName = (typeof PRECISIONS)[number];
