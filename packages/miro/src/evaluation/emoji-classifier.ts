/**
 * A small convolutional network that names the emoji in a picture: the judge of the retrieval test.
 *
 * It sees 64 × 64 pixels and is trained on rendered scenes alone, never on drawings of a model that it judges.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { nn, noGrad, readSafetensors, scope, type Tensor } from "@miro-t2i/torch";
import { MiroError } from "../errors.js";

const { interpolate, relu } = nn.functional;

/** Side of the pictures that the classifier looks at. */
export const CLASSIFIER_SIZE = 64;
const WIDTHS = [32, 64, 128, 192];
const GROUPS = 8;

/** `config.json` of a classifier's folder. */
export interface EmojiClassifierConfig {
  /** Names of the classes, in the order of the outputs. */
  labels: string[];
}

export class EmojiClassifier extends nn.Module {
  private readonly tower: PictureTower;
  private readonly head: nn.Linear;

  constructor(readonly config: EmojiClassifierConfig) {
    super();
    this.tower = this.register("tower", new PictureTower());
    this.head = this.register("head", new nn.Linear(this.tower.channels, config.labels.length));
  }

  /** @throws MiroError naming the file that is missing or broken */
  static fromPretrained(folder: string): EmojiClassifier {
    const path = join(folder, "config.json");
    if (!existsSync(path)) {
      throw new MiroError(`${path}: no such file; make a classifier with: miro train recipes/emoji-classifier.yaml`);
    }
    const config: EmojiClassifierConfig = JSON.parse(readFileSync(path, "utf8"));
    return scope(() => {
      const model = nn.init.skipped(() => new EmojiClassifier(config));
      model.loadStateDict(readSafetensors(join(folder, "model.safetensors")));
      return model.requiresGrad_(false).eval() as EmojiClassifier;
    });
  }

  /** (B, 3, 64, 64) in [-1, 1] → logits (B, labels) */
  forward(x: Tensor): Tensor {
    return this.head.forward(this.tower.forward(x).mean([2, 3]));
  }

  /** Class indices of square pictures (B, 3, S, S) in [-1, 1], the five most likely first. */
  classify(pictures: Tensor): number[][] {
    return noGrad(() =>
      scope(() => {
        const small =
          pictures.shape[2] === CLASSIFIER_SIZE
            ? pictures
            : interpolate(pictures, { size: CLASSIFIER_SIZE, mode: "bilinear", antialias: true });
        const { indices } = this.forward(small.clamp(-1, 1)).topk(5, 1);
        return (indices.toList() as (number | bigint)[][]).map((row) => row.map(Number));
      }),
    );
  }
}

/** (B, 3, S, S) in [-1, 1] → features (B, channels, S/16, S/16) */
export class PictureTower extends nn.Module {
  readonly channels = WIDTHS.at(-1)!;
  private readonly stages: nn.ModuleList<Stage>;

  constructor() {
    super();
    const stages = WIDTHS.map((width, i) => new Stage(i === 0 ? 3 : WIDTHS[i - 1]!, width));
    this.stages = this.register("stages", new nn.ModuleList(stages));
  }

  forward(x: Tensor): Tensor {
    let h = x;
    for (const stage of this.stages.items) h = stage.forward(h);
    return h;
  }
}

/** Half the resolution, then a residual block. */
class Stage extends nn.Module {
  private readonly down: nn.Conv2d;
  private readonly norm1: nn.GroupNorm;
  private readonly conv1: nn.Conv2d;
  private readonly norm2: nn.GroupNorm;
  private readonly conv2: nn.Conv2d;
  private readonly norm3: nn.GroupNorm;

  constructor(dimIn: number, dim: number) {
    super();
    const norm = () => new nn.GroupNorm(GROUPS, dim);
    const conv = () => new nn.Conv2d(dim, dim, 3, { padding: 1, bias: false });
    this.down = this.register("down", new nn.Conv2d(dimIn, dim, 4, { stride: 2, padding: 1, bias: false }));
    this.norm1 = this.register("norm1", norm());
    this.conv1 = this.register("conv1", conv());
    this.norm2 = this.register("norm2", norm());
    this.conv2 = this.register("conv2", conv());
    this.norm3 = this.register("norm3", norm());
  }

  forward(x: Tensor): Tensor {
    const h = relu(this.norm1.forward(this.down.forward(x)));
    const inner = relu(this.norm2.forward(this.conv1.forward(h)));
    return relu(h.add(this.norm3.forward(this.conv2.forward(inner))));
  }
}
