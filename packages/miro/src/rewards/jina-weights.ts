/**
 * jina-clip-v2's weights. Its text tower stands in the file as it was trained, each matrix with a low-rank update
 * (LoRA, Hu et al. 2021) beside it; the sum is made once, in float32, when the matrix is read:
 *
 *   linear layer   W + (alpha / rank) B A      embedding   W + (alpha / rank) A B
 *
 * The rows of q and k in the vision tower are put in the order in which `Eva02` has them. Loading is strict: every
 * tensor is there in its shape, and nothing else but tables of rotary positions, which are computed.
 */
import { aten, empty, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { type StoredTensorInfo, type TensorFile, tensorFile } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import { JinaClip } from "../networks/jina-clip.js";
import type { JinaConfig, LoraConfig } from "./jina-config.js";
import { loadStrictly, type WeightsPlace } from "./strict-weights.js";

const VISION = "vision_model.";
const TEXT = "text_model.transformer.roberta.";
const ROTARY_TABLE = /^vision_model\.(?:blocks\.\d+\.attn\.)?rope\.freqs_(?:cos|sin)$/;

/**
 * Both towers. @throws MiroError naming the file and the tensors that do not fit; FormatError for values that are not
 * finite; the signal's reason when it is aborted
 *
 * @param coordinate how a rotary coordinate of the vision tower is rounded; default: not at all
 */
export async function loadJinaClip(
  file: TensorFile,
  config: JinaConfig,
  place: WeightsPlace,
  {
    coordinate,
    signal,
  }: { coordinate?: ((value: number) => number) | undefined; signal?: AbortSignal | undefined } = {},
): Promise<JinaClip> {
  if (!file.has(`${VISION}cls_token`) || !file.keys().some((key) => key.startsWith(TEXT)))
    throw new MiroError(
      `${file.path}: holds no jina-clip: ${VISION}cls_token or ${TEXT}… is not in it; ` +
        `it begins with ${file.keys().slice(0, 3).join(", ")}`,
    );
  const merged = mergedLora(halvedHeads(file, config.vision.width / config.vision.heads), config.lora);
  const layout = {
    what: "this jina-clip",
    size: jinaSize(config),
    stored: (name: string) => ({ keys: publishedKeys(name) }),
    ignored: (key: string) => ROTARY_TABLE.test(key),
  };
  return loadStrictly(() => new JinaClip(config, coordinate), merged, place, layout, signal);
}

/** About how many weights both towers have. */
export function jinaSize({ vision: v, text: t }: JinaConfig): number {
  const visionBlock = 4 * v.width ** 2 + 3 * v.width * v.hidden;
  return v.layers * visionBlock + t.layers * (4 * t.width ** 2 + 2 * t.width * t.hidden) + t.vocabulary * t.width;
}

const BLOCK_PARTS: ReadonlyMap<string, readonly string[]> = new Map([
  ["attn.qkv_weight", ["attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"]],
  ["mlp.w21.weight", ["mlp.w2.weight", "mlp.w1.weight"]],
  ["mlp.w21.bias", ["mlp.w2.bias", "mlp.w1.bias"]],
]);

/** What a tensor of {@link JinaClip} is called in the file: parts are stacked along the first dimension. */
function publishedKeys(name: string): string[] {
  const block = /^(vision_model\.blocks\.\d+\.)(.+)$/.exec(name);
  if (block) return (BLOCK_PARTS.get(block[2]!) ?? [block[2]!]).map((part) => block[1]! + part);
  if (name.startsWith("text_model."))
    return [
      name
        .slice("text_model.".length)
        .replace(/^(?=\w+_embeddings\.)/, "embeddings.")
        .replace(/^layers\./, "encoder.layers.")
        .replace(/(?<=\.)fc[12]\./, "mlp.$&")
        .replace(/^/, TEXT),
    ];
  return [name.replace("patch_embed.", "patch_embed.proj.")];
}

/** The file with the channels of each head of q and k in two halves, of which it has pairs side by side. */
function halvedHeads(file: TensorFile, headWidth: number): TensorFile {
  return tensorFile({
    path: file.path,
    keys: () => file.keys(),
    has: (key) => file.has(key),
    info: (key) => file.info(key),
    *copyInPieces(key, target) {
      yield* file.copyInPieces(key, target);
      if (!/^vision_model\.blocks\.\d+\.attn\.(?:[qk]_proj\.weight|q_bias)$/.test(key)) return;
      noGrad(() =>
        scope(() => {
          const pairs = target.unflatten(0, [-1, headWidth / 2, 2]);
          target.copy_(pairs.transpose(1, 2).flatten(0, 2).contiguous());
        }),
      );
    },
  });
}

/** The names of a matrix and its update in the file. */
const LORA = /^(.+)\.parametrizations\.weight\.(original|0\.lora_[AB])$/;

/** The file with the sum of each matrix and its update as `….weight`. */
function mergedLora(file: TensorFile, { rank, alpha }: LoraConfig): TensorFile {
  const merged = new Set<string>();
  const keys = file.keys().flatMap((key) => {
    const parts = LORA.exec(key);
    if (!parts) return [key];
    const weight = `${parts[1]}.weight`;
    if (merged.has(weight)) return [];
    merged.add(weight);
    return [weight];
  });
  const known = new Set(keys);
  const partsOf = (weight: string) => {
    const base = `${weight.slice(0, -".weight".length)}.parametrizations.weight.`;
    return { original: `${base}original`, a: `${base}0.lora_A`, b: `${base}0.lora_B` };
  };
  return tensorFile({
    path: file.path,
    keys: () => keys,
    has: (key) => known.has(key),
    info: (key) => (merged.has(key) ? checkedUpdate(file, partsOf(key), rank) : file.info(key)),
    *copyInPieces(key, target) {
      if (!merged.has(key)) {
        yield* file.copyInPieces(key, target);
        return;
      }
      const { original, a, b } = partsOf(key);
      if (target.dtype === "float32" && target.device === "cpu") {
        yield* file.copyInPieces(original, target);
        add(target);
        return;
      }
      using sum = empty(target.shape, { dtype: "float32" });
      yield* file.copyInPieces(original, sum);
      add(sum);
      noGrad(() => void target.copy_(sum));

      function add(matrix: Tensor): void {
        noGrad(() =>
          scope(() => {
            const read = (part: string) => {
              const values = empty(file.info(part).shape, { dtype: "float32" });
              file.copyTo(part, values);
              return values.select(0, 0);
            };
            const [left, right] = isEmbedding(key) ? [read(a), read(b)] : [read(b), read(a)];
            aten.addmm_(matrix, left, right, 1, alpha / rank);
          }),
        );
      }
    },
  });
}

const isEmbedding = (key: string) => key.includes(".embeddings.");

/** What the file says of a matrix. @throws MiroError when the update beside it does not fit */
function checkedUpdate(
  file: TensorFile,
  { original, a, b }: { original: string; a: string; b: string },
  rank: number,
): StoredTensorInfo {
  for (const part of [original, a, b])
    if (!file.has(part)) throw new MiroError(`${file.path}: lacks ${part}, a part of the text tower's weights`);
  const info = file.info(original);
  const [rows, columns] = info.shape;
  const tall = [1, rows, rank];
  const wide = [1, rank, columns];
  const expected = isEmbedding(original) ? { [a]: tall, [b]: wide } : { [a]: wide, [b]: tall };
  for (const [part, shape] of Object.entries(expected)) {
    const found = file.info(part).shape;
    if (String(found) !== String(shape))
      throw new MiroError(
        `${file.path}: ${part}: expected [${shape}] (one adapter of rank ${rank} for ${original}), found [${found}]`,
      );
  }
  return info;
}
