/**
 * The vision transformer of EVA-02 (Fang et al. 2023), as EVA-CLIP's L/14 has it: pre-norm blocks with a second norm
 * inside attention and inside the SwiGLU, and rotary positions by row and column beside the learned ones.
 *
 *   x ← x + out(ln(attn(ln₁ x))),  x ← x + w₃ ln(SiLU(w₁ h) ⊙ w₂ h) with h = ln₂ x
 *
 * Shapes: B pictures, T tokens, C of which go on, W width, H heads, K width of a head.
 * In the state dict q, k and v are one matrix, and so are w₂ and w₁. Heads of q and k have the channels that are
 * rotated together in two halves, where EVA-CLIP has them side by side.
 */
import { cat, empty, F, nn, scope, type Tensor, zerosLike } from "@miro-t2i/torch";
import { atOnce, type ByLayer } from "./by-layer.js";
import { Linear } from "./linear.js";
import { frequencies, type Rotation, rotate, rotationOf } from "./rotary.js";

/** The shape of a tower. */
export interface Eva02Config {
  /** Of the states. */
  width: number;
  /** Blocks. */
  layers: number;
  /** Of attention; must divide the width. */
  heads: number;
  /** Width of the feed-forward layers. */
  hidden: number;
  /** Pictures of `image` pixels on a side are cut into patches of `patch`; what is left over is not seen. */
  image: number;
  patch: number;
  /** Patches on a side whose rotary positions the grid is stretched to. */
  reference: number;
  /** Of the norms. */
  eps: number;
}

const ROTARY_BASE = 10_000;

/** Patches on a side. */
function gridOf({ image, patch }: Eva02Config): number {
  return Math.floor(image / patch);
}

/** Pictures to features. */
export class Eva02 extends nn.Module {
  /** Its shape. */
  readonly config: Eva02Config;
  readonly #class: Tensor;
  readonly #positions: Tensor;
  readonly #proj: nn.Conv2d;
  readonly #blocks: nn.ModuleList<Block>;
  readonly #norm: nn.LayerNorm;
  readonly #angles: readonly Float64Array[];

  /** @param coordinate how a rotary coordinate is rounded; default: not at all */
  constructor(config: Eva02Config, coordinate: (value: number) => number = (value) => value) {
    super();
    const { width: W, patch, layers, eps } = config;
    this.config = config;
    this.#angles = angles(config, coordinate);
    this.#class = this.parameter("cls_token", nn.init.normal_(empty([1, 1, W]), 0, 0.02));
    const tokens = gridOf(config) ** 2 + 1;
    this.#positions = this.parameter("pos_embed", nn.init.normal_(empty([1, tokens, W]), 0, 0.02));
    this.#proj = this.register("patch_embed", new nn.Conv2d(3, W, patch, { stride: patch }));
    this.#blocks = this.register("blocks", new nn.ModuleList(Array.from({ length: layers }, () => new Block(config))));
    this.#norm = this.register("norm", new nn.LayerNorm(W, { eps }));
  }

  /** Normalised pixels (B, 3, S, S) → features (B, W) in float32, not of unit length */
  forward(pixels: Tensor): Tensor {
    return atOnce(this.forwardByLayer(pixels));
  }

  /** As {@link forward}, with stops. */
  *forwardByLayer(pixels: Tensor): ByLayer<Tensor> {
    const rotation = rotationOf(this.#angles, pixels.device);
    let x_BTW = this.#embed(pixels);
    for (const [i, block] of [...this.#blocks].entries()) {
      yield [x_BTW, ...Object.values(rotation)];
      x_BTW = block.forward(x_BTW, rotation, i === this.config.layers - 1 ? 1 : x_BTW.size(1));
    }
    const { normalizedShape, weight, bias, eps } = this.#norm;
    return F.layerNorm(x_BTW.select(1, 0).float(), normalizedShape, weight!.float(), bias!.float(), eps);
  }

  /** Class token and patches, with their positions: (B, T, W) */
  #embed(pixels: Tensor): Tensor {
    return scope(() => {
      const patches_BTW = this.#proj
        .forward(pixels.to({ dtype: this.#class.dtype }))
        .flatten(2)
        .transpose(1, 2);
      return cat([this.#class.expand(pixels.size(0), 1, -1), patches_BTW], 1).add(this.#positions);
    });
  }
}

/** Of each token: a quarter of a head's channels is turned by the row, a quarter by the column. */
function angles(config: Eva02Config, coordinate: (value: number) => number): Float64Array[] {
  const { width, heads, reference } = config;
  const grid = gridOf(config);
  const frequency = frequencies(ROTARY_BASE, width / heads / 4);
  const at = Array.from({ length: grid }, (_, i) => coordinate((i / grid) * reference));
  const rows = at.flatMap((row) =>
    at.map((column) => Float64Array.from([...frequency.map((f) => row * f), ...frequency.map((f) => column * f)])),
  );
  return [new Float64Array(2 * frequency.length), ...rows];
}

class Block extends nn.Module {
  readonly #norm1: nn.LayerNorm;
  readonly #attn: Attention;
  readonly #norm2: nn.LayerNorm;
  readonly #mlp: SwiGlu;

  constructor(config: Eva02Config) {
    super();
    const { width, eps } = config;
    this.#norm1 = this.register("norm1", new nn.LayerNorm(width, { eps }));
    this.#attn = this.register("attn", new Attention(config));
    this.#norm2 = this.register("norm2", new nn.LayerNorm(width, { eps }));
    this.#mlp = this.register("mlp", new SwiGlu(config));
  }

  /** (B, T, W) → the first `count` tokens, (B, C, W): of the last block only the class token is wanted. */
  forward(x: Tensor, rotation: Rotation, count: number): Tensor {
    return scope(() => {
      const residual = x.narrow(1, 0, count);
      const attended = scope(() => this.#attn.forward(this.#norm1.forward(x), rotation, residual));
      return this.#mlp.forward(this.#norm2.forward(attended), attended);
    });
  }
}

class Attention extends nn.Module {
  readonly #heads: number;
  /** Rows of q, k and v. */
  readonly #weight: Tensor;
  /** k has none. */
  readonly #qBias: Tensor;
  readonly #vBias: Tensor;
  readonly #norm: nn.LayerNorm;
  readonly #proj: Linear;

  constructor({ width: W, heads, eps }: Eva02Config) {
    super();
    this.#heads = heads;
    this.#weight = this.parameter("qkv_weight", nn.init.normal_(empty([3 * W, W]), 0, W ** -0.5));
    this.#qBias = this.parameter("q_bias", empty([W]).zero_());
    this.#vBias = this.parameter("v_bias", empty([W]).zero_());
    this.#norm = this.register("inner_attn_ln", new nn.LayerNorm(W, { eps }));
    this.#proj = this.register("proj", new Linear(W, W));
  }

  /** (B, T, W) → residual + attention of the C tokens that the residual has, (B, C, W) */
  forward(x: Tensor, rotation: Rotation, residual: Tensor): Tensor {
    const [B, T, W] = x.shape as [number, number, number];
    const bias = cat([this.#qBias, zerosLike(this.#qBias), this.#vBias]);
    const qkv_BT3HK = F.linear(x, this.#weight, bias).view(B, T, 3, this.#heads, W / this.#heads);
    // Attention reads a head's rows faster where they stand one behind the other.
    const [q_BHTK, k_BHTK, v_BHTK] = qkv_BT3HK.permute(2, 0, 3, 1, 4).contiguous().unbind(0) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const count = residual.size(1);
    const attended_BHCK = F.scaledDotProductAttention(
      rotate(q_BHTK, rotation).narrow(2, 0, count),
      rotate(k_BHTK, rotation),
      v_BHTK,
    );
    const attended_BCW = attended_BHCK.transpose(1, 2).reshape(B, count, W);
    return this.#proj.forward(this.#norm.forward(attended_BCW), { add: residual.contiguous() });
  }
}

class SwiGlu extends nn.Module {
  /** Rows of w₂, the value, and of w₁, the gate. */
  readonly #packed: Linear;
  readonly #norm: nn.LayerNorm;
  readonly #out: Linear;

  constructor({ width, hidden, eps }: Eva02Config) {
    super();
    this.#packed = this.register("w21", new Linear(width, 2 * hidden, { parts: 2 }));
    this.#norm = this.register("ffn_ln", new nn.LayerNorm(hidden, { eps }));
    this.#out = this.register("w3", new Linear(hidden, width));
  }

  /** (B, T, W) → residual + feed-forward, (B, T, W) */
  forward(x: Tensor, residual: Tensor): Tensor {
    return this.#out.forward(this.#norm.forward(this.#packed.gated(x)), { add: residual });
  }
}
