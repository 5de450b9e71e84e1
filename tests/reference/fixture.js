/**
 * Access to a folder made by `make_reference.py`, and the measure of agreement with it.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { scope } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";

/** The root of the repository, found upward from here (this file's source or its output in dist/). */
function repositoryRoot() {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(folder, "package-lock.json"))) {
    if (path.dirname(folder) === folder) throw new Error("not inside the repository");
    folder = path.dirname(folder);
  }
  return folder;
}
/** Where a size's recording is looked for: the committed one for tiny, else what was recorded into .cache. */
export function referenceFolder(size = "tiny") {
  const base = size === "tiny" ? ["tests", "reference", "fixtures"] : [".cache", "reference"];
  return path.join(repositoryRoot(), ...base, size);
}
/** Where a recording of the scorers is looked for: the committed one for tiny, else what was recorded into .cache. */
export function scorerFolder(size = "tiny") {
  const base = size === "tiny" ? ["tests", "reference", "fixtures"] : [".cache", "reference"];
  return path.join(repositoryRoot(), ...base, size === "tiny" ? "scorers" : `scorers-${size}`);
}
const json = (file) => JSON.parse(readFileSync(file, "utf8"));
/** @param device where the tensors of the recording are to lie; on the CPU they stay mapped from the file */
export function loadReference(folder = referenceFolder(), device = "cpu") {
  const placed = (file) => {
    const all = readSafetensors(file);
    if (device === "cpu") return all;
    return new Map([...all].map(([name, t]) => [name, scope(() => t.to({ device }).keep())]));
  };
  const tensors = placed(path.join(folder, "reference.safetensors"));
  const weights = readSafetensors(path.join(folder, "checkpoint", "model.safetensors"));
  const variantWeights = [];
  const under = (all, prefix) =>
    new Map([...all].filter(([key]) => key.startsWith(prefix)).map(([key, t]) => [key.slice(prefix.length), t]));
  const checkpoint = (prefix) => under(weights, prefix);
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
      const find = (name) => own.get(name) ?? shared.get(name);
      return {
        config: json(path.join(at, "network.json")),
        weights: (names) => new Map([...names].flatMap((name) => (find(name) ? [[name, find(name)]] : []))),
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
export function relativeError(actual, expected) {
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
export function thinned(full, kept, { compact }) {
  if (compact === undefined || full.numel <= compact) return full.reshape(...kept.shape);
  return full.flatten().slice(0, 0, null, Math.ceil(full.numel / compact));
}
//# sourceMappingURL=fixture.js.map
