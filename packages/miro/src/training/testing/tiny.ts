/** A network that trains in a second, for tests. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { TINY_NETWORK } from "../../networks/testing/tiny-config.js";
import { parseRecipe, type Recipe } from "../recipes/recipe.js";
import { listCheckpoints } from "../state/checkpoint.js";

/** The recipe in the form of its file. */
export function tinyRecipeJson(trainer: object = {}, rest: object = {}): Record<string, unknown> {
  return {
    name: "tiny",
    data: { kind: "random", text_len: 3 },
    network: {
      ...TINY_NETWORK,
      data_size: 4,
      label_dim: 6,
      num_cond_tokens: 5,
      data_dim: 16,
      num_latents: 4,
      latents_dim: 16,
      num_blocks: 1,
      compute_heads: 2,
      num_text_registers: 2,
      coherence_keys: ["clip_score", "sharpness"],
      coherence_dropout: 0.3, // drawn from the process-wide generator
    },
    preconditioning: { do_gradnorm_reweighting: true },
    loss: { cond_drop_rate: 0.2, reward_drop_rate: 0.2, mu_t: 0.5 },
    optimizer: { name: "lamb", lr: 0.01 },
    lr_scheduler: { warmup_steps: 3, total_steps: 9 },
    ema: { decay: 0.9, warmup: true },
    trainer: { max_steps: 9, batch_size: 4, log_every_n_steps: 2, checkpoint_every_n_steps: 4, ...trainer },
    ...rest,
  };
}

export function tinyRecipe(trainer: object = {}, rest: object = {}): Recipe {
  return parseRecipe(tinyRecipeJson(trainer, rest));
}

/** Every value of the newest checkpoint, as bits. */
export function bits(output: string): Record<string, string> {
  const { path } = listCheckpoints(join(output, "checkpoints")).at(-1)!;
  return scope(() => {
    const all: Record<string, string> = {};
    for (const part of readdirSync(path).filter((name) => name.endsWith(".safetensors"))) {
      for (const [name, tensor] of readSafetensors(join(path, part))) {
        all[`${part} ${name}`] = bitsOf(tensor);
      }
    }
    return all;
  });
}

/** The values of a tensor as bits. */
export function bitsOf(tensor: Tensor): string {
  const data = tensor.detach().data();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
}
