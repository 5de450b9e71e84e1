/**
 * What the things of a caption look like, read off the text encoder's states by a linear map. Trained beside the
 * matching of captions with pictures and thrown away with it: states from which a thing's looks follow linearly spare
 * the diffusion network from learning every name by heart, since one way of reading them serves all names. Needs
 * captions alone, no rendered scenes.
 *
 *   a[s,r,t] = softmax over tokens t of (q[s,r] · h[t])      s: first or second thing named, r: one of R reads
 *   looks[s] = W · concat over r of Σt a[s,r,t] h[t] + b
 */
import { cat, nn, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { PlacedObject } from "../scenes/render.js";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";

/** Side of a portrait in pixels. */
const SIDE = 32;
const VALUES = 3 * SIDE * SIDE;
/** A caption names at most this many things. */
const THINGS = 2;
const READS = 4;
/** Initial deviation of the reads' queries: near-uniform attention. */
const QUERY_STD = 0.02;

export class AppearanceHead extends nn.Module {
  /** (things · reads, D) */
  readonly #queries: Tensor;
  readonly #portrait: nn.Linear;

  /** @param textDim D, width of the text encoder's states */
  constructor(textDim: number) {
    super();
    this.#queries = this.parameter("queries", randn([THINGS * READS, textDim]).mul(QUERY_STD));
    this.#portrait = this.register("portrait", new nn.Linear(READS * textDim, VALUES));
  }

  /**
   * @param states (B, T, D) of the text encoder
   * @param mask (B, T) bool, true on tokens
   * @returns (B, 2, 3 · 32 · 32): normalised portraits of the first and the second thing that each caption names
   */
  forward(states: Tensor, mask: Tensor): Tensor {
    const scores = states
      .matmul(this.#queries.t())
      .maskedFill(mask.logicalNot().unsqueeze(2), Number.NEGATIVE_INFINITY);
    const read = nn.functional.softmax(scores, 1).transpose(1, 2).matmul(states);
    return this.#portrait.forward(read.reshape([states.size(0), THINGS, -1]));
  }
}

/** Portraits of a vocabulary's things, drawn when they are first asked for and kept. */
export class Portraits {
  readonly #kept = new Map<string, Float32Array>();
  /** Mean portrait of the vocabulary in its own colours. */
  readonly #mean = new Float32Array(VALUES);
  readonly #deviation: number;
  readonly #scenes: EmojiScenes;

  private constructor(scenes: EmojiScenes) {
    this.#scenes = scenes;
    const plain = scenes.vocabulary.map((_, entryIndex) => this.#draw(entryIndex, null));
    for (const picture of plain)
      picture.forEach((value, i) => {
        this.#mean[i]! += value / plain.length;
      });
    let squares = 0;
    for (const picture of plain)
      picture.forEach((value, i) => {
        squares += (value - this.#mean[i]!) ** 2;
      });
    this.#deviation = Math.sqrt(squares / (plain.length * VALUES));
  }

  static async load(vocabulary: EmojiScenes["options"]["vocabulary"]): Promise<Portraits> {
    return new Portraits(await EmojiScenes.load({ vocabulary, size: SIDE }));
  }

  /**
   * Mean squared error of predicted portraits in units of the portraits' variance: 1 for the mean portrait, 0 for
   * perfect ones.
   * @param predicted (B, 2, 3 · 32 · 32), see {@link AppearanceHead}
   * @param scenes the B scenes that the captions describe
   */
  unexplained(predicted: Tensor, scenes: readonly Scene[]): Tensor {
    const named = scenes.map(thingsNamed);
    const errors = Array.from({ length: THINGS }, (_, s) => {
      const rows = named.flatMap((things, row) => (s < things.length ? [row] : []));
      if (rows.length === 0) return null;
      const target = new Float32Array(rows.length * VALUES);
      rows.forEach((row, i) => {
        target.set(this.#of(named[row]![s]!), i * VALUES);
      });
      const { device } = predicted;
      const difference = predicted
        .select(1, s)
        .indexSelect(0, tensor(BigInt64Array.from(rows, BigInt), { device }))
        .sub(tensor(target, { shape: [rows.length, VALUES], device }));
      return difference.square().mean(1);
    });
    return cat(
      errors.filter((error) => error !== null),
      0,
    ).mean();
  }

  /**
   * How often a predicted portrait is nearest to the right one of all things of the vocabulary, which a look at the
   * mean error does not tell: of captions that name one thing, and of the first and the second of two. Tinted things
   * are passed over.
   * @param predicted (B, 2, 3 · 32 · 32), see {@link AppearanceHead}
   * @param scenes the B scenes that the captions describe
   */
  found(predicted: Tensor, scenes: readonly Scene[]): Record<"one_found" | "first_found" | "second_found", number> {
    const kinds = this.#scenes.vocabulary.length;
    const all = new Float32Array(kinds * VALUES);
    for (let entryIndex = 0; entryIndex < kinds; entryIndex++)
      all.set(this.#of({ entryIndex, tint: null }), entryIndex * VALUES);
    const nearest = scope(() => {
      const portraits = tensor(all, { shape: [kinds, VALUES], device: predicted.device });
      // ‖p − t‖² without ‖p‖², which is the same for all.
      const distance = portraits.square().sum(1).sub(predicted.matmul(portraits.t()).mul(2));
      return distance.argmin(-1).toList() as number[][];
    });
    const [one, first, second]: boolean[][] = [[], [], []];
    scenes.forEach((scene, row) => {
      thingsNamed(scene).forEach(({ entryIndex, tint }, s) => {
        if (tint !== null) return;
        const right = Number(nearest[row]![s]) === entryIndex;
        (scene.kind !== "pair" ? one! : s === 0 ? first! : second!).push(right);
      });
    });
    const share = (found: boolean[]) => found.filter(Boolean).length / found.length;
    return { one_found: share(one!), first_found: share(first!), second_found: share(second!) };
  }

  /** The normalised portrait of a thing as the caption names it: its own colours, or tinted. */
  #of({ entryIndex, tint }: Pick<PlacedObject, "entryIndex" | "tint">): Float32Array {
    const key = `${entryIndex} ${tint}`;
    let portrait = this.#kept.get(key);
    if (portrait === undefined) {
      portrait = this.#draw(entryIndex, tint).map((value, i) => (value - this.#mean[i]!) / this.#deviation);
      this.#kept.set(key, portrait);
    }
    return portrait;
  }

  #draw(entryIndex: number, tint: PlacedObject["tint"]): Float32Array {
    const out = new Float32Array(VALUES);
    this.#scenes.renderPortrait(entryIndex, tint, out);
    return out;
  }
}

/** The things that a caption names, in its order. */
function thingsNamed({ kind, objects }: Scene): readonly PlacedObject[] {
  return objects.slice(0, kind === "pair" ? THINGS : 1);
}
