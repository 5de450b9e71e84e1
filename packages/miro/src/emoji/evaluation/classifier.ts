/**
 * A small convolutional network that names the emoji in a picture: the classifier of the retrieval test.
 *
 * It sees 64 × 64 pixels and is trained on rendered scenes alone, never on drawings of a model that it judges.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { nn, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { InvalidInputError, invalid } from "../../errors.js";
import { CLASSIFIER_SIZE } from "../scenes/scene-options.js";
import { PictureTower } from "../scorer/picture-tower.js";

const { interpolate } = nn.functional;

/** `config.json` of a classifier's folder. */
export interface EmojiClassifierConfig {
  /** Names of the classes, in the order of the outputs. */
  labels: string[];
}

export class EmojiClassifier extends nn.Module {
  readonly #tower: PictureTower;
  readonly #head: nn.Linear;

  constructor(readonly config: EmojiClassifierConfig) {
    super();
    this.#tower = this.register("tower", new PictureTower());
    this.#head = this.register("head", new nn.Linear(this.#tower.channels, config.labels.length));
  }

  /** @throws MiroError naming the file that is missing */
  static configOf(folder: string): EmojiClassifierConfig {
    const path = join(folder, "config.json");
    if (!existsSync(path)) {
      throw new InvalidInputError(`${path}: no such file; make a classifier with: miro train emoji-classifier`);
    }
    return JSON.parse(readFileSync(path, "utf8")) as EmojiClassifierConfig;
  }

  /** @throws MiroError naming the file that is missing or broken */
  static fromPretrained(folder: string): EmojiClassifier {
    const config = EmojiClassifier.configOf(folder);
    return scope(() => {
      const model = nn.init.skipped(() => new EmojiClassifier(config));
      model.loadStateDict(readSafetensors(join(folder, "model.safetensors")));
      return model.requiresGrad_(false).eval() as EmojiClassifier;
    });
  }

  /** (B, 3, 64, 64) in [-1, 1] → logits (B, labels) */
  forward(x: Tensor): Tensor {
    return this.#head.forward(this.#tower.forward(x).mean([2, 3]));
  }

  /** Class indices of square pictures (B, 3, S, S) in [-1, 1], the five most likely first. */
  classify(pictures: Tensor): number[][] {
    return noGrad(() =>
      scope(() => {
        const { indices } = this.#look(pictures).topk(5, 1);
        return (indices.toList() as (number | bigint)[][]).map((row) => row.map(Number));
      }),
    );
  }

  /** How likely each of square pictures (B, 3, S, S) in [-1, 1] shows `label`, and whether nothing is likelier. */
  judge(pictures: Tensor, label: string): { probability: number; first: boolean }[] {
    const index = this.config.labels.indexOf(label);
    if (index < 0) throw invalid("label", "one that the classifier knows", label);
    return noGrad(() =>
      scope(() => {
        const probabilities = nn.functional.softmax(this.#look(pictures), 1);
        const first = (probabilities.argmax(1).toList() as (number | bigint)[]).map(Number);
        const asked = probabilities.select(1, index).toList() as number[];
        return asked.map((probability, i) => ({ probability, first: first[i] === index }));
      }),
    );
  }

  /** Logarithms of the probabilities of all labels for each of square pictures (B, 3, S, S) in [-1, 1]. */
  logProbabilities(pictures: Tensor): Float32Array[] {
    return noGrad(() =>
      scope(() => {
        const values = nn.functional.logSoftmax(this.#look(pictures), 1).data() as Float32Array;
        const n = this.config.labels.length;
        return Array.from({ length: values.length / n }, (_, i) => values.slice(i * n, (i + 1) * n));
      }),
    );
  }

  /** Logits of pictures of any side, wherever they lie. */
  #look(pictures: Tensor): Tensor {
    // Where the pictures lie: CUDA's filter refuses those that are reduced by much, for want of shared memory.
    const small =
      pictures.shape[2] === CLASSIFIER_SIZE
        ? pictures
        : interpolate(pictures, { size: CLASSIFIER_SIZE, mode: "bilinear", antialias: true });
    return this.forward(small.clamp(-1, 1).to({ device: this.#head.weight.device }));
  }
}
