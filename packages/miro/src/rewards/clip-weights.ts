/**
 * CLIP's weights in the two layouts that are published:
 *
 *   Hugging Face   text_model.encoder.layers.0.self_attn.q_proj.weight, visual_projection.weight (D, W), …
 *   open_clip      transformer.resblocks.0.attn.in_proj_weight (q, k and v stacked), visual.proj (W, D), …
 *
 * Loading is strict: every tensor is there in its shape, and nothing else but buffers that hold no weights.
 */
import { type DType, empty, isFloatingPoint, nn, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { loadModule, type StoredTensor, type TensorFile } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import { Clip, type ClipConfig, ClipVision } from "../networks/clip.js";

/** Where the weights go. */
export interface ClipPlace {
  /** `cpu`, `cuda`, … */
  device: string;
  /** Of the towers. */
  dtype: DType;
}

/** What a tensor of the network is called in a file: several are stacked along the first dimension. */
interface Stored {
  keys: string[];
  transposed?: boolean;
}

interface Layout {
  /** Of the network's tensor, by its name in {@link Clip}. */
  stored(name: string): Stored;
  /** Tensors that hold no weights. */
  ignored: RegExp;
  /** The text side, which a vision tower does without. */
  text: RegExp;
}

const HUGGING_FACE: Layout = {
  stored: (name) => ({ keys: huggingFaceKeys(name) }),
  ignored: /^(?:text|vision)_model\.embeddings\.position_ids$/,
  text: /^(?:text_model\.|text_projection\.weight$|logit_scale$)/,
};

const OPEN_CLIP: Layout = {
  stored: (name) => {
    const projection = /^(visual\.proj|text_projection)\.weight$/.exec(name);
    return projection ? { keys: [projection[1]!], transposed: true } : { keys: [name] };
  },
  ignored: /^(?:input_resolution|context_length|vocab_size|attn_mask)$/,
  text: /^(?!visual\.)/,
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
 * Both towers. @throws MiroError naming the file and the tensors that do not fit; FormatError for values that are not
 * finite
 */
export function loadClip(file: TensorFile, config: ClipConfig, place: ClipPlace): Clip {
  const { vision, text } = config;
  checkSize(file, towerSize(vision) + towerSize(text) + text.vocabulary * text.width);
  return load(
    scope(() => nn.init.skipped(() => new Clip(config))),
    "",
    file,
    place,
  );
}

/** The image side alone; the text side of the file is not read. @throws as {@link loadClip} */
export function loadClipVision(file: TensorFile, config: ClipConfig, place: ClipPlace): ClipVision {
  checkSize(file, towerSize(config.vision));
  return load(
    scope(() => nn.init.skipped(() => new ClipVision(config))),
    "visual.",
    file,
    place,
  );
}

/** Nothing is allocated for a shape that is far from what the file holds. */
function checkSize(file: TensorFile, described: number): void {
  const held = file
    .keys()
    .reduce((sum, key) => sum + file.info(key).shape.reduce((product, size) => product * size, 1), 0);
  if (described > 2 * held)
    throw new MiroError(`${file.path}: holds ${held} weights; the shape of this CLIP has ${described}`);
}

function towerSize({ layers, width, hidden }: ClipConfig["vision"] | ClipConfig["text"]): number {
  return layers * (4 * width ** 2 + 2 * width * hidden);
}

function load<M extends nn.Module>(module: M, prefix: string, file: TensorFile, place: ClipPlace): M {
  try {
    const layout = layoutOf(file);
    const stored = new Map<string, Stored>();
    for (const name of module.stateDict().keys()) stored.set(name, layout.stored(prefix + name));
    check(module, stored, layout, prefix !== "", file);
    const places = new Map<string, StoredTensor>();
    const adapted = adapt(file, stored, module.stateDict());
    for (const name of stored.keys()) places.set(name, { file: adapted, key: name });
    loadModule(module, places, place);
    return module.requiresGrad_(false).eval() as M;
  } catch (error) {
    module.dispose();
    throw error;
  }
}

function layoutOf(file: TensorFile): Layout {
  if (file.has("visual.conv1.weight")) return OPEN_CLIP;
  if (file.has("vision_model.embeddings.patch_embedding.weight")) return HUGGING_FACE;
  throw new MiroError(
    `${file.path}: holds no CLIP: neither vision_model.embeddings.patch_embedding.weight (Hugging Face) nor ` +
      `visual.conv1.weight (open_clip) is in it; it begins with ${file.keys().slice(0, 3).join(", ")}`,
  );
}

/** Tensors that an error names of each kind. */
const NAMED = 4;

function check(
  module: nn.Module,
  stored: ReadonlyMap<string, Stored>,
  layout: Layout,
  visionOnly: boolean,
  file: TensorFile,
): void {
  const missing: string[] = [];
  const misfits: string[] = [];
  const used = new Set<string>();
  for (const [name, tensor] of module.stateDict()) {
    const { keys, transposed } = stored.get(name)!;
    const shape = transposed ? [...tensor.shape].reverse() : [...tensor.shape];
    if (keys.length > 1) shape[0] = shape[0]! / keys.length;
    for (const key of keys) {
      used.add(key);
      if (!file.has(key)) {
        missing.push(key);
        continue;
      }
      const { shape: found, dtype, formatDtype } = file.info(key);
      const fits = String(found) === String(shape);
      if (!fits) misfits.push(`${key}: expected [${shape}], found [${found}]`);
      else if (dtype === null || !isFloatingPoint(dtype))
        misfits.push(`${key}: expected floating values, found ${formatDtype}`);
    }
  }
  const unexpected = file
    .keys()
    .filter((key) => !used.has(key) && !layout.ignored.test(key) && !(visionOnly && layout.text.test(key)));
  const problems = [
    ["missing", missing],
    ["not part of it", unexpected],
    ["wrong", misfits],
  ] as const;
  const named = problems.flatMap(([what, list]) =>
    list.length === 0
      ? []
      : [`${what} (${list.length}): ${list.slice(0, NAMED).join(", ")}${list.length > NAMED ? ", …" : ""}`],
  );
  if (named.length > 0) throw new MiroError(`${file.path}: not the weights of this CLIP: ${named.join("; ")}`);
}

/** The file as the network names and shapes it. */
function adapt(file: TensorFile, stored: ReadonlyMap<string, Stored>, own: ReadonlyMap<string, Tensor>): TensorFile {
  return {
    path: file.path,
    keys: () => [...stored.keys()],
    has: (name) => stored.has(name),
    info: (name) => ({ ...describe(file, stored.get(name)!), shape: own.get(name)!.shape }),
    copyTo: (name, target) =>
      scope(() => {
        const { keys, transposed } = stored.get(name)!;
        if (transposed) {
          const rows = empty([...target.shape].reverse(), { dtype: target.dtype });
          file.copyTo(keys[0]!, rows);
          noGrad(() => target.copy_(rows.t()));
          return;
        }
        const size = target.ndim === 0 ? 0 : target.size(0) / keys.length;
        keys.forEach((key, i) => {
          file.copyTo(key, keys.length === 1 ? target : noGrad(() => target.narrow(0, i * size, size)));
        });
      }),
  };
}

function describe(file: TensorFile, { keys }: Stored) {
  const { dtype, formatDtype } = file.info(keys[0]!);
  return { dtype, formatDtype };
}
