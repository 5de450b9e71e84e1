import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { manualSeed, memory, noGrad, randn, scope, type Tensor } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoencoderKL, loadAutoencoder, parseAutoencoderKLConfig } from "./index.js";

const config = {
  _class_name: "AutoencoderKL",
  _diffusers_version: "0.30.0",
  block_out_channels: [8, 16],
  down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
  latent_channels: 4,
  layers_per_block: 1,
  norm_num_groups: 4,
  force_upcast: true,
};

let root = "";
let model: AutoencoderKL;
beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), "autoencoder-"));
  manualSeed(0);
  model = new AutoencoderKL(config).eval() as AutoencoderKL;
});
afterAll(() => rmSync(root, { recursive: true }));

let folders = 0;
/** A folder with a configuration and the model's weights under other names. */
function folder(json: unknown, rename: (key: string, t: Tensor) => [string, Tensor] = (key, t) => [key, t]): string {
  const at = mkdtempSync(path.join(root, `${folders++}-`));
  writeFileSync(path.join(at, "config.json"), typeof json === "string" ? json : JSON.stringify(json));
  noGrad(() =>
    writeSafetensors(
      path.join(at, "diffusion_pytorch_model.safetensors"),
      new Map([...model.stateDict()].map(([key, t]) => rename(key, t))),
    ),
  );
  return at;
}

const same = (a: Tensor, b: Tensor) => expect(a.sub(b).abs().max().item()).toBeLessThan(1e-6);

describe("loading", () => {
  it("finds the class by the configuration", () => {
    using loaded = loadAutoencoder(folder(config));
    expect([loaded.latentChannels, loaded.downsampling, loaded.training]).toEqual([4, 2, false]);
    scope(() => {
      const z = randn([1, 4, 4, 4]);
      same(loaded.decode(z), model.decode(z));
    });
  });

  it("reads the attention's names of old files, as matrices or as 1 × 1 convolutions", () => {
    const old: Record<string, string> = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };
    const rename = (key: string, t: Tensor): [string, Tensor] => {
      const name = Object.keys(old).find((current) => key.includes(`attentions.0.${current}.`));
      return name === undefined
        ? [key, t]
        : [key.replace(`.${name}.`, `.${old[name]}.`), t.ndim === 2 ? t.detach().view(...t.shape, 1, 1) : t];
    };
    using loaded = loadAutoencoder(folder(config, rename));
    scope(() => {
      const x = randn([1, 3, 8, 8]);
      same(loaded.encode(x).mean, model.encode(x).mean);
    });
  });

  it.each([
    ["an unknown class", { ...config, _class_name: "VQModel" }, "_class_name: expected one of AutoencoderKL"],
    [
      "another kind of block",
      { ...config, down_block_types: ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"] },
      "down_block_types.1",
    ],
    ["too few blocks", { ...config, up_block_types: ["UpDecoderBlock2D"] }, "up_block_types: must have 2 entries"],
    ["another activation", { ...config, act_fn: "gelu" }, "act_fn"],
    ["a wrong field of patches", { _class_name: "PatchAutoencoder", channels: [8] }, "channels"],
    ["broken JSON", "{", "config.json: not valid JSON"],
    ["weights of another size", { ...config, layers_per_block: 2 }, "missing"],
  ])("refuses %s", (_, json, message) => {
    const at = folder(json);
    expect(() => loadAutoencoder(at)).toThrow(message);
    expect(() => loadAutoencoder(at)).toThrow(at); // in the name of the file
  });

  it("names a missing file", () => {
    const at = mkdtempSync(path.join(root, "empty-"));
    expect(() => loadAutoencoder(at)).toThrow("config.json: cannot be read: no such file or directory");
    writeFileSync(path.join(at, "config.json"), JSON.stringify(config));
    expect(() => loadAutoencoder(at)).toThrow("no weights found, expected one of diffusion_pytorch_model.safetensors");
  });
});

describe("AutoencoderKL", () => {
  it("decodes large batches in parts with the same result", () => {
    scope(() => {
      const z = randn([5, 4, 64, 64]);
      const all = noGrad(() => model.decode(z));
      expect(all.shape).toEqual([5, 3, 128, 128]);
      same(
        all.narrow(0, 4, 1),
        noGrad(() => model.decode(z.narrow(0, 4, 1))),
      );
    });
  });

  it("frees everything that it does not return", () => {
    scope(() => {
      const [x, z] = [randn([1, 3, 8, 8]), randn([1, 4, 4, 4])];
      const before = memory.stats().liveTensors;
      noGrad(() => [model.encode(x), model.decode(z)]);
      expect(memory.stats().liveTensors - before).toBe(3);
    });
  });

  it("passes gradients", () => {
    scope(() => {
      const { mean, std } = model.encode(randn([1, 3, 8, 8]));
      model
        .decode(mean.add(std.mul(randn(std.shape))))
        .square()
        .mean()
        .backward();
      for (const [name, p] of model.namedParameters()) expect(p.grad, name).not.toBeNull();
      model.zeroGrad();
    });
  });

  it("returns float32 whatever its dtype", () => {
    scope(() => {
      using half = new AutoencoderKL(config).to({ dtype: "bfloat16" }) as AutoencoderKL;
      expect(half.decode(randn([1, 4, 2, 2])).dtype).toBe("float32");
      expect(half.encode(randn([1, 3, 4, 4])).std.dtype).toBe("float32");
    });
  });

  it("names a wrong shape", () => {
    expect(() => model.encode(randn([1, 3, 7, 8]))).toThrow("sides multiples of 2");
    expect(() => model.decode(randn([1, 3, 8, 8]))).toThrow("latents: expected shape (batch, 4, h, w)");
  });

  it("defaults as diffusers does", () => {
    const { _class_name, ...least } = config;
    expect(parseAutoencoderKLConfig(least).scaling_factor).toBe(0.18215);
  });
});
