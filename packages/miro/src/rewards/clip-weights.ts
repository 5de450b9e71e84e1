/**
 * CLIP's weights in the two layouts that are published:
 *
 *   Hugging Face   text_model.encoder.layers.0.self_attn.q_proj.weight, visual_projection.weight (D, W), …
 *   open_clip      transformer.resblocks.0.attn.in_proj_weight (q, k and v stacked), visual.proj (W, D), …
 *
 * Loading is strict: every tensor is there in its shape, and nothing else but buffers that hold no weights.
 */
import type { nn } from "@miro-t2i/torch";
import type { TensorFile } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import { Clip, type ClipConfig, ClipText, ClipVision, ClipVisionTower } from "../networks/clip.js";
import { loadStrictly, type PublishedLayout, type Stored, type WeightsPlace } from "./strict-weights.js";

interface Layout {
  /** Of the network's tensor, by its name in {@link Clip}. */
  stored(name: string): Stored;
  /** Tensors that hold no weights. */
  ignored: RegExp;
  /** The text side, which a vision tower does without. */
  text: RegExp;
  /** The projection, which a tower that gives its patches' states does without. */
  projection: RegExp;
  /** The image side, which a text tower does without. */
  vision: RegExp;
}

const HUGGING_FACE: Layout = {
  stored: (name) => ({ keys: huggingFaceKeys(name) }),
  ignored: /^(?:text|vision)_model\.embeddings\.position_ids$/,
  text: /^(?:text_model\.|text_projection\.weight$|logit_scale$)/,
  projection: /^visual_projection\.weight$/,
  vision: /^(?:vision_model\.|visual_projection\.weight$)/,
};

const OPEN_CLIP: Layout = {
  stored: (name) => {
    const projection = /^(visual\.proj|text_projection)\.weight$/.exec(name);
    return projection ? { keys: [projection[1]!], transposed: true } : { keys: [name] };
  },
  ignored: /^(?:input_resolution|context_length|vocab_size|attn_mask)$/,
  text: /^(?!visual\.)/,
  projection: /^visual\.proj$/,
  vision: /^visual\./,
};

const HUGGING_FACE_NAMES: ReadonlyMap<string, string> = new Map([
  ["positional_embedding", "text_model.embeddings.position_embedding.weight"],
  ["token_embedding.weight", "text_model.embeddings.token_embedding.weight"],
  ["visual.class_embedding", "vision_model.embeddings.class_embedding"],
  ["visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"],
  ["visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"],
  ["visual.proj.weight", "visual_projection.weight"],
]);

/** Modules of a block; those of attention's input are three. */
const BLOCK_NAMES: ReadonlyMap<string, string> = new Map([
  ["ln_1", "layer_norm1"],
  ["ln_2", "layer_norm2"],
  ["attn.out_proj", "self_attn.out_proj"],
  ["mlp.c_fc", "mlp.fc1"],
  ["mlp.c_proj", "mlp.fc2"],
]);

function huggingFaceKeys(name: string): string[] {
  const block = /^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)$/.exec(name);
  if (!block) {
    const renamed = name
      .replace(/^ln_final\./, "text_model.final_layer_norm.")
      .replace(/^visual\.ln_pre\./, "vision_model.pre_layrnorm.")
      .replace(/^visual\.ln_post\./, "vision_model.post_layernorm.");
    return [HUGGING_FACE_NAMES.get(name) ?? renamed];
  }
  const [, visual, layer, module, end] = block;
  const prefix = `${visual ? "vision" : "text"}_model.encoder.layers.${layer}`;
  if (module === "attn.in_proj") return ["q", "k", "v"].map((part) => `${prefix}.self_attn.${part}_proj.${end}`);
  return [`${prefix}.${BLOCK_NAMES.get(module!)}.${end}`];
}

/**
 * Both towers.
 * @throws MiroError naming the file and the tensors that do not fit; FormatError for values that are not finite; the
 *   signal's reason when it is aborted
 */
export async function loadClip(
  file: TensorFile,
  config: ClipConfig,
  place: WeightsPlace,
  signal?: AbortSignal,
): Promise<Clip> {
  const { vision, text } = config;
  const size = towerSize(vision) + towerSize(text) + text.vocabulary * text.width;
  return load(() => new Clip(config), { size, prefix: "" }, file, place, signal);
}

/** The text side alone; the image side of the file is not read. @throws as {@link loadClip} */
export async function loadClipText(
  file: TensorFile,
  config: ClipConfig,
  place: WeightsPlace,
  signal?: AbortSignal,
): Promise<ClipText> {
  const size = towerSize(config.text) + config.text.vocabulary * config.text.width;
  return load(() => new ClipText(config), { size, prefix: "", without: "vision" }, file, place, signal);
}

/** The image side alone; the text side of the file is not read. @throws as {@link loadClip} */
export async function loadClipVision(
  file: TensorFile,
  config: ClipConfig,
  place: WeightsPlace,
  signal?: AbortSignal,
): Promise<ClipVision> {
  const size = towerSize(config.vision);
  return load(() => new ClipVision(config), { size, prefix: "visual.", without: "text" }, file, place, signal);
}

/**
 * The image side without its projection, which need not be in the file. @throws as {@link loadClip}
 *
 * @param prefix of the names in a file of a larger model, whose other tensors are left to others
 */
export async function loadClipTower(
  file: TensorFile,
  vision: ClipConfig["vision"],
  place: WeightsPlace,
  { prefix = "", signal }: { prefix?: string; signal?: AbortSignal | undefined } = {},
): Promise<ClipVisionTower> {
  const { stored, ignored, text, projection } = prefix === "" ? layoutOf(file) : HUGGING_FACE;
  const layout: PublishedLayout = {
    what: "this CLIP",
    size: towerSize(vision),
    stored: (name) => {
      const { keys, ...as } = stored(`visual.${name}`);
      return { ...as, keys: keys.map((key) => prefix + key) };
    },
    ignored: (key) => {
      if (!key.startsWith(prefix)) return true;
      const own = key.slice(prefix.length);
      return ignored.test(own) || (prefix === "" && (text.test(own) || projection.test(own)));
    },
  };
  return loadStrictly(() => new ClipVisionTower(vision), file, place, layout, signal);
}

/** About how many weights a tower has. */
export function towerSize({ layers, width, hidden }: { layers: number; width: number; hidden: number }): number {
  return layers * (4 * width ** 2 + 2 * width * hidden);
}

async function load<M extends nn.Module>(
  make: () => M,
  { size, prefix, without }: { size: number; prefix: string; without?: "text" | "vision" },
  file: TensorFile,
  place: WeightsPlace,
  signal: AbortSignal | undefined,
): Promise<M> {
  const layout = layoutOf(file);
  const { stored, ignored } = layout;
  const published: PublishedLayout = {
    what: "this CLIP",
    size,
    stored: (name) => stored(prefix + name),
    ignored: (key) => ignored.test(key) || (without !== undefined && layout[without].test(key)),
  };
  return loadStrictly(make, file, place, published, signal);
}

function layoutOf(file: TensorFile): Layout {
  if (file.has("visual.conv1.weight")) return OPEN_CLIP;
  if (file.has("vision_model.embeddings.patch_embedding.weight")) return HUGGING_FACE;
  throw new MiroError(
    `${file.path}: holds no CLIP: neither vision_model.embeddings.patch_embedding.weight (Hugging Face) nor ` +
      `visual.conv1.weight (open_clip) is in it; it begins with ${file.keys().slice(0, 3).join(", ")}`,
  );
}
