/** Models of an evaluation: loaded when they are needed, one at a time in memory. */
import type { MiroPipeline } from "../../../pipeline/pipeline.js";
import type { ColourClassifier } from "../colours.js";
import type { Detector } from "../detection.js";

/** How models are loaded. */
export interface ResourceLoaders {
  /** Absent where pictures are only judged. */
  pipeline?: (() => Promise<MiroPipeline>) | undefined;
  detector(): Promise<Detector>;
  colours(): Promise<ColourClassifier>;
}

interface Loaded {
  pipeline: MiroPipeline;
  detector: Detector;
  colours: ColourClassifier;
}

/** Holds at most one model. */
export class Resources implements AsyncDisposable {
  readonly #loaders: ResourceLoaders;
  #held: { kind: keyof Loaded; model: Loaded[keyof Loaded] } | null = null;

  constructor(loaders: ResourceLoaders) {
    this.#loaders = loaders;
  }

  /** A model, which stays until another is asked for. */
  async get<K extends keyof Loaded>(kind: K): Promise<Loaded[K]> {
    if (this.#held?.kind !== kind) {
      await this.dispose();
      const load = this.#loaders[kind] as () => Promise<Loaded[K]>;
      this.#held = { kind, model: await load() };
    }
    return this.#held!.model as Loaded[K];
  }

  /** Frees what is held. */
  async dispose(): Promise<void> {
    const model = this.#held?.model;
    this.#held = null;
    await model?.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
