/**
 * Weights of a network for one with smaller patches: half as wide, four times as many data tokens.
 *
 * Positions are interpolated, and a small patch is read and written as the parts of the large one are on average. All
 * that lies between, nearly everything, stays as it is. Of what such a network knew it keeps what the pictures show at
 * large: the bundled network of 4 × 4 patches begins at a loss of 0.3 with patches of 2 × 2, where a fresh one begins
 * at 1.25.
 */
import { nn, scope, type Tensor } from "@miro-t2i/torch";
import type { RinConfig } from "../../networks/config.js";

type PatchConfig = Pick<RinConfig, "dataSize" | "patchSize" | "numInputChannels">;

/** Whether weights of one network can be grown for another, as far as their patches decide it. */
export function growsInto(from: PatchConfig, to: PatchConfig): boolean {
  return (
    from.dataSize === to.dataSize &&
    from.numInputChannels === to.numInputChannels &&
    from.patchSize > to.patchSize &&
    from.patchSize % to.patchSize === 0
  );
}

/**
 * The state dict of a network with other patches, from that of one that {@link growsInto} it. New tensors belong to the
 * enclosing scope.
 */
export function growPatches(
  weights: ReadonlyMap<string, Tensor>,
  from: PatchConfig,
  to: PatchConfig,
): Map<string, Tensor> {
  const factor = from.patchSize / to.patchSize;
  /** (P²C, …) features of a large patch, ordered (row, column, channel), → those of a small one. */
  const meanOfParts = (features: Tensor): Tensor => {
    const rest = features.shape.slice(1);
    const { patchSize: p, numInputChannels: channels } = to;
    return features
      .reshape(factor, p, factor, p, channels, ...rest)
      .mean([0, 2])
      .reshape(p * p * channels, ...rest);
  };
  const changes: Readonly<Record<string, (value: Tensor) => Tensor>> = {
    data_pos_embedding: (positions) => {
      const [dim, side] = [positions.size(1), from.dataSize / from.patchSize];
      const grid = positions.reshape(1, side, side, dim).permute(0, 3, 1, 2);
      const finer = nn.functional.interpolate(grid, { scaleFactor: factor, mode: "bilinear" });
      return finer.permute(0, 2, 3, 1).reshape((side * factor) ** 2, dim);
    },
    // Times the factor: a token then varies as much as one that is the sum over all parts.
    "patch_extractor.weight": (weight) => meanOfParts(weight.t()).mul(factor).t(),
    "map_tokens_to_patches.1.weight": meanOfParts,
    "map_tokens_to_patches.1.bias": meanOfParts,
  };
  return new Map(
    [...weights].map(([name, value]) => [name, scope(() => changes[name]?.(value.float()).contiguous() ?? value)]),
  );
}
