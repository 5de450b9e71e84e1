// Unusual configurations of the published code, recorded by record_configurations.py: release folders with what its
// network, preconditioning and pipeline compute.
import { readFileSync } from "node:fs";
import path from "node:path";
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { MiroPipeline } from "miro-t2i";
import { type Checkpoint, loadCheckpoint } from "miro-t2i/networks";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type RecordedRun, referenceFolder, relativeError, thinned } from "../reference/fixture.js";

/** Of record_configurations.py. */
const GRADIENT_VALUES = 32;
const fixtures = path.join(referenceFolder(), "..", "configurations");

describe.each(["block", "concat"])("the configuration %s", (name) => {
  const folder = path.join(fixtures, name);
  const runs: (Omit<RecordedRun, "steps"> & { prompts: string[]; num_inference_steps: number })[] = JSON.parse(
    readFileSync(path.join(folder, "reference.json"), "utf8"),
  ).runs;
  let recorded: Map<string, Tensor>;
  let checkpoint: Checkpoint;
  beforeAll(() => {
    recorded = readSafetensors(path.join(folder, "reference.safetensors"));
    checkpoint = loadCheckpoint(folder);
  });
  afterAll(() => {
    for (const tensor of recorded.values()) tensor.dispose();
    checkpoint.network.dispose();
    checkpoint.preconditioning.dispose();
  });

  /** A recorded batch in upstream's form, which the network takes as it is. */
  const batchOf = (i: number) => {
    const prefix = `case.${i}.`;
    const named = [...recorded].filter(([key]) => key.startsWith(prefix));
    const batch = Object.fromEntries(named.map(([key, tensor]) => [key.slice(prefix.length), tensor]));
    const rewards = Object.entries(batch).filter(([key]) => key.endsWith("_coherence"));
    return {
      y: batch.y!,
      gamma: batch.gamma!,
      textEmbeddings: batch.text_tokens_embeddings!,
      textMask: batch.text_tokens_mask!,
      previousLatents: batch.previous_latents,
      rewards: Object.fromEntries(rewards.map(([key, tensor]) => [key.replace(/_coherence$/, ""), tensor])),
      expected: batch,
    };
  };

  test.each([0, 1, 2, 3, 4])("network and preconditioning, batch %i", (i) => {
    scope(() =>
      noGrad(() => {
        const { expected, ...batch } = batchOf(i);
        const { network, preconditioning } = checkpoint;
        const { F, z } = network.forward(batch);
        const { D } = preconditioning.apply(network, batch);
        for (const [key, tensor] of Object.entries({ F, z, D }))
          expect(relativeError(tensor, expected[key]!), key).toBeLessThan(1e-5);
        if (expected.logvar)
          expect(relativeError(preconditioning.logvar(batch.gamma), expected.logvar)).toBeLessThan(1e-5);
        else expect(() => preconditioning.logvar(batch.gamma)).toThrow(/^doGradnormReweighting/);
      }),
    );
  });

  test("gradients in training mode", () => {
    const { network } = checkpoint;
    network.requiresGrad_(true).train();
    try {
      scope(() => {
        const { F, z } = network.forward(batchOf(0));
        F.square().mean().add(z.square().mean()).backward();
        let compared = 0;
        for (const [key, p] of network.namedParameters()) {
          const kept = recorded.get(`grad.${key}`);
          // Gradients of zero in theory, see checks.ts.
          if (kept === undefined || key.endsWith("k_norm.bias") || key.endsWith("qkv.bias")) continue;
          expect(relativeError(thinned(p.grad!, kept, { compact: GRADIENT_VALUES }), kept), key).toBeLessThan(1e-5);
          compared++;
        }
        expect(compared).toBeGreaterThan(40);
      });
    } finally {
      network.requiresGrad_(false).eval();
    }
  });

  test("the pipeline: empty and long prompts, weak and no guidance, targets out of range or unknown", async () => {
    await using pipe = await MiroPipeline.fromPretrained(folder, {
      textEncoder: path.join(referenceFolder(), "text_encoder"),
      vae: path.join(referenceFolder(), "vae"),
    });
    for (const [i, run] of runs.entries()) {
      const { latents } = await pipe.generate(run.prompts, {
        keepLatents: true,
        noise: recorded.get(`run.${i}.noise`)!,
        steps: run.num_inference_steps,
        guidanceScale: run.guidance_scale,
        imagesPerPrompt: run.num_images_per_prompt ?? 1,
        rewardTargets: run.reward_targets ?? {},
        negativeRewardTargets: run.negative_reward_targets ?? {},
      });
      expect(relativeError(latents, recorded.get(`run.${i}.latents`)!), `run ${i}`).toBeLessThan(1e-4);
      latents.dispose();
    }
  });
});
