/** Release folders of small random networks with any rewards, for tests. */
import { ones, randn, scope, zeros } from "@miro-t2i/torch";
import { parsePrecondConfig } from "../../../networks/config.js";
import { FlowPrecond } from "../../../networks/precond.js";
import { Rin } from "../../../networks/rin.js";
import { tinyConfig } from "../../../networks/testing/tiny-config.js";
import { saveCheckpoint } from "../save-checkpoint.js";

/** Writes a checkpoint that fits the text encoder and the autoencoder of the tiny reference. */
export function writeTinyRelease(folder: string, rewards: readonly string[]): void {
  const config = tinyConfig({
    label_dim: 48,
    num_cond_tokens: 40,
    num_latents: 8,
    num_blocks: 1,
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
