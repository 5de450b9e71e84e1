/**
 * What a stage's results follow from besides the source: a restart takes a finished shard for its own where these are
 * the same. Models are told by digests of their files.
 */
import { join } from "node:path";
import { isFolder } from "../../files/make-folder.js";
import { sha256 } from "../../files/sha256.js";
import { scorerVersion, weightKeys } from "../../rewards/registry.js";
import type { ScorerSpec } from "../../rewards/scorer.js";
import { type LatentFolders, sidesOf } from "./latent-models.js";
import { modelFingerprint } from "./model-fingerprint.js";
import type { ResolvedOptions } from "./options.js";
import { judgedText } from "./score-stage.js";
import { loadingOptions } from "./stage-scorers.js";
import type { SyntheticTable } from "./synthetic-captions.js";

/** The settings of the latents stage, for its manifests. */
export function latentSettings(options: ResolvedOptions, folders: LatentFolders, table: SyntheticTable | null) {
  const { textMaxLength, embeddingsName, missingScores, device, dtype, batchSize } = options;
  return {
    sides: sidesOf(options),
    vae: folders.vae === null ? null : modelFingerprint(folders.vae),
    textEncoder: folders.textEncoder === null ? null : modelFingerprint(folders.textEncoder),
    ...(folders.textEncoder === null ? {} : { textMaxLength, embeddingsName }),
    ...captionSettings(options, table),
    missingScores,
    // The last bits of what is computed depend on these.
    device: device.replace(/:\d+$/, ""),
    dtype,
    ...(device === "cpu" ? {} : { batchSize }),
  };
}

/** The settings of a stage that scores, for its manifests. */
export function scoreSettings(options: ResolvedOptions, specs: readonly ScorerSpec[], table: SyntheticTable | null) {
  return {
    scorers: Object.fromEntries(
      specs.map((spec) => {
        const { key, usesText } = spec;
        const synthetic = usesText && options.synthetic ? { synthetic: judgedText(spec, options.syntheticText) } : {};
        return [key, { ...scorerSettings(spec, options), ...synthetic }];
      }),
    ),
    ...captionSettings(options, table),
    device: options.device.replace(/:\d+$/, ""),
  };
}

function captionSettings({ synthetic, maxPixels, exifOrientation }: ResolvedOptions, table: SyntheticTable | null) {
  return { synthetic: synthetic ? (table?.fingerprint() ?? "json") : "none", maxPixels, exifOrientation };
}

/** What decides a scorer's values besides picture and caption. */
function scorerSettings(spec: ScorerSpec, options: ResolvedOptions): Record<string, unknown> {
  const { key, name, onRequest } = spec;
  const version = scorerVersion(key);
  if (!onRequest) return { name, ...(version && { version }) };
  const { dtype, precision, weights, hpsLetterbox } = options;
  const used = weightKeys(spec).filter((one) => Object.hasOwn(weights, one));
  return {
    name: spec.modelName?.(loadingOptions(options)) ?? name,
    ...(version && { version }),
    dtype,
    ...(precision !== "default" && { precision }),
    weights: Object.fromEntries(used.map((one) => [one, fingerprintOf(weights[one]!)])),
    ...(key === "hpsv2_score" && { letterbox: hpsLetterbox }),
  };
}

const WEIGHTS = /\.(?:safetensors|pt|pth|bin)$/;
/** What else of a scorer's folder, or of the folder `tokenizer` in it, decides its values. */
const SIDE_FILES = /(?:config|tokenizer|architecture)\.json$|^(?:merges|vocab)\.txt$|^bpe_.+\.gz$/;

/** A folder by its files, a repository by its name. */
function fingerprintOf(name: string): string {
  if (!isFolder(name)) return name;
  const folders = [name, join(name, "tokenizer")].filter(isFolder);
  return sha256(folders.map((folder) => modelFingerprint(folder, WEIGHTS, SIDE_FILES)).join());
}
