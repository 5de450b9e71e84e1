/**
 * Access to a folder made by `make_reference.py`, and the measure of agreement with it.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { readSafetensors, scope, type Tensor } from "@miro-t2i/torch";

/** The committed recording, unless the environment variable `MIRO_REFERENCE` names another folder. */
export const referenceFolder = process.env.MIRO_REFERENCE ?? fileURLToPath(new URL("./fixtures/tiny", import.meta.url));

export interface Reference {
  folder: string;
  /** `reference.json` */
  // biome-ignore lint/suspicious/noExplicitAny: free-form
  info: any;
  tensors: Map<string, Tensor>;
  /** A tensor of the recording. @throws when it is missing */
  get(key: string): Tensor;
  /** The weights of the release checkpoint that begin with a prefix, without it. */
  checkpoint(prefix: string): Map<string, Tensor>;
  /** `config.json` of the release checkpoint. */
  config: Record<string, Record<string, unknown>>;
  /** Constructor arguments of a variant of the network, and its weights by the names of its state dict; null when not recorded. */
  variant(name: string): { config: unknown; weights(names: Iterable<string>): Map<string, Tensor> } | null;
}

const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));

export function loadReference(folder = referenceFolder): Reference {
  const tensors = readSafetensors(path.join(folder, "reference.safetensors"));
  const weights = readSafetensors(path.join(folder, "checkpoint", "model.safetensors"));
  const checkpoint = (prefix: string) =>
    new Map([...weights].filter(([key]) => key.startsWith(prefix)).map(([key, t]) => [key.slice(prefix.length), t]));
  return {
    folder,
    info: json(path.join(folder, "reference.json")),
    tensors,
    get(key) {
      const found = tensors.get(key);
      if (found === undefined) throw new Error(`${folder}: no tensor ${key}`);
      return found;
    },
    checkpoint,
    config: json(path.join(folder, "checkpoint", "config.json")),
    variant(name) {
      const at = path.join(folder, "variants", name);
      if (!existsSync(at)) return null;
      // A compact recording stores what differs from the checkpoint in name or shape.
      const own = readSafetensors(path.join(at, "network.safetensors"));
      const shared = checkpoint("network.");
      const find = (name: string) => own.get(name) ?? shared.get(name);
      return {
        config: json(path.join(at, "network.json")),
        weights: (names) => new Map([...names].flatMap((name) => (find(name) ? [[name, find(name)!] as const] : []))),
      };
    },
  };
}

/** The largest difference relative to the largest magnitude: max |actual − expected| / max |expected|. NaN where only one has NaN. */
export function relativeError(actual: Tensor, expected: Tensor): number {
  return scope(() => {
    if (String(actual.shape) !== String(expected.shape)) return Number.NaN;
    const [a, e] = [actual.detach().double(), expected.double()];
    const scale = e.abs().max().item();
    const difference = a.sub(e).abs().max().item();
    return scale === 0 ? difference : difference / scale;
  });
}

/** The values of a flattened tensor that a compact recording keeps of it. */
export function thinned(full: Tensor, kept: Tensor): Tensor {
  const flat = full.detach().flatten();
  if (flat.numel === kept.numel) return flat;
  const stride = Math.ceil(flat.numel / 128);
  return flat.slice(0, 0, null, stride);
}
