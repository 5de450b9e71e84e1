/**
 * The convolutional network that looks at small pictures: part of the classifier of the retrieval test and of the emoji
 * CLIP.
 */
import { nn, type Tensor } from "@miro-t2i/torch";

const { relu } = nn.functional;
const DEFAULT_WIDTHS = [32, 64, 128, 192];
const GROUPS = 8;

/**
 * (B, 3, S, S) in [-1, 1] → features (B, channels, S/16, S/16) with the default of four stages, each of which halves
 * the sides
 */
export class PictureTower extends nn.Module {
  /** Channels of the features. */
  readonly channels: number;
  readonly #stages: nn.ModuleList<Stage>;

  /** @param widths channels of the stages, multiples of 8 */
  constructor(widths: readonly number[] = DEFAULT_WIDTHS) {
    super();
    this.channels = widths.at(-1)!;
    const stages = widths.map((width, i) => new Stage(i === 0 ? 3 : widths[i - 1]!, width));
    this.#stages = this.register("stages", new nn.ModuleList(stages));
  }

  forward(x: Tensor): Tensor {
    let h = x;
    for (const stage of this.#stages.items) h = stage.forward(h);
    return h;
  }
}

/** Half the resolution, then a residual block. */
class Stage extends nn.Module {
  readonly #down: nn.Conv2d;
  readonly #norm1: nn.GroupNorm;
  readonly #conv1: nn.Conv2d;
  readonly #norm2: nn.GroupNorm;
  readonly #conv2: nn.Conv2d;
  readonly #norm3: nn.GroupNorm;

  constructor(dimIn: number, dim: number) {
    super();
    const norm = () => new nn.GroupNorm(GROUPS, dim);
    const conv = () => new nn.Conv2d(dim, dim, 3, { padding: 1, bias: false });
    this.#down = this.register("down", new nn.Conv2d(dimIn, dim, 4, { stride: 2, padding: 1, bias: false }));
    this.#norm1 = this.register("norm1", norm());
    this.#conv1 = this.register("conv1", conv());
    this.#norm2 = this.register("norm2", norm());
    this.#conv2 = this.register("conv2", conv());
    this.#norm3 = this.register("norm3", norm());
  }

  forward(x: Tensor): Tensor {
    const h = relu(this.#norm1.forward(this.#down.forward(x)));
    const inner = relu(this.#norm2.forward(this.#conv1.forward(h)));
    return relu(h.add(this.#norm3.forward(this.#conv2.forward(inner))));
  }
}
