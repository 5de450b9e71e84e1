/**
 * Training of the small CLIP that scores whether a picture shows what its caption says (emoji/scorer/emoji-clip.ts).
 *
 * The text encoder is the bundled model's, frozen; the export has a copy of it, so that the scorer does not change when
 * the model gets another. Each picture of a batch has its caption and two captions that are wrong about it in one way
 * each: another object always, and something else (background, size, number, relation). The loss is that of
 * matching.ts.
 *
 * Pictures get noise of a random strength, for a tolerance of what generated pictures have and renders have not.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { cat, nn, noGrad, rand, randnLike, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { invalid } from "../../errors.js";
import { areaUnderCurve } from "../../evaluation/statistics.js";
import { copyPart } from "../../pipeline/loading/copy-part.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import type { Task, TaskContext } from "../../training/loop/tasks.js";
import { SceneRandom } from "../scenes/random.js";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";
import { WRONG_WAYS, type WrongWay, wrongWays } from "../scenes/wrong-captions.js";
import { EmojiClip, textEncoderHash } from "../scorer/emoji-clip.js";
import { writeHalf } from "./autoencoder.js";
import { MatchingLoss } from "./matching.js";
import type { ClipRecipe } from "./recipes.js";

/** Index of the first scene that is kept for evaluation; training starts at 0. */
const UNSEEN = 2 ** 31;
const CHUNK = 64;

/** The training of a recipe; see the top. */
export async function buildClip(recipe: ClipRecipe, context: TaskContext): Promise<Task> {
  const { trainer, textEncoder } = recipe;
  const { device } = trainer;
  const scenes = await EmojiScenes.load({ ...recipe.scenes, wrongCaption: 0, rewardUnset: 0 });
  const tokenizer = await Tokenizer.fromFile(textEncoder);
  const text = await T5Encoder.fromPretrained(textEncoder, { device });
  text.requiresGrad_(false).eval();
  context.seedInitialWeights();
  const network = clipNetwork(recipe, text.config.dModel, textEncoderHash(textEncoder));
  const { clip } = network;

  const read = (start: number, count: number) => {
    const { pixels, scenes: described } = scenes.batch(start, count);
    return { pictures: tensor(pixels, { shape: [count, 3, scenes.size, scenes.size], device }), described };
  };
  const embed = (captions: readonly string[]) => {
    const encoded = tokenizer.encodeBatch(captions, { maxLength: recipe.maxTextLen, padTo: "longest" });
    const [ids, mask] = [encoded.ids.to({ device }), encoded.mask.to({ device })];
    return clip.embedTexts(
      noGrad(() => text.forward(ids, mask)),
      mask,
    );
  };
  return {
    network,
    loss(step) {
      const B = trainer.batchSize;
      const { pictures, described } = read(step * B, B);
      const noisy = pictures.add(randnLike(pictures).mul(rand([B, 1, 1, 1], { device }).mul(recipe.noise)));
      const captions = embed([
        ...described.map((scene) => scene.trueCaption),
        ...described.map((scene) => scenes.wrongCaption(scene, "object")),
        ...described.map((scene) => scenes.wrongCaption(scene, secondWay(scene, recipe.seed))),
      ]);
      return network.matching.forward(clip.embedPictures(noisy), captions);
    },
    evaluate: () =>
      measureClip(scenes, recipe.evaluatedScenes, (pixels) => clip.embedPictures(pixels.to({ device })), embed),
    async export(folder, figures) {
      const config = {
        ...clip.config,
        cosine_of_other: round(figures.cosine_of_other!),
        cosine_of_true: round(figures.cosine_of_true!),
      };
      writeFileSync(join(folder, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
      await copyPart(textEncoder, join(folder, "text_encoder"));
      const parameters = scope(() => writeHalf(join(folder, "model.safetensors"), clip));
      writeFileSync(join(folder, "training.json"), `${JSON.stringify({ recipe, figures, parameters }, null, 2)}\n`);
    },
    dispose: () => text.dispose(),
  };
}

/**
 * The network of a recipe.
 * @param textDim width of the text encoder's states @param textSha256 hash of its weights
 */
export function clipNetwork({ scenes, network, maxTextLen }: ClipRecipe, textDim: number, textSha256: string) {
  if (scenes.size % 16 !== 0) throw invalid("scenes.size", "a multiple of 16", scenes.size);
  return new ContrastiveClip(
    new EmojiClip({
      image_size: scenes.size,
      tower_widths: network.towerWidths,
      text_dim: textDim,
      text_heads: network.textHeads,
      text_hidden: network.textHidden,
      shared_dim: network.sharedDim,
      max_text_len: maxTextLen,
      text_encoder_sha256: textSha256,
    }),
  );
}

/** Any way to be wrong but another object: the second wrong caption of a scene. */
function secondWay(scene: Scene, seed: number): WrongWay {
  const ways = wrongWays(scene).filter((way) => way !== "object" && way !== "scene");
  return new SceneRandom(seed, scene.index, WRONG_WAYS.length).pick(ways);
}

/**
 * Figures over scenes that training never sees: how often a picture finds its caption among all of them; for each way
 * to be wrong how often the true caption scores higher, and the area under the ROC curve of all true against all wrong
 * captions; the mean cosines of true captions and of captions of other scenes.
 *
 * @param embedPictures (B, 3, S, S) in [-1, 1] → unit vectors
 */
export function measureClip(
  scenes: EmojiScenes,
  count: number,
  embedPictures: (pixels: Tensor) => Tensor,
  embedTexts: (captions: readonly string[]) => Tensor,
): Record<string, number> {
  const S = scenes.size;
  return noGrad(() =>
    scope(() => {
      const pictures: Tensor[] = [];
      const described: Scene[] = [];
      for (let start = 0; start < count; start += CHUNK) {
        const n = Math.min(CHUNK, count - start);
        const part = scenes.batch(UNSEEN + start, n);
        pictures.push(embedPictures(tensor(part.pixels, { shape: [n, 3, S, S] })));
        described.push(...part.scenes);
      }
      const embedAll = (captions: readonly string[]) =>
        cat(
          Array.from({ length: Math.ceil(captions.length / CHUNK) }, (_, i) =>
            embedTexts(captions.slice(i * CHUNK, (i + 1) * CHUNK)),
          ),
          0,
        );
      const I = cat(pictures, 0);
      const T = embedAll(described.map((scene) => scene.trueCaption));
      const own = tensor(
        BigInt64Array.from({ length: count }, (_, i) => BigInt(i)),
        { device: I.device },
      );
      const right = I.mul(T).sum(1).toList() as number[];
      const figures: Record<string, number> = {
        [`retrieval_of_${count}`]: I.matmul(T.t()).argmax(1).eq(own).float().mean().item(),
        cosine_of_true: right.reduce((a, b) => a + b, 0) / count,
      };
      const wrongs: number[] = [];
      for (const way of WRONG_WAYS) {
        const rows = described.flatMap((scene, i) => (wrongWays(scene).includes(way) ? [i] : []));
        if (rows.length === 0) continue;
        const texts = embedAll(rows.map((i) => scenes.wrongCaption(described[i]!, way)));
        const cosines = I.indexSelect(0, tensor(BigInt64Array.from(rows, BigInt), { device: I.device }))
          .mul(texts)
          .sum(1)
          .toList() as number[];
        figures[`${way}_told`] = rows.filter((i, k) => right[i]! > cosines[k]!).length / rows.length;
        if (way === "scene") figures.cosine_of_other = cosines.reduce((a, b) => a + b, 0) / rows.length;
        wrongs.push(...cosines);
      }
      figures.auc = areaUnderCurve(right, wrongs);
      return figures;
    }),
  );
}

function round(value: number): number {
  return Number(value.toPrecision(6));
}

/** The CLIP with what only training needs. */
class ContrastiveClip extends nn.Module {
  readonly matching: MatchingLoss;

  constructor(readonly clip: EmojiClip) {
    super();
    this.register("clip", clip);
    this.matching = this.register("matching", new MatchingLoss());
  }
}
