/**
 * Training of the bundled model's text encoder: a small T5 encoder that learns what captions mean by matching them with
 * pictures (matching.ts) and by telling what the named things look like (appearance.ts). Beside its true caption each
 * picture has one that is wrong in a known way (another object, number, relation or background). The loss is that of
 * matching plus, weighted, the unexplained share of the looks.
 *
 * RUN/tokenizer.json is the tokenizer that the run began with.
 *
 * The picture's tower and the predictor are thrown away; the encoder is frozen from then on, as MIRO's is.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cat, nn, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { invalid } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { readJson, writeFileAtomic } from "../../files/whole-files.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { saveTokenizer, type UnigramTokenizerJson } from "../../text/unigram-trainer.js";
import type { Task, TaskContext } from "../../training/loop/tasks.js";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";
import { coreVocabulary } from "../scenes/vocabulary.js";
import { PictureTower } from "../scorer/picture-tower.js";
import { AppearanceHead, Portraits } from "./appearance.js";
import { trainCaptionTokenizer } from "./caption-tokenizer.js";
import { MatchingLoss } from "./matching.js";
import type { TextEncoderRecipe } from "./recipes.js";

/** Indices of scenes that only their captions are read of, and of those that training never sees. */
const WITHOUT_PICTURE = 2 ** 30;
const UNSEEN = 2 ** 31;
const EVALUATED = 512;

/** The training of a recipe; see the top. */
export async function buildTextEncoder(recipe: TextEncoderRecipe, context: TaskContext): Promise<Task> {
  const { trainer } = recipe;
  const { device } = trainer;
  // Every caption is drawn twice: true, and wrong in some respect.
  const scenes = await EmojiScenes.load({ ...recipe.scenes, wrongCaption: 1, rewardUnset: 0 });
  const tokenizerJson = runTokenizer(context, () =>
    trainCaptionTokenizer(corpus(scenes, recipe.tokenizer.captions), recipe.tokenizer.vocabSize),
  );
  const tokenizer = Tokenizer.fromJson(tokenizerJson);
  context.seedInitialWeights();
  const network = textEncoderNetwork(recipe, tokenizer.vocabSize);
  const portraits = await Portraits.load(recipe.scenes.vocabulary);

  const read = (start: number, count: number) => {
    const batch = scenes.batch(start, count);
    return {
      scenes: batch.scenes,
      pictures: tensor(batch.pixels, { shape: [count, 3, scenes.size, scenes.size], device }),
      captions: batch.scenes.map((scene) => scene.trueCaption),
      wrong: batch.captions,
    };
  };
  const encode = (captions: readonly string[]) => {
    const encoded = tokenizer.encodeBatch(captions, { maxLength: recipe.maxTextLen, padTo: "longest" });
    const [ids, mask] = [encoded.ids.to({ device }), encoded.mask.to({ device })];
    return { states: network.text.forward(ids, mask), mask };
  };
  return {
    network,
    loss(step) {
      const B = trainer.batchSize;
      const { scenes: pictured, pictures, captions, wrong } = read(step * B, B);
      const { weight, captions: more } = recipe.appearance;
      const described = Array.from({ length: more }, (_, i) => scenes.describe(WITHOUT_PICTURE + step * more + i));
      // The true captions of the pictures, in the middle, serve both terms of the loss.
      const { states, mask } = encode([...described.map((scene) => scene.trueCaption), ...captions, ...wrong]);
      const embedded = network.embedStates(states.narrow(0, more, 2 * B), mask.narrow(0, more, 2 * B));
      const matching = network.matching.forward(network.embedPictures(pictures), embedded);
      const looks = network.appearance.forward(states.narrow(0, 0, more + B), mask.narrow(0, 0, more + B));
      const appearance = portraits.unexplained(looks, [...described, ...pictured]);
      return {
        loss: matching.loss.add(appearance.mul(weight)),
        figures: { ...matching.figures, matching: matching.loss, appearance },
      };
    },
    evaluate() {
      return noGrad(() =>
        scope(() => {
          const [pictures, texts, wrong, looks]: Tensor[][] = [[], [], [], []];
          const unseen: Scene[] = [];
          for (let start = 0; start < EVALUATED; start += 64) {
            const part = read(UNSEEN + start, 64);
            const [right, other] = [encode(part.captions), encode(part.wrong)];
            pictures!.push(network.embedPictures(part.pictures));
            texts!.push(network.embedStates(right.states, right.mask));
            wrong!.push(network.embedStates(other.states, other.mask));
            looks!.push(network.appearance.forward(right.states, right.mask));
            unseen.push(...part.scenes);
          }
          const [I, T, W] = [cat(pictures!, 0), cat(texts!, 0), cat(wrong!, 0)];
          const own = tensor(
            BigInt64Array.from({ length: EVALUATED }, (_, i) => BigInt(i)),
            { device },
          );
          const retrieved = I.matmul(T.t()).argmax(1).eq(own).float().mean().item();
          const told = I.mul(T).sum(1).gt(I.mul(W).sum(1)).float().mean().item();
          const portrayed = cat(looks!, 0);
          return {
            retrieval_of_512: retrieved,
            wrong_caption_told: told,
            appearance_explained: 1 - portraits.unexplained(portrayed, unseen).item(),
            ...portraits.found(portrayed, unseen),
          };
        }),
      );
    },
    async export(folder, figures) {
      makeFolder(folder);
      await network.text.save(folder, { dtype: "float16" });
      await saveTokenizer(folder, tokenizerJson);
      writeFileSync(join(folder, "training.json"), `${JSON.stringify({ recipe, figures }, null, 2)}\n`);
    },
  };
}

/** The network of a recipe. */
export function textEncoderNetwork({ network, sharedDim, scenes }: TextEncoderRecipe, vocabSize: number) {
  if (scenes.size % 16 !== 0) throw invalid("scenes.size", "a multiple of 16", scenes.size);
  return new ContrastiveModel(
    new T5Encoder({ ...network, vocabSize, dropoutRate: 0 }),
    network.dModel,
    sharedDim,
    scenes.size,
  );
}

/**
 * The tokenizer that a run began with, or a new one: a resumed run may read other scenes, but not give words other
 * numbers.
 */
function runTokenizer({ output, onMessage }: TaskContext, train: () => UnigramTokenizerJson): UnigramTokenizerJson {
  const path = join(output, "tokenizer.json");
  if (existsSync(path)) return readJson(path) as UnigramTokenizerJson;
  onMessage("training the tokenizer");
  const trained = train();
  writeFileAtomic(path, `${JSON.stringify(trained)}\n`, { overwrite: true });
  return trained;
}

/**
 * Captions, true and wrong, with their counts; and every name of the core emoji, so that unseen words fall into
 * sensible pieces.
 */
function* corpus(scenes: EmojiScenes, captions: number): Iterable<[string, number]> {
  const counts = new Map<string, number>();
  const add = (text: string, weight: number) => counts.set(text, (counts.get(text) ?? 0) + weight);
  for (let i = 0; i < captions; i++) {
    const { caption, trueCaption } = scenes.describe(i);
    add(trueCaption, 1);
    add(caption, 1);
  }
  for (const { label, aliases, plural } of coreVocabulary())
    for (const name of [label, plural, ...aliases]) add(name, 3);
  yield* counts;
}

/** The text encoder with what trains it. */
class ContrastiveModel extends nn.Module {
  readonly #textProjection: nn.Linear;
  readonly #tower: PictureTower;
  readonly #pictureProjection: nn.Linear;
  readonly appearance: AppearanceHead;
  readonly matching: MatchingLoss;

  constructor(
    readonly text: T5Encoder,
    textDim: number,
    sharedDim: number,
    pictureSize: number,
  ) {
    super();
    this.register("text", text);
    this.#textProjection = this.register("text_projection", new nn.Linear(textDim, sharedDim, { bias: false }));
    this.#tower = this.register("tower", new PictureTower());
    // All places are kept apart, so that left and right can be distinguished.
    const features = this.#tower.channels * (pictureSize / 16) ** 2;
    this.#pictureProjection = this.register("picture_projection", new nn.Linear(features, sharedDim, { bias: false }));
    this.appearance = this.register("appearance", new AppearanceHead(textDim));
    this.matching = this.register("matching", new MatchingLoss());
  }

  /** (B, 3, S, S) → unit vectors (B, shared) */
  embedPictures(x: Tensor): Tensor {
    return nn.functional.normalize(this.#pictureProjection.forward(this.#tower.forward(x).flatten(1)));
  }

  /** States (B, T, D) of tokens under a mask (B, T) → unit vectors (B, shared): their mean, projected. */
  embedStates(states: Tensor, mask: Tensor): Tensor {
    const weights = mask.float().unsqueeze(2);
    const mean = states.mul(weights).sum(1).div(weights.sum(1));
    return nn.functional.normalize(this.#textProjection.forward(mean));
  }
}
