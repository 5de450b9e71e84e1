import { scope } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import { RandomBatches } from "../batches/batches.js";
import { tinyRecipe } from "../testing/tiny.js";
import { assemble } from "./assemble.js";
import { Replicas } from "./thread-replicas.js";

it("a thread that has ended is told, and not waited for", async () => {
  const recipe = tinyRecipe();
  const { network, preconditioning, loss, ema } = assemble(recipe);
  const { numInputChannels: channels, dataSize: size, labelDim: textWidth, coherenceKeys } = network.config;
  const source = new RandomBatches({
    seed: 1,
    batchSize: recipe.trainer.batchSize,
    channels,
    size,
    textLength: 3,
    textWidth,
    rewardKeys: coherenceKeys,
  });
  // Another network than that whose weights it is given.
  const wrong = { ...recipe, network: { ...recipe.network, num_latents: 6 } };
  const replicas = new Replicas(wrong, 2, { network, preconditioning, loss });
  const start = () => scope(() => replicas.start(1, source.batch(0)));
  const ended = /^a training thread failed: .*wrong shape/s;
  const step = async () => {
    start();
    await replicas.collect();
  };
  try {
    await expect(step()).rejects.toThrow(ended);
    expect(start).toThrow(ended);
  } finally {
    await replicas.close();
    for (const module of [network, preconditioning, ema.module]) module.dispose();
  }
});
