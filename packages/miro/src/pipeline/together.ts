/**
 * Which pictures can be computed in one batch without changing a bit of any of them.
 *
 * Every operator computes the rows of a batch each by itself, but a library may choose another kernel for a larger
 * batch, which adds in another order. The choice follows shapes, never values. So one evaluation on noise shows how all
 * evaluations of those shapes round: where each row of a batch equals, bit for bit, what it is alone, pictures of
 * these shapes are drawn together, elsewhere alone.
 */
import { cat, full, getNumThreads, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import type { Predict } from "../flow/guidance.js";
import { release } from "../flow/release.js";
import type { Conditioning } from "../networks/conditioning.js";
import type { Branches, TextStates } from "./conditioning.js";
import { breathe } from "./interruption.js";
import { noiseOf } from "./noise.js";

/** A signal level in the middle of the way. */
const GAMMA = 0.5;

/** What {@link Together.leading} works with. */
export interface LeadingOptions {
  /** Most pictures of a batch. */
  limit: number;
  /** The texts of a picture's branches. */
  textsOf: (row: number) => readonly TextStates[];
  /** The conditioning of some pictures, which is freed here. */
  condition: (rows: readonly number[]) => Branches;
  signal: AbortSignal | undefined;
}

/** What is known of the batches of one network. */
export class Together {
  readonly #predict: Predict<Conditioning>;
  readonly #latentShape: readonly number[];
  /** Whether pictures of some shapes are the same together as alone. */
  readonly #same = new Map<string, boolean>();

  constructor(predict: Predict<Conditioning>, latentShape: readonly number[]) {
    this.#predict = predict;
    this.#latentShape = latentShape;
  }

  /** How many of the first of `rows` can be drawn together: 1, 2, 4, 8 … */
  async leading(rows: readonly number[], { limit, textsOf, condition, signal }: LeadingOptions): Promise<number> {
    // Padding to the longest text of a batch changes shapes.
    const shapes = rows.slice(0, limit).map((row) => shapeOf(textsOf(row)));
    const unlike = shapes.findIndex((shape) => shape === null || shape !== shapes[0]);
    const alike = unlike < 0 ? shapes.length : Math.max(1, unlike);
    for (let count = 2 ** Math.floor(Math.log2(alike)); count > 1; count /= 2) {
      const key = `${shapes[0]} ${count} ${getNumThreads()}`;
      const some = rows.slice(0, count);
      if (!this.#same.has(key)) this.#same.set(key, await this.#compare(some, condition, signal));
      if (this.#same.get(key)) return count;
    }
    return 1;
  }

  /** Whether an evaluation of some pictures gives each what it gives it alone. */
  async #compare(
    rows: readonly number[],
    condition: LeadingOptions["condition"],
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const count = rows.length;
    const noise = noiseOf([...rows.keys()], this.#latentShape)();
    let whole: Evaluated[] = [];
    try {
      whole = this.#evaluate(condition(rows), noise);
      for (const [i, row] of rows.entries()) {
        await breathe(signal);
        const alone = this.#evaluate(condition([row]), noise.narrow(0, i, 1));
        try {
          const same = whole.every((one, kind) => sameRow(one, alone[kind]!, i, count));
          if (!same) return false;
        } finally {
          release(alone);
        }
      }
      return true;
    } finally {
      release([whole, noise]);
    }
  }

  /** Evaluations of all kinds that a run has: of both branches, of one; without latents of an earlier one, and with. */
  #evaluate(branches: Branches, noise: Tensor): Evaluated[] {
    try {
      return scope(() =>
        noGrad(() =>
          [branches.both, branches.conditional]
            .filter((conditioning) => conditioning !== null)
            .flatMap((conditioning) => {
              const y = conditioning === branches.both ? cat([noise, noise], 0) : noise;
              const gamma = full([y.size(0)], GAMMA, { dtype: "float32", device: y.device });
              const first = this.#predict(y, gamma, conditioning, null);
              return [first, this.#predict(y, gamma, conditioning, first.z)];
            }),
        ),
      );
    } finally {
      release(branches);
    }
  }
}

type Evaluated = ReturnType<Predict<Conditioning>>;

/** Whether picture `i` of `count` is, in all its rows, what it is alone. */
function sameRow(whole: Evaluated, alone: Evaluated, i: number, count: number): boolean {
  return (["D", "z"] as const).every((name) => {
    const [many, few] = [whole[name], alone[name]];
    if (many === null || few === null) return many === few;
    return scope(() =>
      Array.from({ length: few.size(0) }, (_, branch) => branch).every(
        (branch) =>
          many
            .narrow(0, branch * count + i, 1)
            .eq(few.narrow(0, branch, 1))
            .all()
            .item() === 1,
      ),
    );
  });
}

/** The shapes of texts, as a text; null for those with masks of their own, which may be of any shape. */
function shapeOf(texts: readonly TextStates[]): string | null {
  if (texts.some(({ mask }) => mask !== undefined)) return null;
  return texts.map(({ embeddings, length }) => `${embeddings.size(0)}/${length ?? ""}`).join(" ");
}
