/**
 * The pixel decoder of Mask2Former: multi-scale deformable attention over the maps of strides 32, 16 and 8 (Zhu et al.
 * 2021), and a feature pyramid's last step that brings the map of stride 4 in.
 *
 * Everything is float32, whatever the backbone computes in: masks are decided by the sign of small differences.
 *
 * Shapes: B pictures, S cells of the three maps one after another, D channels, H heads, L = 3 maps, P = 4 points.
 */
import { cat, empty, F, nn, scope, type Tensor } from "@miro-t2i/torch";
import { Linear } from "../../../networks/linear.js";
import { planSampling, type SamplingPlan, sample } from "./deformable-attention.js";
import { GROUPS, type Mask2FormerShape } from "./shape.js";
import { sineCode } from "./sine-code.js";
import { asCells, asPicture, type CellMap } from "./swin.js";

/** Maps that attend to one another. */
export const LEVELS = 3;
/** Points of each head in each map. */
const POINTS = 4;

/** What the transformer decoder works on. */
export interface PixelFeatures {
  /** Strides 32, 16 and 8. */
  levels: CellMap[];
  /** Stride 4: what the masks are products with. */
  masks: CellMap;
}

/** What of a forward pass depends on nothing but the sizes of the maps. */
export interface PixelPlan {
  sampling: SamplingPlan;
  /** (N, D): of the three maps. */
  codes: Tensor[];
}

/** The pixel decoder. Random weights until they are loaded. */
export class PixelDecoder extends nn.Module {
  readonly #shape: Mask2FormerShape;
  readonly #inputs: nn.ModuleList<Projection>;
  readonly #levelEmbed: Tensor;
  readonly #layers: nn.ModuleList<EncoderLayer>;
  readonly #lateral: Projection;
  readonly #output: Projection;
  readonly #maskFeature: nn.Conv2d;

  constructor(shape: Mask2FormerShape) {
    super();
    const { width: D, backbone, encoder } = shape;
    this.#shape = shape;
    this.#levelEmbed = this.parameter("level_embed", nn.init.normal_(empty([LEVELS, D])));
    const channels = [8, 4, 2].map((factor) => factor * backbone.width);
    this.#inputs = this.register("inputs", new nn.ModuleList(channels.map((C) => new Projection(C, D, 1, true))));
    this.#layers = this.register(
      "layers",
      new nn.ModuleList(Array.from({ length: encoder.layers }, () => new EncoderLayer(D, shape.heads, encoder.hidden))),
    );
    this.#lateral = this.register("lateral", new Projection(backbone.width, D, 1, false));
    this.#output = this.register("output", new Projection(D, D, 3, false));
    this.#maskFeature = this.register("mask_feature", new nn.Conv2d(D, D, 1));
  }

  /** What forward needs for maps of these sizes; the caller owns its tensors. */
  plan(maps: readonly CellMap[]): PixelPlan {
    const levels = [maps[3]!, maps[2]!, maps[1]!].map(({ height, width }) => ({ height, width }));
    const { device } = this.#levelEmbed;
    return {
      sampling: planSampling(levels, this.#shape.heads, device),
      codes: levels.map(({ height, width }) => sineCode(height, width, this.#shape.width, device)),
    };
  }

  /** The backbone's four maps → features; the caller owns them */
  forward(maps: readonly CellMap[], { sampling, codes }: PixelPlan): PixelFeatures {
    return scope(() => {
      const inputs = [maps[3]!, maps[2]!, maps[1]!].map((map, l) => this.#inputs.items[l]!.forward(map));
      const position_SD = cat(
        codes.map((code, l) => code.add(this.#levelEmbed.select(0, l))),
        0,
      );
      let cells_BSD = cat(
        inputs.map(({ cells }) => cells),
        1,
      );
      for (const layer of this.#layers) cells_BSD = layer.forward(cells_BSD, position_SD, sampling);
      let start = 0;
      const levels = inputs.map(({ height, width }) => {
        const cells = cells_BSD.narrow(1, start, height * width);
        start += height * width;
        return { cells, height, width };
      });
      return { levels, masks: this.#masks(maps[0]!, levels[2]!) };
    });
  }

  #masks(finest: CellMap, above: CellMap): CellMap {
    return scope(() => {
      const { height, width } = finest;
      const lateral = this.#lateral.forward(finest);
      const raised = asCells(F.interpolate(asPicture(above), { size: [height, width], mode: "bilinear" }));
      const sum = { ...lateral, cells: lateral.cells.add_(raised.cells) };
      const smooth = this.#output.forward(sum);
      return { ...smooth, cells: pointwise(F.relu(smooth.cells), this.#maskFeature) };
    });
  }
}

/** A convolution and a group norm. */
class Projection extends nn.Module {
  readonly #conv: nn.Conv2d;
  readonly #norm: nn.GroupNorm;
  readonly #kernel: number;

  constructor(inputs: number, outputs: number, kernel: number, bias: boolean) {
    super();
    this.#kernel = kernel;
    this.#conv = this.register("conv", new nn.Conv2d(inputs, outputs, kernel, { padding: (kernel - 1) / 2, bias }));
    this.#norm = this.register("norm", new nn.GroupNorm(GROUPS, outputs));
  }

  forward(map: CellMap): CellMap {
    return scope(() => {
      const x = { ...map, cells: map.cells.float() };
      const y =
        this.#kernel === 1
          ? { ...x, cells: pointwise(x.cells, this.#conv) }
          : asCells(this.#conv.forward(asPicture(x)));
      return asCells(this.#norm.forward(asPicture(y)));
    });
  }
}

/** A convolution of single cells, as the matrix product that it is. */
function pointwise(cells: Tensor, { weight, bias }: nn.Conv2d): Tensor {
  return F.linear(cells, weight.view(weight.size(0), weight.size(1)), bias);
}

/** Post-norm: deformable self-attention, then a feed-forward layer. Positions are added to the queries alone. */
class EncoderLayer extends nn.Module {
  readonly #heads: number;
  readonly #offsets: Linear;
  readonly #weights: Linear;
  readonly #value: Linear;
  readonly #out: Linear;
  readonly #norm1: nn.LayerNorm;
  readonly #fc1: Linear;
  readonly #fc2: Linear;
  readonly #norm2: nn.LayerNorm;

  constructor(D: number, heads: number, hidden: number) {
    super();
    this.#heads = heads;
    this.#offsets = this.register("sampling_offsets", new Linear(D, heads * LEVELS * POINTS * 2));
    this.#weights = this.register("attention_weights", new Linear(D, heads * LEVELS * POINTS));
    this.#value = this.register("value_proj", new Linear(D, D));
    this.#out = this.register("output_proj", new Linear(D, D));
    this.#norm1 = this.register("norm1", new nn.LayerNorm(D));
    this.#fc1 = this.register("fc1", new Linear(D, hidden));
    this.#fc2 = this.register("fc2", new Linear(hidden, D));
    this.#norm2 = this.register("norm2", new nn.LayerNorm(D));
  }

  /** (B, S, D), (S, D) → (B, S, D) */
  forward(x: Tensor, position: Tensor, plan: SamplingPlan): Tensor {
    return scope(() => {
      const [B, S] = x.shape as [number, number, number];
      const attended = scope(() => {
        const query = x.add(position);
        const offsets = this.#offsets.forward(query).view(B, S, this.#heads, LEVELS, POINTS, 2);
        const logits = this.#weights.forward(query).view(B, S, this.#heads, LEVELS * POINTS);
        const weights = F.softmax(logits, -1).view(B, S, this.#heads, LEVELS, POINTS);
        return sample(plan, this.#value.forward(x), offsets, weights);
      });
      const y = this.#norm1.forward(this.#out.forward(attended, { add: x }));
      return this.#norm2.forward(this.#fc2.forward(this.#fc1.forward(y, "relu"), { add: y }));
    });
  }
}
