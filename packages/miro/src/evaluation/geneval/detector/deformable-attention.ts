/**
 * The sampling of multi-scale deformable attention (Zhu et al. 2021): each query and head takes a weighted sum of
 * values at points of several maps, bilinearly interpolated, zero outside of a map.
 *
 * A value between four cells is a weighted sum of theirs, so all points of a query and head are one weighted sum of
 * rows of a table: `embedding_bag`, which reads rows of consecutive numbers, where `grid_sample` gathers single ones.
 * The maps stand in the table with a border of zeros and points are clamped to it, so that nothing has to be masked.
 *
 * Positions, weights and sums are float32 whatever the values are: bfloat16 cannot tell cells of a map apart.
 */
import { arange, aten, scope, stack, type Tensor, tensor, zeros } from "@miro-t2i/torch";

/** Sides of a map in cells. */
export interface MapSize {
  height: number;
  width: number;
}

/** What of the sampling depends on nothing but the sizes of the maps. */
export interface SamplingPlan {
  levels: readonly MapSize[];
  heads: number;
  /** (S, 1, L, 1) each: position of the query's cell in every map, in cells of the map with its border. */
  x: Tensor;
  y: Tensor;
  /** (L, 1) each: the last position, cells of a row, and the first row of the table. */
  lastX: Tensor;
  lastY: Tensor;
  stride: Tensor;
  start: Tensor;
  /** (L, 1, 4): how far the four cells around a point lie behind the first, in rows of the table. */
  corners: Tensor;
  /** (H, 1, 1): the row of a head among those of a cell. */
  head: Tensor;
  /** Cells of the table. */
  cells: number;
}

/** Plans the sampling where the queries are the cells of all maps, one after another; the caller owns the tensors. */
export function planSampling(levels: readonly MapSize[], heads: number, device: string): SamplingPlan {
  return scope(() => {
    const centres: { x: number; y: number }[] = levels.flatMap(({ height, width }) =>
      Array.from({ length: height * width }, (_, i) => ({
        x: ((i % width) + 0.5) / width,
        y: (Math.floor(i / width) + 0.5) / height,
      })),
    );
    const starts: number[] = [];
    let cells = 0;
    for (const { height, width } of levels) {
      starts.push(cells);
      cells += (height + 2) * (width + 2);
    }
    const column = (values: number[]) => tensor(Float32Array.from(values)).view(-1, 1).to({ device });
    // A cell's centre lies half a cell behind its edge, and the border puts it one cell further: −0.5 + 1.
    const at = (axis: "x" | "y", side: "width" | "height") =>
      tensor(Float32Array.from(centres.flatMap((centre) => levels.map((level) => centre[axis] * level[side] + 0.5))))
        .view(centres.length, 1, levels.length, 1)
        .to({ device });
    const corners = levels.flatMap(({ width }) => [0, 1, width + 2, width + 3].map((cell) => cell * heads));
    return {
      levels,
      heads,
      cells: cells + Math.max(...levels.map(({ width }) => width)) + 4,
      x: at("x", "width"),
      y: at("y", "height"),
      lastX: column(levels.map(({ width }) => width + 1)),
      lastY: column(levels.map(({ height }) => height + 1)),
      stride: column(levels.map(({ width }) => width + 2)),
      start: column(starts),
      corners: tensor(Int32Array.from(corners), { dtype: "int32" }).view(levels.length, 1, 4).to({ device }),
      head: arange(heads, { dtype: "float32", device }).view(heads, 1, 1),
    };
  });
}

/**
 * Weighted sums of values around each query.
 *
 * @param values (B, S, D): of the cells of all maps, one after another; D = heads · channels
 * @param offsets (B, Q, H, L, P, 2): of the points from the query's own cell, x before y, in cells of each map
 * @param weights (B, Q, H, L, P)
 * @returns (B, Q, D) in float32
 */
export function sample(plan: SamplingPlan, values: Tensor, offsets: Tensor, weights: Tensor): Tensor {
  return scope(() => {
    const [B, , D] = values.shape as [number, number, number];
    const [, Q, H, L, P] = weights.shape as [number, number, number, number, number];
    const table = tableOf(plan, values).view(B * plan.cells * H, D / H);
    const o = offsets.float();
    const place = (i: number, base: Tensor, last: Tensor) => {
      // A number that is none must not become a row; it stays one in the weights.
      const p = aten.nan_to_num_(o.select(-1, i).add(base), 0, 0, 0);
      aten.clamp_max__Tensor(p.clamp_(0, null), last);
      const cell = p.floor();
      return { cell, fraction: p.sub_(cell) };
    };
    const x = place(0, plan.x, plan.lastX);
    const y = place(1, plan.y, plan.lastY);
    const rows = y.cell.mul_(plan.stride).add_(x.cell).add_(plan.start).mul_(H).add_(plan.head).to("int32");
    const index = rows.unsqueeze(-1).add(plan.corners);
    if (B > 1)
      index.add_(
        arange(B, { dtype: "int32", device: rows.device })
          .mul(plan.cells * H)
          .view(B, 1, 1, 1, 1, 1),
      );
    const w = weights.float();
    const right = w.mul(x.fraction);
    const left = w.sub(right);
    const [leftBelow, rightBelow] = [left.mul(y.fraction), right.mul(y.fraction)];
    const factors = stack([left.sub(leftBelow), right.sub(rightBelow), leftBelow, rightBelow], -1);
    const bag = 4 * L * P;
    const first = arange(0, B * Q * H * bag, bag, { dtype: "int32", device: rows.device });
    const sums = aten._embedding_bag_forward_only(
      table,
      index.view(-1),
      first,
      false,
      0,
      false,
      factors.view(-1),
      false,
      -1,
    )[0];
    return sums.view(B, Q, D);
  });
}

/** The maps with a border of zeros, one after another, and some zeros behind them: (B, cells, D) in float32 */
function tableOf({ levels, cells }: SamplingPlan, values: Tensor): Tensor {
  const [B, , D] = values.shape as [number, number, number];
  const table = zeros([B, cells, D], { device: values.device });
  let [from, to] = [0, 0];
  for (const { height, width } of levels) {
    const bordered = (height + 2) * (width + 2);
    table
      .narrow(1, to, bordered)
      .view(B, height + 2, width + 2, D)
      .narrow(1, 1, height)
      .narrow(2, 1, width)
      .copy_(values.narrow(1, from, height * width).view(B, height, width, D));
    from += height * width;
    to += bordered;
  }
  return table;
}
