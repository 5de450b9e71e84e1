/** Frozen parts that are made in a moment, and recipes of emoji scenes with them, for tests. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { manualSeed } from "@miro-t2i/torch";
import { PatchAutoencoder } from "../../../autoencoder/patch-autoencoder.js";
import { T5Encoder } from "../../../text/t5.js";
import { saveTokenizer, trainUnigram } from "../../../text/unigram-trainer.js";
import { tinyRecipeJson } from "../../../training/testing/tiny.js";
import { EmojiScenes } from "../../scenes/scenes.js";
import { writeHalf } from "../autoencoder.js";

/** Scenes of 32 × 32 pixels. */
export const TINY_SCENES = {
  vocabulary: ["red apple", "penguin", "rocket", "cat face", "fox", "star", "bell", "crown"],
  size: 32,
};

/** Folders of a text encoder and an autoencoder with random weights. */
export interface TinyParts {
  textEncoder: string;
  autoencoder: string;
}

/** Makes both below a folder. */
export async function makeTinyParts(root: string): Promise<TinyParts> {
  const parts = { textEncoder: join(root, "text_encoder"), autoencoder: join(root, "vae") };
  manualSeed(0);
  const captions = (await EmojiScenes.load(TINY_SCENES)).batch(0, 200).captions;
  await saveTokenizer(
    parts.textEncoder,
    trainUnigram(
      captions.map((caption) => [caption, 1]),
      { vocabSize: 120 },
    ),
  );
  const vocabSize = 400;
  const encoder = new T5Encoder({ dModel: 16, dKv: 8, numHeads: 2, dFf: 16, numLayers: 1, vocabSize, dropoutRate: 0 });
  await encoder.save(parts.textEncoder);
  const network = new PatchAutoencoder({ channels: [8, 8], encoder_blocks: [0, 0], decoder_blocks: [0, 0] });
  mkdirSync(parts.autoencoder);
  writeFileSync(join(parts.autoencoder, "config.json"), JSON.stringify(network.config));
  writeHalf(join(parts.autoencoder, "diffusion_pytorch_model.safetensors"), network);
  return parts;
}

/** A recipe in the form of its file. @param cache folder of the latents */
export function tinyEmojiJson(
  { textEncoder, autoencoder }: TinyParts,
  cache: string,
  { data = {}, trainer = {}, rest = {} }: { data?: object; trainer?: object; rest?: object } = {},
): Record<string, unknown> {
  const { network, ...tiny } = tinyRecipeJson({ max_steps: 3, batch_size: 8, log_every_n_steps: 1, ...trainer });
  return {
    ...tiny,
    network: {
      ...(network as object),
      label_dim: 16,
      coherence_keys: ["clip_score", "sharpness", "colorfulness"],
    },
    lr_scheduler: { warmup_steps: 1 },
    data: {
      kind: "emoji",
      samples: 20,
      shard_size: 8,
      scenes: TINY_SCENES,
      cache,
      autoencoder,
      text_encoder: textEncoder,
      max_text_len: 24,
      ...data,
    },
    ...rest,
  };
}
