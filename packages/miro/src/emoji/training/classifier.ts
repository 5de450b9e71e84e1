/**
 * Training of the classifier of the retrieval test: cross entropy over single emoji on all backgrounds, some of them
 * damaged.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { nn, noGrad, rand, randnLike, scope, tensor } from "@miro-t2i/torch";
import type { Task, TaskContext } from "../../training/loop/tasks.js";
import { EmojiClassifier } from "../evaluation/classifier.js";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";
import { writeHalf } from "./autoencoder.js";
import type { ClassifierRecipe } from "./recipes.js";

const UNSEEN = 2 ** 31;

/** The training of a recipe; see the top. */
export async function buildClassifier(recipe: ClassifierRecipe, context: TaskContext): Promise<Task> {
  const { trainer } = recipe;
  const { device } = trainer;
  const scenes = await EmojiScenes.load(recipe.scenes);
  const clean = await EmojiScenes.load({ ...recipe.scenes, degraded: 0, kinds: { one: 1 } });
  context.seedInitialWeights();
  const labels = scenes.vocabulary.map((entry) => entry.label);
  const network = new EmojiClassifier({ labels });

  const batch = (source: EmojiScenes, start: number, count: number) => {
    const { pixels, scenes: described } = source.batch(start, count);
    const x = tensor(pixels, { shape: [count, 3, scenes.size, scenes.size], device });
    return { x, target: described.map(classOf) };
  };
  return {
    network,
    loss(step) {
      const B = trainer.batchSize;
      const { x, target } = batch(scenes, step * B, B);
      const noisy = x.add(randnLike(x).mul(rand([B, 1, 1, 1], { device }).mul(recipe.noise)));
      const logits = network.forward(noisy);
      const classes = tensor(BigInt64Array.from(target, BigInt), { device });
      const loss = nn.functional.crossEntropy(logits, classes, { labelSmoothing: recipe.labelSmoothing });
      return { loss, figures: { accuracy: logits.argmax(1).eq(classes).float().mean() } };
    },
    evaluate() {
      const count = Math.max(512, 4 * labels.length);
      let [first, five] = [0, 0];
      for (let start = 0; start < count; start += 64) {
        const found = noGrad(() =>
          scope(() => {
            const { x, target } = batch(clean, UNSEEN + start, 64);
            return network.classify(x).map((classes, i) => classes.indexOf(target[i]!));
          }),
        );
        first += found.filter((rank) => rank === 0).length;
        five += found.filter((rank) => rank >= 0).length;
      }
      const total = Math.ceil(count / 64) * 64;
      return { top1: first / total, top5: five / total };
    },
    export(folder, figures) {
      writeFileSync(join(folder, "config.json"), `${JSON.stringify(network.config, null, 2)}\n`);
      scope(() => writeHalf(join(folder, "model.safetensors"), network));
      writeFileSync(join(folder, "training.json"), `${JSON.stringify({ recipe, figures }, null, 2)}\n`);
    },
  };
}

function classOf(scene: Scene): number {
  return scene.objects[0]!.entryIndex;
}
