/**
 * A critic that learns to tell pictures from their reconstructions, so that a decoder learns to draw crisply what its
 * latents leave open: the mean of all that an edge could be is soft, and no picture looks like it.
 *
 * The critic C gives each patch of a picture a number. It is relativistic (Jolicoeur-Martineau 2018): what counts is
 * the difference between a picture x and its own reconstruction x̂, patch by patch, so that patches that agree, such as
 * flat backgrounds, say nothing. The penalty R1 (Mescheder et al. 2018) keeps it smooth.
 *
 *   critic    mean softplus(C(x̂) − C(x)) + ½ · PENALTY · |∂ mean C(x) / ∂x|²
 *   decoder   mean softplus(C(x) − C(x̂))
 */
import { aten, grad, nn, noGrad, type Tensor } from "@miro-t2i/torch";

const { silu } = nn.functional;

const PENALTY = 0.1;

/** Pictures (B, 3, H, W) in [-1, 1] → (B, 1, ⌊H/8⌋, ⌊W/8⌋), each for 40 × 40 pixels. Sides are at least 8. */
export class PatchCritic extends nn.Module {
  readonly #layers: nn.ModuleList<nn.Conv2d>;

  constructor() {
    super();
    const halving = { stride: 2, padding: 1 };
    const layers = [
      new nn.Conv2d(3, 16, 3, { padding: 1 }),
      new nn.Conv2d(16, 32, 4, halving),
      new nn.Conv2d(32, 64, 4, halving),
      new nn.Conv2d(64, 128, 4, halving),
      new nn.Conv2d(128, 1, 3, { padding: 1 }),
    ];
    for (const { weight, bias } of layers) {
      nn.init.kaimingNormal_(weight);
      nn.init.zeros_(bias!);
    }
    this.#layers = this.register("layers", new nn.ModuleList(layers));
  }

  forward(pictures: Tensor): Tensor {
    const [first, ...others] = this.#layers.items;
    return others.reduce((h, layer) => layer.forward(silu(h)), first!.forward(pictures));
  }

  /** The critic's loss; see the top. Nothing of it reaches what made the reconstruction. x̂ and x (B, 3, H, W). */
  loss(reconstruction: Tensor, x: Tensor): Tensor {
    const real = x.detach().requiresGrad_();
    const judged = this.forward(real);
    const told = aten.softplus(this.forward(reconstruction.detach()).sub(judged)).mean();
    const slope = grad(judged.mean([1, 2, 3]).sum(), real, { createGraph: true })[0]!;
    return told.add(
      slope
        .square()
        .sum([1, 2, 3])
        .mean()
        .mul(PENALTY / 2),
    );
  }

  /** The gradient of the decoder's loss, see the top, with respect to the reconstruction. Shapes as there. */
  slope(reconstruction: Tensor, x: Tensor): Tensor {
    const real = noGrad(() => this.forward(x));
    const leaf = reconstruction.detach().requiresGrad_();
    return grad(aten.softplus(real.sub(this.forward(leaf))).mean(), leaf)[0]!;
  }
}
