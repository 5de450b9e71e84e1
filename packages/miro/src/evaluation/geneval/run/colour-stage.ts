/** Colours of the objects whose prompts give one, kept beside the detections. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "../../../files/sha256.js";
import { readBytes } from "../../../files/whole-files.js";
import { decodeImage } from "../../../pictures/decode.js";
import type { SharedWork } from "../../shared-work.js";
import type { Colour } from "../metadata.js";
import { keepBest, type Rules } from "../rules.js";
import { nameOf } from "./detect.js";
import type { PromptFolder } from "./image-folder.js";
import { maskOf, promptFilePath, readPromptFile, writePromptFile } from "./prompt-files.js";
import type { Resources } from "./resources.js";

/** Whose colours are classified. */
export interface ColourRun {
  images: string;
  output: string;
  prompts: readonly PromptFolder[];
  rules: Rules;
  /** What decides the colours beside pictures, detections and rules. */
  key: string;
  signal?: AbortSignal | undefined;
  onPrompt?: ((done: number, total: number) => void) | undefined;
}

/** The work for one folder. */
export class ColourStage {
  readonly #run: ColourRun;
  /** Prompts that give a colour. */
  readonly #prompts: readonly PromptFolder[];
  readonly #complete = new Set<number>();

  constructor(run: ColourRun) {
    this.#run = run;
    this.#prompts = run.prompts.filter(({ metadata }) => metadata.include.some(({ color }) => color !== undefined));
  }

  /** Whether the colours of a prompt have been recognised for the detections as they are now. */
  isComplete(index: number): boolean {
    if (this.#complete.has(index)) return true;
    const key = this.#keyOf(index);
    if (key === null || readPromptFile(this.#run.output, "colours", index)?.key !== key) return false;
    this.#complete.add(index);
    return true;
  }

  /** Prompts whose objects were found and whose colours are not classified. */
  missing(): number[] {
    return this.#prompts
      .filter(({ index }) => !this.isComplete(index) && this.#keyOf(index) !== null)
      .map(({ index }) => index);
  }

  /** Classifies what no other process has taken, until nothing is left to take. */
  async classifyMissing(resources: Resources, work: SharedWork): Promise<void> {
    let open = this.missing();
    for (;;) {
      this.#run.signal?.throwIfAborted();
      const [index] = await work.take("colours", open, (index) => this.isComplete(index), 1);
      if (index === undefined) return;
      open = open.filter((other) => other !== index);
      await this.#classify(this.#prompts.find((prompt) => prompt.index === index)!, resources);
      this.#run.onPrompt?.(this.#prompts.length - open.length, this.#prompts.length);
    }
  }

  #keyOf(index: number): string | null {
    try {
      const detections = sha256(readFileSync(promptFilePath(this.#run.output, "detections", index)));
      return JSON.stringify({ colours: this.#run.key, rules: this.#run.rules, detections });
    } catch {
      return null; // not looked at yet
    }
  }

  async #classify({ index, metadata, samples }: PromptFolder, resources: Resources): Promise<void> {
    const { images, output, rules, signal } = this.#run;
    const key = this.#keyOf(index)!;
    const file = readPromptFile(output, "detections", index);
    const pictures: Record<string, Record<string, Colour[]>> = {};
    const path = promptFilePath(output, "detections", index);
    for (const sample of samples) {
      const found = file?.pictures[nameOf(sample.path)];
      if (found === undefined || found.error !== undefined) continue;
      const classified: Record<string, Colour[]> = {};
      for (const { class: name, count, color } of metadata.include) {
        if (color === undefined) continue;
        const own = found.detections.filter((one) => one.class === name);
        const best = keepBest(own, metadata.tag, rules).slice(0, count);
        if (best.length < count || (classified[name]?.length ?? 0) >= count) continue;
        const objects = best.map((one) => ({ box: one.box, mask: maskOf(one, found, path) }));
        const image = await decodeImage(readBytes(join(images, sample.path)), { orient: true });
        const classifier = await resources.get("colours");
        const answers = await classifier.classify(image, objects, name, { signal });
        classified[name] = answers.map(({ colour }) => colour);
      }
      pictures[nameOf(sample.path)] = classified;
    }
    writePromptFile(output, "colours", index, { key, pictures });
    this.#complete.add(index);
  }
}
