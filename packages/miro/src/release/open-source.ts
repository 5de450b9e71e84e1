/** Finds out what a path is: a run, a checkpoint of the published code, a folder with one, or a release. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError } from "../errors.js";
import { about, message } from "../message.js";
import { isRun } from "../pipeline/loading/run-checkpoint.js";
import { TORCH_FILE } from "../training/state/published-checkpoint.js";
import type { EmaChoice } from "./ema-choice.js";
import { openCkpt } from "./open-ckpt.js";
import { isReleaseFolder, openFolder } from "./open-folder.js";
import { openRun } from "./open-run.js";
import type { ReleaseSource } from "./source.js";

/** Which weights of a path. */
export interface OpenSourceOptions {
  ema?: EmaChoice | undefined;
  step?: number | undefined;
  uncondEmbedding?: string | undefined;
  /** Told of damaged checkpoints of a run that are passed over. */
  onMessage?: ((message: string) => void) | undefined;
}

/** Opens it; the caller disposes of it. @throws InvalidInputError when it is none of them */
export function openSource(path: string, options: OpenSourceOptions = {}): ReleaseSource {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new InvalidInputError(`${path}: no such file or directory`);
  const refuse = (options: object, what: string): void => {
    const [name] = Object.entries(options).find(([, value]) => value !== undefined) ?? [];
    if (name !== undefined) throw new InvalidInputError(message`${about(name)}: does not apply to ${what} (${path})`);
  };
  const { step, onMessage: _, ...ofCkpt } = options;
  if (!stat.isDirectory()) {
    if (!TORCH_FILE.test(path))
      throw new InvalidInputError(
        `${path}: expected a run of miro train, a training checkpoint of the published code (.ckpt) or a release folder`,
      );
    refuse({ step }, "a file");
    return openCkpt(path, ofCkpt);
  }
  if (isRun(path)) return openRun(path, options);
  if (isReleaseFolder(path)) {
    refuse({ step, ema: options.ema }, "a release, which has one set of weights");
    refuse({ uncondEmbedding: options.uncondEmbedding }, "a release, which has its own uncond_embedding.npy");
    return openFolder(path);
  }
  const last = join(path, "last.ckpt");
  if (existsSync(last)) {
    refuse({ step }, "a folder with last.ckpt; name another .ckpt file in it");
    return openCkpt(last, ofCkpt);
  }
  throw new InvalidInputError(
    `${path}: holds no checkpoint: neither checkpoints/ of miro train, nor last.ckpt, nor a release (config.json, model.safetensors, uncond_embedding.npy)`,
  );
}
