import { describe, expect, it } from "vitest";
import { parseRinConfig } from "../../networks/config.js";
import { releaseConfigToJson } from "../../pipeline/loading/release-config.js";
import { loadRecipe } from "../recipes/recipe.js";
import { releaseConfigOf } from "./export.js";

/** The `config.json` of a release of a recipe's run. */
function releaseOf(name: string, overrides: string[] = []): Record<string, unknown> {
  const recipe = loadRecipe(name, overrides);
  return releaseConfigToJson(releaseConfigOf(recipe, parseRinConfig(recipe.network)));
}

describe("the configuration of a run's release", () => {
  it("says of latents what the published package asks for, as the published release does", () => {
    expect(releaseOf("multi_cad_synth")).toMatchObject({
      data_preprocessing: {
        input_key_mean: "vae_embeddings_mean_256",
        input_key_std: "vae_embeddings_std_256",
        output_key_root: "x_0",
        vae_sample: true,
        channel_wise_normalisation: true,
        model_type: "sdxl",
      },
      postprocessing: { channel_wise_normalisation: true, model_type: "sdxl" },
      scheduler: { start: 1, end: 0, clip_min: 1e-9 },
      data_resolution: 32,
      img_resolution: 256,
      model_type: "sdxl",
      vae_repo: "stabilityai/sdxl-vae",
      text_encoder_repo: "google/flan-t5-xl",
    });
    expect(releaseOf("multi_cad", ["data.latent_normalization=sdxl_plain", "data.vae_sample=false"])).toMatchObject({
      data_preprocessing: { vae_sample: false, channel_wise_normalisation: false },
      postprocessing: { channel_wise_normalisation: false },
    });
  });

  it("does not call latents of another autoencoder SDXL's", () => {
    const release = releaseOf("multi_cad", ["data.latent_normalization=data"]);
    for (const key of ["data_preprocessing", "postprocessing", "model_type"]) expect(release).not.toHaveProperty(key);
  });
});
