/** Names that say how fast a run was, not what it computed: two runs of the same recipe agree in all others. */
export const VARYING_METRICS = /^(speed\/|memory\/|seconds$)/;
