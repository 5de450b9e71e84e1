/**
 * Scorers that fill several columns in one pass, such as a model with several heads. Each column is a scorer of its
 * own; those that are loaded together share one model, which judges a picture with its caption once for all of them.
 */
import { describe, invalid, MiroError } from "../errors.js";
import type { RgbImage } from "../pictures/rgb.js";
import { pictureKey } from "./kept-features.js";
import {
  checkModel,
  isColumn,
  type LoadScorerOptions,
  listedResults,
  type OwnScorer,
  type ScoreCall,
  type ScorerModel,
  type ScorerSpec,
} from "./scorer.js";
import { Shared } from "./shared.js";

/** A model that gives several values for a picture. */
export interface ColumnsModel extends Omit<ScorerModel, "score"> {
  /** As `ScorerModel.score`, with an object for each picture: a number by column. */
  score(
    images: readonly RgbImage[],
    captions: readonly string[],
    options?: ScoreCall,
  ): readonly Readonly<Record<string, number>>[] | Promise<readonly Readonly<Record<string, number>>[]>;
}

/** A scorer that fills several columns. */
export type ColumnsScorer = Omit<OwnScorer, "load" | "columns"> & {
  /** The columns, each a scorer's name: what `--by` takes, and what score files have. The key alone: numbers do. */
  readonly columns: readonly string[];
  /** Reads the model. */
  load(options: LoadScorerOptions): Promise<ColumnsModel>;
};

/** Pictures with captions whose values are kept for the columns that come next. */
const KEPT = 256;

/**
 * The scorers of the columns.
 * @throws InvalidInputError for columns that could not be those of a score file
 */
export function columnScorers({
  key,
  columns,
  load,
  ...facts
}: ColumnsScorer & Omit<ScorerSpec, "load">): ScorerSpec[] {
  if (
    !Array.isArray(columns) ||
    columns.length === 0 ||
    !columns.every(isColumn) ||
    new Set(columns).size < columns.length
  )
    throw invalid(`${key}.columns`, "different names of columns, of lower-case letters, digits and _", columns);
  if (typeof load !== "function") throw invalid(`${key}.load`, "a function that gives the model", load);
  // The key's own column alone is a scorer as any other.
  if (columns.length === 1 && columns[0] === key)
    return [{ ...facts, key, load: load as unknown as ScorerSpec["load"] }];
  const repositories = facts.repositories?.map((one) => ({ givenAs: key, ...one }));
  const shared = new Shared<OnePass>();
  return columns.map((column: string) => ({
    ...facts,
    ...(repositories && { repositories }),
    key: column,
    load: async (options) => {
      const { device, dtype, precision, cacheDir, model, weights, hpsVersion, hpsLetterbox } = options;
      const settings = [device, dtype, precision, cacheDir, model, weights, hpsVersion, hpsLetterbox];
      const make = async () => new OnePass(key, await load(options), facts.usesText);
      const { value, dispose } = await shared.hold(JSON.stringify(settings), make);
      const { name, batchSize, dtype: computed, truncates } = value.model;
      return {
        name,
        batchSize,
        dtype: computed,
        ...(truncates && { truncates: (caption: string) => value.model.truncates!(caption) }),
        score: async (images, captions, call) => {
          const rows = await value.of(images, captions, call);
          return rows.map((row) => row[column]!);
        },
        dispose,
      };
    },
  }));
}

type Row = Readonly<Record<string, number>>;

/** A model whose last values are kept. */
class OnePass {
  readonly #key: string;
  readonly #usesText: boolean;
  readonly model: ColumnsModel;
  /** The one that was used last is the last. */
  readonly #kept = new Map<string, Row>();
  /** The end of the call before: two columns may be asked for at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(key: string, model: ColumnsModel, usesText: boolean) {
    checkModel(key, model);
    this.#key = key;
    this.#usesText = usesText;
    this.model = model;
  }

  /** The values of pictures with their captions. */
  of(images: readonly RgbImage[], captions: readonly string[], call?: ScoreCall): Promise<Row[]> {
    const rows = this.#turn.then(() => this.#of(images, captions, call));
    this.#turn = rows.catch(() => {});
    return rows;
  }

  async #of(images: readonly RgbImage[], captions: readonly string[], call?: ScoreCall): Promise<Row[]> {
    const keys = images.map((image, i) => `${pictureKey(image)} ${this.#usesText ? captions[i] : ""}`);
    const missing = new Map(keys.flatMap((key, i) => (this.#kept.has(key) ? [] : [[key, i] as const])));
    if (missing.size > 0) {
      const places = [...missing.values()];
      const texts = captions.length === 0 ? [] : places.map((i) => captions[i]!);
      const found = await this.model.score(
        places.map((i) => images[i]!),
        texts,
        call,
      );
      const rows = listedResults(this.#key, found, places.length);
      [...missing.keys()].forEach((key, i) => {
        const row = rows[i];
        if (typeof row !== "object" || row === null)
          throw new MiroError(
            `${this.#key}: the scorer returned ${describe(row)} for a picture, not its number in each column`,
          );
        this.#kept.set(key, row as Row);
      });
    }
    const asked = keys.map((key) => {
      const row = this.#kept.get(key)!;
      this.#kept.delete(key);
      this.#kept.set(key, row);
      return row;
    });
    for (const key of this.#kept.keys()) {
      if (this.#kept.size <= KEPT) break;
      this.#kept.delete(key);
    }
    return asked;
  }

  dispose(): void {
    this.model.dispose();
  }
}
