/**
 * What scores are made with, as an output records it: a run that goes on takes over those alone that it would compute
 * by the same model.
 */
import { sha256 } from "../files/sha256.js";
import { orAborted } from "../pipeline/interruption.js";
import { awake, hashWeights } from "../pipeline/loading/identity.js";
import { scorerSpec, scorerVersion, weightKeys } from "./registry.js";
import type { ScoreModel } from "./score-output.js";
import type { LoadedScorer, LoadScorerOptions, ScorerSpec } from "./scorer.js";

export class ScoreModels {
  readonly #options: LoadScorerOptions;
  /** Of the weights that were given as folders, by scorer key. */
  readonly #hashes = new Map<string, string>();

  constructor(options: LoadScorerOptions) {
    this.#options = options;
  }

  /** Hashes the folders given in place of published weights. @throws the signal's reason when it is aborted */
  async hash(specs: readonly ScorerSpec[]): Promise<void> {
    for (const spec of specs) {
      const hashes: string[] = [];
      for (const source of this.#given(spec)) {
        const hash = await awake(orAborted(hashWeights(source), this.#options.signal));
        if (hash !== null) hashes.push(hash);
      }
      if (hashes.length > 0) this.#hashes.set(spec.key, hashes.length === 1 ? hashes[0]! : sha256(hashes.join()));
    }
  }

  /** What a loaded scorer makes its scores with. */
  of({ key, name, dtype }: LoadedScorer): ScoreModel {
    const { precision } = this.#options;
    const given = this.#given(scorerSpec(key));
    const hash = this.#hashes.get(key);
    const version = scorerVersion(key);
    return {
      name,
      ...(dtype && { dtype }),
      ...(dtype && precision === "upstream" && { precision }),
      ...(given.length > 0 && { weights: given.join(" + ") }),
      ...(hash && { sha256: hash }),
      ...(version && { version }),
    };
  }

  /** Whether a score that was recorded is the one that would be computed. */
  wouldMake(model: ScoreModel | undefined, spec: ScorerSpec): boolean {
    if (model === undefined) return false;
    const { dtype = "auto", precision } = this.#options;
    return (
      model.name === (spec.modelName?.(this.#options) ?? spec.name) &&
      (model.dtype === undefined || dtype === "auto" || precision === "upstream" || model.dtype === dtype) &&
      (model.dtype === undefined || (model.precision === "upstream") === (precision === "upstream")) &&
      (model.weights ?? "") === this.#given(spec).join(" + ") &&
      model.sha256 === this.#hashes.get(spec.key) &&
      model.version === scorerVersion(spec.key)
    );
  }

  /** Folders and repositories that were given in place of a scorer's published weights. */
  #given(spec: ScorerSpec): string[] {
    return [...new Set(weightKeys(spec).flatMap((key) => this.#options.weights?.[key] ?? []))];
  }
}
