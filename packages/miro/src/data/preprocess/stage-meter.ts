/** How far a stage is: counts of samples as rates and remaining times. */
import type { PreprocessProgress, Stage } from "./options.js";

/** Turns counts into rates and remaining times. */
export class StageMeter {
  #shard = "";
  #index = 0;
  #begun = performance.now();
  /** When the first shard began of which samples were computed; those that are there already take no time. */
  #started = 0;
  /** Shards before this one of which samples were computed. */
  #worked = 0;
  #hasSamples = false;
  readonly #stage: Stage;
  readonly #stageIndex: number;
  readonly #stageCount: number;
  readonly #shardCount: number;
  readonly #report: ((progress: PreprocessProgress) => void) | undefined;

  constructor(
    stage: Stage,
    stageIndex: number,
    stageCount: number,
    shardCount: number,
    report: ((progress: PreprocessProgress) => void) | undefined,
  ) {
    this.#stage = stage;
    this.#stageIndex = stageIndex;
    this.#stageCount = stageCount;
    this.#shardCount = shardCount;
    this.#report = report;
  }

  begin(shard: string, index: number): void {
    this.#shard = shard;
    this.#index = index;
    this.#begun = performance.now();
    if (this.#hasSamples) this.#worked++;
    this.#hasSamples = false;
    if (this.#worked === 0) this.#started = this.#begun;
  }

  sample(done: number, total: number): void {
    this.#hasSamples = true;
    if (!this.#report) return;
    const seconds = (performance.now() - this.#begun) / 1000;
    const all = (performance.now() - this.#started) / 1000;
    const secondsAShard = all / (this.#worked + done / total);
    const stagesLeft = this.#stageCount - this.#stageIndex - 1;
    this.#report({
      stage: this.#stage,
      shard: this.#shard,
      shardIndex: this.#index,
      shardCount: this.#shardCount,
      done,
      total,
      rate: done / Math.max(seconds, 1e-3),
      shardSeconds: (seconds / done) * (total - done),
      // Stages that are still to come are not known; they are taken to be as long as this one.
      totalSeconds: secondsAShard * (this.#shardCount * (1 + stagesLeft) - this.#index - done / total),
    });
  }
}
