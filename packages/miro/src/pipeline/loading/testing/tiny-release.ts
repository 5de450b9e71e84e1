/** Release folders of small random networks with any rewards, for tests. */
import { ones, randn, scope, zeros } from "@miro-t2i/torch";
import { parsePrecondConfig, parseRinConfig } from "../../../networks/config.js";
import { FlowPrecond } from "../../../networks/precond.js";
import { Rin } from "../../../networks/rin.js";
import { saveCheckpoint } from "../checkpoint.js";

/** Writes a checkpoint that fits the text encoder and the autoencoder of the tiny reference. */
export function writeTinyRelease(folder: string, rewards: readonly string[]): void {
  const config = parseRinConfig({
    data_size: 8,
    num_input_channels: 4,
    label_dim: 48,
    num_cond_tokens: 40,
    data_dim: 32,
    num_latents: 8,
    latents_dim: 64,
    num_processing_layers: 1,
    num_blocks: 1,
    patch_size: 2,
    read_write_heads: 2,
    compute_heads: 4,
    use_cond_rin_block: true,
    concat_cond_token_to_latents: false,
    use_self_conditioning: true,
    coherence_keys: rewards,
  });
  const preconditioning = parsePrecondConfig({ num_latents: 8, latents_dim: 64 });
  scope(() => {
    const network = new Rin(config);
    const precond = new FlowPrecond(preconditioning);
    saveCheckpoint(folder, {
      config: {
        network: config,
        preconditioning,
        coherenceKeys: config.coherenceKeys,
        settings: { data_resolution: 8, max_text_len: 40 },
      },
      network,
      preconditioning: precond,
      postprocessing: { scale: ones([1, 4, 1, 1]), bias: zeros([1, 4, 1, 1]) },
      uncondEmbedding: randn([1, 48]),
    });
    network.dispose();
    precond.dispose();
  });
}
