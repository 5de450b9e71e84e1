/**
 * The Swin transformer (Liu et al. 2021) as a backbone: four maps at strides 4, 8, 16 and 32.
 *
 *   x ← x + W-MSA(ln₁ x),  x ← x + mlp(ln₂ x)
 *
 * A block attends within windows of M × M cells; every second block shifts the windows by ⌊M/2⌋ cells, cyclically, and
 * masks what a shift brings together. A map is padded to whole windows after the first norm, so that padding cells take
 * part: as zeros, whose query, key and value are the biases. They are filled in, and products are made of real cells
 * alone.
 *
 * Shapes: B pictures, H × W cells, N = H·W, C channels, h heads, M window side, T = M² cells of a window.
 */
import { cat, empty, F, nn, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { Linear } from "../../../networks/linear.js";
import type { SwinShape } from "./shape.js";

const EPS = 1e-5;
/** Added to the logits of cells that are not neighbours in the picture. */
const MASKED = -100;

/** Cells of a map with channels last: (B, N, C), row by row. */
export interface CellMap {
  cells: Tensor;
  height: number;
  width: number;
}

/** (B, N, C) as a picture (B, C, H, W), without copying. */
export function asPicture({ cells, height, width }: CellMap): Tensor {
  return cells.view(cells.size(0), height, width, cells.size(2)).permute(0, 3, 1, 2);
}

/** (B, C, H, W) as cells (B, N, C); without copying where the channels lie last. */
export function asCells(picture: Tensor): CellMap {
  const [B, C, height, width] = picture.shape as [number, number, number, number];
  return { cells: picture.permute(0, 2, 3, 1).reshape(B, height * width, C), height, width };
}

/** The backbone. Random weights until they are loaded. */
export class Swin extends nn.Module {
  readonly #patch: nn.Conv2d;
  readonly #patchNorm: nn.LayerNorm;
  readonly #stages: nn.ModuleList<Stage>;
  readonly #norms: nn.ModuleList<nn.LayerNorm>;

  constructor(shape: SwinShape) {
    super();
    this.#patch = this.register("patch", new nn.Conv2d(3, shape.width, 4, { stride: 4 }));
    this.#patchNorm = this.register("patch_norm", new nn.LayerNorm(shape.width, { eps: EPS }));
    const stages = [0, 1, 2, 3];
    this.#stages = this.register("stages", new nn.ModuleList(stages.map((s) => new Stage(shape, s))));
    this.#norms = this.register(
      "norms",
      new nn.ModuleList(stages.map((s) => new nn.LayerNorm(shape.width * 2 ** s, { eps: EPS }))),
    );
  }

  /** Normalised pixels (B, 3, 4·H, 4·W) → the four maps, each through its own norm; the caller owns them */
  forward(pixels: Tensor): CellMap[] {
    return scope(() => {
      const { cells, ...size } = asCells(this.#patch.forward(pixels.to({ dtype: this.#patch.weight.dtype })));
      let map: CellMap = { cells: this.#patchNorm.forward(cells), ...size };
      return [...this.#stages].map((stage, s) => {
        const { output, next } = stage.forward(map);
        map = next ?? output;
        return { ...output, cells: this.#norms.items[s]!.forward(output.cells) };
      });
    });
  }
}

class Stage extends nn.Module {
  readonly #blocks: nn.ModuleList<Block>;
  readonly #merge: PatchMerging | null;

  constructor(shape: SwinShape, stage: number) {
    super();
    const width = shape.width * 2 ** stage;
    this.#blocks = this.register(
      "blocks",
      new nn.ModuleList(Array.from({ length: shape.depths[stage]! }, (_, i) => new Block(shape, stage, i % 2 === 1))),
    );
    this.#merge = stage < 3 ? this.register("merge", new PatchMerging(width)) : null;
  }

  forward(map: CellMap): { output: CellMap; next: CellMap | null } {
    return scope(() => {
      let { cells } = map;
      for (const block of this.#blocks) {
        const next = scope(() => block.forward({ ...map, cells }));
        if (cells !== map.cells) cells.dispose();
        cells = next;
      }
      const output = { ...map, cells };
      return { output, next: this.#merge?.forward(output) ?? null };
    });
  }
}

/** Halves both sides: four neighbours become one cell of twice the channels. Odd sides are padded with zeros. */
export class PatchMerging extends nn.Module {
  readonly #norm: nn.LayerNorm;
  readonly #reduction: nn.Linear;

  constructor(width: number) {
    super();
    this.#norm = this.register("norm", new nn.LayerNorm(4 * width, { eps: EPS }));
    this.#reduction = this.register("reduction", new nn.Linear(4 * width, 2 * width, { bias: false }));
  }

  /** (B, H·W, C) → (B, ⌈H/2⌉·⌈W/2⌉, 2C) */
  forward({ cells, height, width }: CellMap): CellMap {
    return scope(() => {
      const [B, , C] = cells.shape as [number, number, number];
      const [H, W] = [Math.ceil(height / 2), Math.ceil(width / 2)];
      const whole = F.pad(cells.view(B, height, width, C), [0, 0, 0, 2 * W - width, 0, 2 * H - height]);
      // Neighbours in the order (row, column) = (0,0), (1,0), (0,1), (1,1), each with its C channels: the original's.
      const neighbours = whole
        .view(B, H, 2, W, 2, C)
        .permute(0, 1, 3, 4, 2, 5)
        .reshape(B, H * W, 4 * C);
      return { cells: this.#reduction.forward(this.#norm.forward(neighbours)), height: H, width: W };
    });
  }
}

class Block extends nn.Module {
  readonly #heads: number;
  readonly #window: number;
  readonly #shift: number;
  readonly #norm1: nn.LayerNorm;
  readonly #qkv: Linear;
  readonly #biasTable: Tensor;
  readonly #proj: Linear;
  readonly #norm2: nn.LayerNorm;
  readonly #fc1: Linear;
  readonly #fc2: Linear;

  constructor(shape: SwinShape, stage: number, shifted: boolean) {
    super();
    const C = shape.width * 2 ** stage;
    this.#heads = shape.heads[stage]!;
    this.#window = shape.window;
    this.#shift = shifted ? Math.floor(shape.window / 2) : 0;
    this.#norm1 = this.register("norm1", new nn.LayerNorm(C, { eps: EPS }));
    this.#qkv = this.register("qkv", new Linear(C, 3 * C));
    this.#biasTable = this.parameter("bias_table", zeros([(2 * shape.window - 1) ** 2, this.#heads]));
    this.#proj = this.register("proj", new Linear(C, C));
    this.#norm2 = this.register("norm2", new nn.LayerNorm(C, { eps: EPS }));
    this.#fc1 = this.register("fc1", new Linear(C, C * shape.mlpRatio));
    this.#fc2 = this.register("fc2", new Linear(C * shape.mlpRatio, C));
  }

  /** (B, N, C) → (B, N, C) */
  forward(map: CellMap): Tensor {
    const attended = scope(() => this.#attend({ ...map, cells: this.#norm1.forward(map.cells) }));
    const x = this.#proj.forward(attended, { add: map.cells });
    return this.#fc2.forward(this.#fc1.forward(this.#norm2.forward(x), "gelu"), { add: x });
  }

  /** Window attention without its projection: (B, N, C) → (B, N, C) */
  #attend({ cells, height, width }: CellMap): Tensor {
    const [B, , C] = cells.shape as [number, number, number];
    const M = this.#window;
    const [down, across] = [Math.ceil(height / M), Math.ceil(width / M)];
    const size = { height: down * M, width: across * M };
    const qkv_BHW3C = this.#qkv.forward(cells).view(B, height, width, 3 * C);
    const placed_BHW3C = shiftIn(qkv_BHW3C, size, this.#shift, this.#qkv.bias!);
    const windows = placed_BHW3C
      .view(B, down, M, across, M, 3 * C)
      .permute(0, 1, 3, 2, 4, 5)
      .reshape(B * down * across, M * M, 3, this.#heads, C / this.#heads);
    const [q, k, v] = windows.permute(2, 0, 3, 1, 4).unbind(0) as [Tensor, Tensor, Tensor];
    const attended = F.scaledDotProductAttention(q, k, v, { mask: this.#logitBias(B, size) });
    const whole_BHWC = attended
      .transpose(1, 2)
      .reshape(B, down, across, M, M, C)
      .permute(0, 1, 3, 2, 4, 5)
      .reshape(B, size.height, size.width, C);
    return shiftOut(whole_BHWC, { height, width }, this.#shift).reshape(B, height * width, C);
  }

  /** What is added to the logits: the bias by relative position, and where windows are shifted their mask. */
  #logitBias(B: number, { height, width }: { height: number; width: number }): Tensor {
    const [M, T] = [this.#window, this.#window ** 2];
    const index = tensor(relativePositions(M), { dtype: "int64" }).to({ device: this.#biasTable.device });
    const bias_1hTT = this.#biasTable.indexSelect(0, index).view(1, T, T, this.#heads).permute(0, 3, 1, 2).contiguous();
    if (this.#shift === 0) return bias_1hTT;
    const mask = tensor(shiftMask(height, width, M, this.#shift))
      .view(-1, 1, T, T)
      .to(bias_1hTT);
    const both = mask.add(bias_1hTT);
    return B === 1 ? both : both.repeat([B, 1, 1, 1]);
  }
}

/** Rows of the bias table of all pairs of a window's cells: (Δrow + M − 1)·(2M − 1) + Δcolumn + M − 1 */
export function relativePositions(M: number): BigInt64Array {
  const T = M * M;
  return BigInt64Array.from({ length: T * T }, (_, at) => {
    const [i, j] = [Math.floor(at / T), at % T];
    const [down, across] = [Math.floor(i / M) - Math.floor(j / M), (i % M) - (j % M)];
    return BigInt((down + M - 1) * (2 * M - 1) + across + M - 1);
  });
}

/** For each window of a shifted map and each pair of its cells: 0 where they are neighbours in the picture. */
function shiftMask(height: number, width: number, M: number, shift: number): Float32Array {
  const region = (at: number, side: number) => (at < side - M ? 0 : at < side - shift ? 1 : 2);
  const T = M * M;
  const [down, across] = [height / M, width / M];
  const mask = new Float32Array(down * across * T * T);
  const regions = new Uint8Array(T);
  for (let window = 0; window < down * across; window++) {
    const [top, left] = [Math.floor(window / across) * M, (window % across) * M];
    // Only the windows of the last row and column hold cells of several regions.
    if (top < height - M && left < width - M) continue;
    for (let i = 0; i < T; i++)
      regions[i] = 3 * region(top + Math.floor(i / M), height) + region(left + (i % M), width);
    for (let i = 0; i < T; i++)
      for (let j = 0; j < T; j++) if (regions[i] !== regions[j]) mask[(window * T + i) * T + j] = MASKED;
  }
  return mask;
}

/**
 * Pads a map (B, H, W, C) on the right and below with `fill` (C), and rolls it up and to the left: one copy, or none.
 */
function shiftIn(map: Tensor, size: { height: number; width: number }, shift: number, fill: Tensor): Tensor {
  const [B, H, W, C] = map.shape as [number, number, number, number];
  const { height, width } = size;
  if (shift === 0 && H === height && W === width) return map;
  const placed = empty([B, height, width, C], { dtype: map.dtype, device: map.device });
  if (H < height) fillIn(placed, 1, H - shift, height - H, fill);
  if (W < width) fillIn(placed, 2, W - shift, width - W, fill);
  for (const [to, from, rows] of pieces(H, height, shift))
    for (const [into, of, columns] of pieces(W, width, shift))
      placed
        .narrow(1, to, rows)
        .narrow(2, into, columns)
        .copy_(map.narrow(1, from, rows).narrow(2, of, columns));
  return placed;
}

/** Padding of a rolled map. It may lie on both sides of the end. */
function fillIn(placed: Tensor, dim: number, start: number, count: number, fill: Tensor): void {
  const side = placed.size(dim);
  for (let at = start; at < start + count; ) {
    const from = ((at % side) + side) % side;
    const length = Math.min(start + count - at, side - from);
    placed.narrow(dim, from, length).copy_(fill);
    at += length;
  }
}

/** The inverse of {@link shiftIn}: (B, H', W', C) → (B, H, W, C) */
function shiftOut(map: Tensor, { height, width }: { height: number; width: number }, shift: number): Tensor {
  if (shift === 0) return map.narrow(1, 0, height).narrow(2, 0, width);
  const rows = pieces(height, map.size(1), shift).sort((a, b) => a[1] - b[1]);
  const columns = pieces(width, map.size(2), shift).sort((a, b) => a[1] - b[1]);
  return cat(
    rows.map(([at, , count]) => {
      const band = map.narrow(1, at, count);
      return cat(
        columns.map(([start, , length]) => band.narrow(2, start, length)),
        2,
      );
    }),
    1,
  );
}

/** Where the cells 0 … n − 1 of a side come to lie when it is rolled back by `shift`: [to, from, count]. */
function pieces(n: number, side: number, shift: number): [to: number, from: number, count: number][] {
  const front = Math.min(n, shift);
  const all: [number, number, number][] = [
    [0, shift, n - shift],
    [side - shift, 0, front],
  ];
  return all.filter(([, , count]) => count > 0);
}
