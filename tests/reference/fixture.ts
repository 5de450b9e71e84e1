/**
 * Access to a folder made by `make_reference.py`, and the measure of agreement with it.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";

/** The root of the repository, found upward from here (this file's source or its output in dist/). */
export function repositoryRoot(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(folder, "package-lock.json"))) {
    if (path.dirname(folder) === folder) throw new Error("not inside the repository");
    folder = path.dirname(folder);
  }
  return folder;
}

/** Where a size's recording is looked for: the committed one for tiny, else what was recorded into .cache. */
export function referenceFolder(size = "tiny"): string {
  const base = size === "tiny" ? ["tests", "reference", "fixtures"] : [".cache", "reference"];
  return path.join(repositoryRoot(), ...base, size);
}

/** Where a recording of the scorers is looked for: the committed one for tiny, else what was recorded into .cache. */
export function scorerFolder(size = "tiny"): string {
  const base = size === "tiny" ? ["tests", "reference", "fixtures"] : [".cache", "reference"];
  return path.join(repositoryRoot(), ...base, size === "tiny" ? "scorers" : `scorers-${size}`);
}

/** What reference.json says of a training run. */
export interface RecordedTraining {
  reweighted: boolean;
  steps: number;
  self_cond_rate: number;
  cond_drop_rate: number;
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  warmup_steps: number;
  total_steps: number;
  clip: number;
  ema_decay: number;
}

/** What reference.json says of a call of the pipeline. */
export interface RecordedRun {
  seed: number;
  steps: number;
  guidance_scale: number;
  num_images_per_prompt?: number;
  reward_targets?: Record<string, number>;
  negative_reward_targets?: Record<string, number>;
}

/** `reference.json` */
export interface RecordedInfo {
  size: string;
  seed: number;
  torch: string;
  miro?: string;
  prompts: string[];
  parameters: number;
  untruncated_ids: number[][];
  runs: Record<string, RecordedRun>;
  train?: RecordedTraining;
  train_reweighted?: RecordedTraining;
  /** How many values of each gradient and trained weight were kept; absent when all were. */
  compact?: number;
}

/** A recording. Its tensors are mapped from the file and live until `close()`. */
export interface Reference {
  folder: string;
  info: RecordedInfo;
  tensors: Map<string, Tensor>;
  /** A tensor of the recording. @throws when it is missing */
  get(key: string): Tensor;
  /** Everything recorded under a prefix, by the rest of its name. */
  under(prefix: string): Map<string, Tensor>;
  /** The weights of the release checkpoint that begin with a prefix, without it. */
  checkpoint(prefix: string): Map<string, Tensor>;
  /** `config.json` of the release checkpoint. */
  config: Record<string, Record<string, unknown>>;
  /**
   * Constructor arguments of a variant of the network, and its weights by the names of its state dict; null when not
   * recorded.
   */
  variant(name: string): { config: unknown; weights(names: Iterable<string>): Map<string, Tensor> } | null;
  close(): void;
}

const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));

/** @param device where the tensors of the recording are to lie; on the CPU they stay mapped from the file */
export function loadReference(folder = referenceFolder(), device = "cpu"): Reference {
  const placed = (file: string) => {
    const all = readSafetensors(file);
    if (device === "cpu") return all;
    return new Map([...all].map(([name, t]) => [name, scope(() => t.to({ device }).keep())]));
  };
  const tensors = placed(path.join(folder, "reference.safetensors"));
  const weights = readSafetensors(path.join(folder, "checkpoint", "model.safetensors"));
  const variantWeights: Map<string, Tensor>[] = [];
  const under = (all: Map<string, Tensor>, prefix: string) =>
    new Map([...all].filter(([key]) => key.startsWith(prefix)).map(([key, t]) => [key.slice(prefix.length), t]));
  const checkpoint = (prefix: string) => under(weights, prefix);
  return {
    folder,
    info: json(path.join(folder, "reference.json")),
    tensors,
    get(key) {
      const found = tensors.get(key);
      if (found === undefined) throw new Error(`${folder}: no tensor ${key}`);
      return found;
    },
    under: (prefix) => under(tensors, prefix),
    checkpoint,
    config: json(path.join(folder, "checkpoint", "config.json")),
    variant(name) {
      const at = path.join(folder, "variants", name);
      if (!existsSync(at)) return null;
      // A compact recording stores what differs from the checkpoint in name or shape.
      const own = readSafetensors(path.join(at, "network.safetensors"));
      variantWeights.push(own);
      const shared = checkpoint("network.");
      const find = (name: string) => own.get(name) ?? shared.get(name);
      return {
        config: json(path.join(at, "network.json")),
        weights: (names) => new Map([...names].flatMap((name) => (find(name) ? [[name, find(name)!] as const] : []))),
      };
    },
    close() {
      for (const all of [tensors, weights, ...variantWeights]) for (const t of all.values()) t.dispose();
    },
  };
}

/**
 * max |actual − expected| / max |expected|: the largest error of a tensor as a part of its largest value. Elementwise
 * relative error would divide by values that cancellation made nearly zero; a norm would hide one wrong value among
 * many. Another shape, or a NaN in one of the two, is an infinite error.
 */
export function relativeError(actual: Tensor, expected: Tensor): number {
  if (String(actual.shape) !== String(expected.shape)) return Number.POSITIVE_INFINITY;
  return scope(() => {
    const [a, e] = [actual.detach().cpu().double(), expected.cpu().double()];
    const scale = e.abs().max().item();
    const difference = a.sub(e).abs().max().item();
    if (Number.isNaN(difference)) return Number.POSITIVE_INFINITY;
    return difference === 0 ? 0 : difference / scale;
  });
}

/**
 * The values of a tensor that a recording kept of it: all, or of a large one in a compact recording every k-th.
 * @returns the shape of `kept`
 */
export function thinned(full: Tensor, kept: Tensor, { compact }: Pick<RecordedInfo, "compact">): Tensor {
  if (compact === undefined || full.numel <= compact) return full.reshape(...kept.shape);
  return full.flatten().slice(0, 0, null, Math.ceil(full.numel / compact));
}
