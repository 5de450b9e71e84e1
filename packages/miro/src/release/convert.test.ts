import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { full, manualSeed, nn, ones, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import {
  readSafetensors,
  TorchCheckpoint,
  type TorchTensor,
  writeNpy,
  writeSafetensors,
  writeTorchCheckpoint,
} from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import { runCaptured, runStoppable } from "../cli/testing/run-captured.js";
import { parseSize } from "../files/sizes.js";
import { REWARD_KEYS } from "../networks/config.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { tinyConfig } from "../networks/testing/tiny-config.js";
import { loadCheckpoint } from "../pipeline/loading/checkpoint.js";
import { readReleaseConfig } from "../pipeline/loading/release-config.js";
import { RELEASES } from "../pipeline/loading/releases.js";
import { runTraining } from "../training/loop/run.js";
import { modelSize } from "../training/planning/model-size.js";
import { listCheckpoints } from "../training/state/checkpoint.js";
import { writeConstants } from "../training/state/data-constants.js";
import { tinyRecipe } from "../training/testing/tiny.js";
import { readRunConfiguration } from "./config-yaml.js";
import { convertToRelease } from "./convert.js";
import { openSource } from "./open-source.js";
import { PRESETS } from "./presets.js";
import { writeCkpt } from "./to-ckpt.js";

const fixtures = join(import.meta.dirname, "../training/fixtures");
const ckpt = join(fixtures, "epoch=0-step=3.ckpt");
const root = mkdtempSync(join(tmpdir(), "miro-convert-"));
const at = (name: string) => join(root, name);
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Bytes of every tensor of a state dict, by name. */
function stateBytes(path: string): Map<string, string> {
  using file = TorchCheckpoint.open(path);
  const state = (file.root as Map<string, Map<string, TorchTensor>>).get("state_dict")!;
  return scope(() => new Map([...state].map(([name, tensor]) => [name, bytesOf(file.read(tensor))])));
}

/** The step that a checkpoint says it is of. */
function stepOf(path: string): unknown {
  using file = TorchCheckpoint.open(path);
  return (file.root as Map<string, unknown>).get("global_step");
}

function bytesOf(tensor: Tensor): string {
  const data = tensor.contiguous().data();
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
  return `${tensor.dtype} [${tensor.shape}] ${bytes}`;
}

const below = (bytes: Map<string, string>, module: string) =>
  new Map(
    [...bytes].flatMap(([name, value]) => (name.startsWith(`${module}.`) ? [[name.slice(module.length), value]] : [])),
  );

async function converted(...args: string[]): Promise<{ stderr: string; stdout: string }> {
  const { code, stderr, stdout } = await runCaptured("convert", ...args);
  expect(code, stderr).toBe(0);
  return { stderr, stdout };
}

async function refused(...args: string[]): Promise<string> {
  const { code, stderr } = await runCaptured("convert", ...args);
  expect(code).toBeGreaterThan(0);
  return stderr;
}

/** The checkpoint with another state dict, in a folder of its own. */
function rewritten(name: string, change: (entries: [string, Tensor][]) => [string, Tensor][]): string {
  const path = join(at(name), "last.ckpt");
  mkdirSync(at(name));
  scope(() => {
    using file = TorchCheckpoint.open(ckpt);
    const state = (file.root as Map<string, Map<string, TorchTensor>>).get("state_dict")!;
    const entries = [...state].map(([name, tensor]): [string, Tensor] => [name, file.read(tensor)]);
    writeTorchCheckpoint(path, { state_dict: new Map(change(entries)) });
  });
  return path;
}

describe("a published checkpoint", () => {
  it.each([
    [[], "ema_network"],
    [["--ema", "1"], "ema_network_0_999"],
    [["--ema", "raw"], "network"],
  ])("%j: release and checkpoint made of it again hold its %s, tensor by tensor", async (flags, module) => {
    const [release, back] = [at(`release-${module}`), at(`back-${module}`)];
    await converted(ckpt, "--output", release, ...flags);
    await converted(release, "--to", "ckpt", "--output", back);
    const [before, after] = [stateBytes(ckpt), stateBytes(join(back, "init.ckpt"))];
    expect(stepOf(join(back, "init.ckpt"))).toBe(0);
    expect(below(before, module).size).toBe(129);
    for (const copy of ["network", "ema_network"]) expect(below(after, copy)).toEqual(below(before, module));
    for (const other of ["preconditioning", "data_preprocessing"])
      expect(below(after, other)).toEqual(below(before, other));
    expect(after.get("postprocessing.scale")).toBe(before.get("postprocessing.scale"));
    expect(after.get("uncond_conditioning")).toBe(before.get("uncond_conditioning"));
    expect([...after.keys()].some((name) => name.includes("vae"))).toBe(false);
  });

  it("is released in another precision, but for its buffers, in several files, which load as one", async () => {
    await converted(ckpt, "--output", at("whole"));
    await converted(ckpt, "--output", at("parts"), "--dtype", "float16", "--max-shard-size", "50kB");
    const names = readdirSync(at("parts"));
    expect(names).toContain("model.safetensors.index.json");
    expect(names).not.toContain("model.safetensors");
    const shards = names.filter((name) => /^model-\d{5}-of-00003\.safetensors$/.test(name));
    expect(shards.length).toBe(3);
    scope(() => {
      const parts = new Map(shards.flatMap((name) => [...readSafetensors(join(at("parts"), name))]));
      const whole = readSafetensors(join(at("whole"), "model.safetensors"));
      expect([...parts.keys()].sort()).toEqual([...whole.keys()].sort());
      for (const [name, tensor] of whole) {
        const stays = /freqs|phases|scale$|^(data_pre|post)processing/.test(name) || tensor.dtype === "bool";
        const isParameter = !(stays && !name.includes("layer_scale"));
        expect(bytesOf(parts.get(name)!), name).toBe(bytesOf(isParameter ? tensor.half() : tensor));
      }
      const { network, preconditioning } = loadCheckpoint(at("parts"));
      expect([...network.parameters()].length).toBeGreaterThan(100);
      network.dispose();
      preconditioning.dispose();
    });
    expect(JSON.parse(readFileSync(join(at("parts"), "config.json"), "utf8")).dtype).toBe("float16");
    const card = readFileSync(join(at("parts"), "README.md"), "utf8");
    expect(card).toContain("`model-00001-of-00003.safetensors` to `model-00003-of-00003.safetensors`, float16");
  });

  it("of a folder with a published name becomes that release, and one of another network does not", async () => {
    const folder = at("CC12M_256_RIN_small_flow_multi_cad");
    mkdirSync(folder);
    copyFileSync(ckpt, join(folder, "last.ckpt"));
    expect(await refused(folder, "--output", at("named"))).toMatch(
      /named as without synthetic captions of nicolas-dufour\/miro-ablations.*knows clip_score, sharpness/,
    );
    expect(existsSync(at("named"))).toBe(false);
  });

  it("without EMA weights or normalization is refused with what to do, and leaves nothing", async () => {
    const compiled = join(fixtures, "compiled.ckpt");
    expect(await refused(compiled, "--output", at("none"))).toMatch(/holds no EMA weights; --ema raw/);
    expect(await refused(compiled, "--output", at("none"), "--ema", "raw")).toMatch(
      /holds no normalization of latents/,
    );
    expect(await refused(ckpt, "--output", at("none"), "--ema", "2")).toMatch(/--ema: expected 0 to 1/);
    expect(existsSync(at("none"))).toBe(false);
  });

  it("of a compiled network, with its configuration beside it, is the same network", async () => {
    const folder = at("compiled");
    mkdirSync(folder);
    copyFileSync(join(fixtures, "compiled.ckpt"), join(folder, "last.ckpt"));
    writeFileSync(join(folder, "config.yaml"), CONFIG_YAML);
    copyFileSync(join(at("release-network"), "uncond_embedding.npy"), join(folder, "flan_t5_xl_uncond.npy"));
    await converted(folder, "--output", at("of-compiled"), "--ema", "raw");
    const [one, other] = [at("release-network"), at("of-compiled")].map((path) =>
      JSON.parse(readFileSync(join(path, "release.json"), "utf8")),
    );
    expect(one.check).toEqual(other.check);
    const config = JSON.parse(readFileSync(join(at("of-compiled"), "config.json"), "utf8"));
    expect(config.network).toMatchObject({ num_cond_tokens: 5, coherence_dropout: 0.25, use_self_conditioning: true });
    expect([config.sampler_defaults.guidance_scale, config.img_resolution]).toEqual([5, 48]);
    writeFileSync(join(folder, "config.yaml"), CONFIG_YAML.replace("num_blocks: 1", "num_blocks: 4"));
    expect(await refused(folder, "--output", at("none"), "--ema", "raw")).toMatch(
      /states network\.num_blocks = 4, the tensors are of a network with 1/,
    );
  });

  it("is not replaced with what it is in, be it a folder with config.json or a release around it", async () => {
    const home = at("around");
    await converted(ckpt, "--output", home);
    copyFileSync(ckpt, join(home, "last.ckpt"));
    const again = [join(home, "last.ckpt"), "--output", home, "--overwrite"];
    expect(await refused(...again)).toMatch(/around holds .*last\.ckpt, which would go with it/);
    rmSync(join(home, "uncond_embedding.npy"));
    expect(await refused(...again)).toMatch(/around holds files and is no release/);
    expect(existsSync(join(home, "last.ckpt"))).toBe(true);
  });

  it("is left when it is asked to stop, and the folder is as it was", async () => {
    const stopped = await runStoppable(["convert", ckpt, "--output", at("stopped")], AbortSignal.abort());
    expect(stopped).toMatchObject({
      code: 130,
      stderr: expect.stringMatching(/stopped is as it was; the same command/),
    });
    for (const when of ["writing", "a tensor", "checking"]) {
      const stop = new AbortController();
      const said = (what: string) => what.startsWith(when) && stop.abort();
      const onBytes = vi.fn(() => said("a tensor"));
      using source = openSource(ckpt, {});
      const work = convertToRelease(source, {
        output: at("stopped"),
        dtype: "float32",
        maxShardBytes: 1e9,
        overwrite: false,
        card: {},
        signal: stop.signal,
        onMessage: said,
        onBytes,
      });
      await expect(work).rejects.toThrow(/abort/);
      if (when === "a tensor") expect(onBytes).toHaveBeenCalledOnce();
    }
    expect(readdirSync(at(".")).filter((name) => name.includes("stopped"))).toEqual([]);
  });

  it("is left between two tensors of a checkpoint, too", async () => {
    const into = ["--to", "ckpt", "--output", at("stopped/ckpt")];
    const { code, stderr } = await runStoppable(["convert", at("release-network"), ...into], AbortSignal.abort());
    expect(code).toBe(130);
    expect(stderr).toMatch(/^Interrupted: .*init\.ckpt is as it was; the same command begins anew$/m);
    const stop = new AbortController();
    const onBytes = vi.fn(() => stop.abort());
    using source = openSource(at("release-network"), {});
    await expect(writeCkpt(at("stopped.ckpt"), source, { onBytes, signal: stop.signal })).rejects.toThrow(/abort/);
    expect(onBytes).toHaveBeenCalledOnce();
    expect(readdirSync(at(".")).filter((name) => name.includes("stopped"))).toEqual([]);
  });

  it("does not replace what is no release, and a release only when asked to", async () => {
    mkdirSync(at("mine"));
    writeFileSync(join(at("mine"), "thesis.txt"), "words");
    expect(await refused(ckpt, "--output", at("mine"), "--overwrite")).toMatch(/holds files and is no release/);
    expect(await refused(ckpt, "--output", at("release-network"))).toMatch(/holds a release; --overwrite replaces it/);
    await converted(ckpt, "--output", at("release-network"), "--ema", "raw", "--overwrite");
    expect(readFileSync(join(at("mine"), "thesis.txt"), "utf8")).toBe("words");
  });

  /** With other tensors under some names. */
  const replaced = (name: string, tensors: Record<string, number[]>) =>
    rewritten(name, (entries) => [
      ...entries,
      ...Object.entries(tensors).map(([name, shape]): [string, Tensor] => [name, zeros(shape)]),
    ]);
  const without = (name: string, pattern: RegExp) =>
    rewritten(name, (entries) => entries.filter(([name]) => !pattern.test(name)));

  it("whose tensors are not those of a network is refused by name", async () => {
    const broken = rewritten("broken", (entries) => {
      const tensors = new Map(entries);
      tensors.delete("ema_network.data_ln.weight");
      tensors.set("ema_network.time_embedder.map_time_input.bias", zeros([3]));
      return [...tensors.set("ema_network.extra", zeros([1]))];
    });
    expect(await refused(broken, "--output", at("none"))).toMatch(
      /missing \(1\): network\.data_ln\.weight; not of this network \(1\): network\.extra; of another shape \(1\): network\.time_embedder\.map_time_input\.bias: expected \[16\], found \[3\]/,
    );
    expect(existsSync(at("none"))).toBe(false);
  });

  it.each([
    // Its shape is looked at.
    [
      () => without("no-registers", /^ema_network\.text_registers$/),
      /the tensor ema_network\.text_registers is missing/,
    ],
    [() => replaced("flat", { "ema_network.latents": [] }), /the tensor ema_network\.latents has the shape \[\]/],
    [
      () => replaced("flat-scale", { "postprocessing.scale": [] }),
      /postprocessing\.scale: expected shape .* found \[\]/,
    ],
    [() => without("no-rewards", /coherence_embedder/), /network\.coherence_keys: must be a list of keys/],
    [() => without("no-layer", /logvar_proj\.1/), /the tensor preconditioning\.logvar_proj\.1\.weight is missing/],
    [
      () => replaced("twice", { "ema_network._orig_mod.latents": [1] }),
      /state_dict holds both ema_network\.latents and ema_network\._orig_mod\.latents/,
    ],
  ])("of tensors that are no network is refused with its own name (%#)", async (make, problem) => {
    const path = make();
    const said = await refused(path, "--output", at("none"));
    expect(said).toMatch(problem);
    expect(said).toContain(path);
  });

  it("is released with ema_network also where other EMA weights stand before it", async () => {
    const isFirst = ([name]: [string, Tensor]) => name.startsWith("ema_network.");
    const swapped = rewritten("swapped", (entries) => [
      ...entries.filter((entry) => !isFirst(entry)),
      ...entries.filter(isFirst),
    ]);
    await converted(swapped, "--output", at("of-swapped"));
    const [first, second] = [ckpt, swapped].map((path) => stateBytes(path));
    expect(below(second!, "ema_network")).toEqual(below(first!, "ema_network"));
    scope(() => {
      const tensors = readSafetensors(join(at("of-swapped"), "model.safetensors"));
      const released = new Map([...tensors].map(([name, tensor]) => [name, bytesOf(tensor)]));
      expect(below(released, "network")).toEqual(below(first!, "ema_network"));
    });
  });

  it("whose tensors were sorted needs to be told the order of its rewards, and is the same model then", async () => {
    const renamed = (entries: [string, Tensor][]) =>
      entries.map(([name, tensor]): [string, Tensor] => [name.replace("clip_score", "tones"), tensor]);
    const ordered = rewritten("ordered", renamed);
    const sorted = rewritten("sorted", (entries) => renamed(entries).sort(([a], [b]) => (a < b ? -1 : 1)));
    expect(await refused(sorted, "--output", at("none"))).toMatch(
      /sorted\/last\.ckpt: the tensors are not in the order .*coherence_keys.*config\.yaml/,
    );
    await converted(ordered, "--output", at("in-order"));
    expect(readReleaseConfig(at("in-order")).coherenceKeys).toEqual(["tones", "sharpness"]);
    copyFileSync(join(at("in-order"), "config.json"), join(at("sorted"), "config.json"));
    await converted(sorted, "--output", at("of-sorted"));
    const bytes = (folder: string) => readFileSync(join(at(folder), "model.safetensors"));
    expect(bytes("of-sorted").equals(bytes("in-order"))).toBe(true);
    expect(readReleaseConfig(at("of-sorted")).coherenceKeys).toEqual(["tones", "sharpness"]);
  });
});

describe("a release as the source of another", () => {
  const copy = (name: string, ...flags: string[]) => converted(ckpt, "--output", at(name), ...flags);

  it("keeps the constant that it holds, and takes the one that it lacks as drawing does", async () => {
    await copy("half-constants");
    const weights = join(at("half-constants"), "model.safetensors");
    scope(() => {
      const tensors = readSafetensors(weights);
      tensors.delete("postprocessing.scale");
      tensors.delete("data_preprocessing.bias");
      tensors.set("postprocessing.bias", full([1, 4, 1, 1], 3));
      const copies = new Map([...tensors].map(([name, tensor]) => [name, tensor.clone()]));
      writeSafetensors(weights, copies);
    });
    await converted(at("half-constants"), "--output", at("whole-constants"));
    scope(() => {
      const [before, after] = [loadCheckpoint(at("half-constants")), loadCheckpoint(at("whole-constants"))];
      for (const part of ["preprocessing", "postprocessing"] as const)
        for (const constant of ["scale", "bias"] as const)
          expect(bytesOf(after[part][constant])).toBe(bytesOf(before[part][constant]));
      expect(after.postprocessing.bias.view(-1).toList()).toEqual([3, 3, 3, 3]);
    });
  });

  it("hands on what it says of its weights", async () => {
    await copy("first", "--ema", "1");
    const written = JSON.parse(readFileSync(join(at("first"), "release.json"), "utf8"));
    const training = { batchSize: 8, maxSteps: 9, precision: "32-true", optimizer: "lamb", lr: 0.5 };
    writeFileSync(join(at("first"), "release.json"), JSON.stringify({ ...written, training }));
    await converted(at("first"), "--output", at("second"), "--dtype", "float16");
    const {
      average,
      step,
      training: kept,
      dtype,
    } = JSON.parse(readFileSync(join(at("second"), "release.json"), "utf8"));
    expect([average, step, kept, dtype]).toEqual(["EMA weights, decay 0.999", 3, training, "float16"]);
    expect(readFileSync(join(at("second"), "README.md"), "utf8")).toContain("9 steps planned, batch 8");
    writeFileSync(join(at("second"), "release.json"), "{}");
    await converted(at("second"), "--output", at("third"));
    expect(readFileSync(join(at("third"), "README.md"), "utf8")).toContain("float32, the weights of a release");
  });

  it("is read as its index says", async () => {
    await copy("indexed", "--max-shard-size", "50kB");
    const index = join(at("indexed"), "model.safetensors.index.json");
    const json = JSON.parse(readFileSync(index, "utf8"));
    json.weight_map["network.latents"] = json.weight_map["postprocessing.scale"];
    writeFileSync(index, JSON.stringify(json));
    expect(await refused(at("indexed"), "--output", at("none"))).toMatch(
      /indexed\/model-\d+-of-\d+\.safetensors: lacks network\.latents, which .*index\.json says is in it/,
    );
  });

  it.each([[[1, 7]], [[0, 6]], [[2, 3, 6]], [[]]])(
    "with text states of shape %j is refused by their name",
    async (shape) => {
      const folder = `states-${shape.join("-")}`;
      await copy(folder);
      const file = join(at(folder), "uncond_embedding.npy");
      scope(() => writeNpy(file, zeros(shape)));
      expect(await refused(at(folder), "--output", at("none"))).toContain(
        `${file}: expected shape (6,) or (n, 6), found`,
      );
    },
  );
});

const CONFIG_YAML = `
data: { img_resolution: 48, data_resolution: 4, label_dim: 6, num_cond_tokens: 5 }
logger: { project: "\${oc.env:WANDB_PROJECT,miro}" }
model:
  cfg_rate: 5.0
  channel_wise_normalisation: true
  network:
    coherence_keys: [clip_score, sharpness]
    instance:
      _target_: miro.models.networks.rin.CADRINTextCond
      data_size: \${data.data_resolution}
      label_dim: \${data.label_dim}
      num_cond_tokens: \${data.num_cond_tokens}
      coherence_keys: \${model.network.coherence_keys}
      num_blocks: 1
      coherence_dropout: 0.25
  inference_noise_scheduler: { _target_: x, start: 1, end: 0, clip_min: 1e-9 }
`;

describe("a configuration of the published code", () => {
  const read = (text: string) => {
    const folder = at("configuration");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "config.yaml"), text);
    return readRunConfiguration(folder);
  };

  it("has its references followed, those to the environment left out, and circles ended", () => {
    const parsed = read(CONFIG_YAML)!;
    expect(parsed.network).toMatchObject({ data_size: 4, label_dim: 6, coherence_keys: ["clip_score", "sharpness"] });
    expect(parsed.scheduler).toEqual({ start: 1, end: 0, clip_min: 1e-9 });
    // biome-ignore-start lint/suspicious/noTemplateCurlyInString: references as they stand in such a file
    const circle =
      "model: { cfg_rate: '${a.b}', network: { instance: { data_size: '${oc.env:X}' } } }\na: { b: '${model.cfg_rate}' }";
    // biome-ignore-end lint/suspicious/noTemplateCurlyInString: as above
    expect(read(circle)).toMatchObject({ network: {} });
  });

  it("is refused with its name where it is none, is nested without end or grows from aliases", () => {
    const aliases = [
      "a: &a [x, x]",
      ..."bcdefghi".split("").map((name, i) => `${name}: &${name} [${Array(9).fill(`*${"abcdefgh"[i]}`).join(", ")}]`),
    ];
    for (const [text, error] of [
      ["a: [", /config\.yaml:1: not valid YAML/],
      ["- 1", /config\.yaml: expected a mapping of settings of a run/],
      [`a: ${"[".repeat(20_000)}`, /config\.yaml:1: not valid YAML/],
      [aliases.join("\n"), /config\.yaml: not valid YAML: Excessive alias count/],
    ] as const)
      expect(() => read(text), text.slice(0, 40)).toThrow(error);
  });
});

describe("presets", () => {
  it("are the sixteen published folders", () => {
    const folders = [...PRESETS.keys()];
    expect(folders.length).toBe(RELEASES.length);
    expect(PRESETS.get("CC12M_256_RIN_small_flow_multi_cad_synth_synth_p50")?.variant).toBeUndefined();
    expect(PRESETS.get("CC12M_256_RIN_small_flow_multi_cad_no_pick")?.variant).toBe("miro-no-pickscore");
    expect(PRESETS.get("CC12M_256_RIN_small_flow_multi_cad_no_image_reward")?.variant).toBe("miro-no-image-reward");
    expect(PRESETS.get("CC12M_256_RIN_small_flow_pick_a_score_score_cad")?.rewards).toEqual(["pick_a_score_score"]);
    expect(PRESETS.get("CC12M_256_RIN_small_flow_multi_cad")?.rewards).toEqual(REWARD_KEYS);
  });
});

describe("sizes", () => {
  it.each([
    ["5GB", 5e9],
    ["1.5MiB", 1572864],
    ["1000", 1000],
    ["5 TiBs", undefined],
    ["0", undefined],
    ["-1GB", undefined],
  ])("%s is %s", (text, bytes) => expect(parseSize(text)).toBe(bytes));
});

describe("a run of miro train", () => {
  const run = at("run");
  const ema = { decay: [0.9, 0.5], default_index: 1 };
  beforeAll(async () => {
    await runTraining({ recipe: tinyRecipe({ precision: "32-true" }, { ema }), output: run });
    // Made-up data have no constants; those of real data are stored so.
    scope(() =>
      writeConstants(run, {
        normalization: { scale: full([1, 4, 1, 1], 0.5), bias: ones([1, 4, 1, 1]) },
        uncondEmbedding: randn([1, 6]),
      }),
    );
  });

  it("is released with the EMA weights that it draws with, and with others where they are named", async () => {
    await converted(run, "--output", at("of-run"));
    await converted(run, "--output", at("of-run-0"), "--ema", "0", "--step", "8");
    await converted(run, "--output", at("of-run-raw"), "--ema", "raw");
    const newest = listCheckpoints(join(run, "checkpoints")).at(-1)!.path;
    scope(() => {
      const stored = readSafetensors(join(newest, "network.safetensors"));
      const raw = readSafetensors(join(at("of-run-raw"), "model.safetensors"));
      for (const [name, tensor] of stored) expect(bytesOf(raw.get(name)!), name).toBe(bytesOf(tensor));
      const expected = readSafetensors(join(newest, "ema_0_5.safetensors"));
      const found = readSafetensors(join(at("of-run"), "model.safetensors"));
      expect(expected.size).toBeGreaterThan(100);
      for (const [name, tensor] of expected) expect(bytesOf(found.get(`network.${name}`)!), name).toBe(bytesOf(tensor));
      expect(found.get("postprocessing.scale")!.view(-1).toList()).toEqual([0.5, 0.5, 0.5, 0.5]);
    });
    const facts = JSON.parse(readFileSync(join(at("of-run-0"), "release.json"), "utf8"));
    expect(facts).toMatchObject({ step: 8, average: "EMA weights, decay 0.9", training: { batchSize: 4 } });
  });

  it("becomes a checkpoint of the published code with its moments, step and schedule, and goes on here from it", async () => {
    await converted(run, "--to", "ckpt", "--output", at("resumed"));
    const last = join(at("resumed"), "last.ckpt");
    const state = stateBytes(last);
    expect(stepOf(last)).toBe(9);
    const newest = listCheckpoints(join(run, "checkpoints")).at(-1)!.path;
    scope(() => {
      for (const [name, tensor] of readSafetensors(join(newest, "network.safetensors")))
        expect(state.get(name), name).toBe(bytesOf(tensor));
      for (const [name, tensor] of readSafetensors(join(newest, "ema_0_5.safetensors")))
        expect(state.get(`ema_network_0_5.${name}`), name).toBe(bytesOf(tensor));
    });
    const goOn = (output: string, from: object) =>
      runTraining({ recipe: tinyRecipe({ max_steps: 12 }, { ema, ...from }), output });
    await goOn(at("from-ckpt"), { initialization: { from: last, continue: true } });
    await runTraining({
      recipe: tinyRecipe({ max_steps: 12 }, { ema }),
      output: run,
      resume: true,
      allowChanges: true,
    });
    const [theirs, ours] = [at("from-ckpt"), run].map(
      (path) => listCheckpoints(join(path, "checkpoints")).at(-1)!.path,
    );
    scope(() => {
      const found = readSafetensors(join(theirs!, "optimizer.safetensors"));
      for (const [name, tensor] of readSafetensors(join(ours!, "optimizer.safetensors")))
        expect(bytesOf(found.get(name)!), name).toBe(bytesOf(tensor));
    });
  });

  it("is not written as a checkpoint of the published code into a release or a run, nor over a configuration", async () => {
    const release = at("with-ckpt");
    await converted(run, "--output", release);
    const before = readdirSync(release);
    for (const source of [release, run])
      for (const [folder, what] of Object.entries({ [release]: "a release", [run]: "a run" }))
        expect(await refused(source, "--to", "ckpt", "--output", folder, "--overwrite")).toBe(
          `error: --output: ${folder} holds ${what}; name another folder\n`,
        );
    expect(readdirSync(release)).toEqual(before);
    mkdirSync(at("configured"));
    writeFileSync(join(at("configured"), "config.json"), "{}");
    const into = ["--to", "ckpt", "--output", at("configured")];
    expect(await refused(release, ...into)).toMatch(/configured\/config\.json exists; --overwrite replaces it\n$/);
    await converted(release, ...into, "--overwrite");
    expect(readdirSync(at("configured")).sort()).toEqual(["config.json", "init.ckpt"]);
  });

  it("without reweighting gives its checkpoint the parameters that the published code then has, and goes on from it", async () => {
    const output = at("plain");
    const rest = {
      ema,
      preconditioning: { do_gradnorm_reweighting: false },
      network: { ...tinyRecipe().network, latent_mlp_multiplier: 2, use_self_conditioning: true },
    };
    await runTraining({ recipe: tinyRecipe({}, rest), output });
    copyFileSync(join(run, "constants.safetensors"), join(output, "constants.safetensors"));
    await converted(output, "--to", "ckpt", "--output", at("plain-ckpt"));
    const last = join(at("plain-ckpt"), "last.ckpt");
    expect([...stateBytes(last).keys()].filter((name) => name.startsWith("preconditioning."))).toEqual([]);
    using file = TorchCheckpoint.open(last);
    const [optimizer] = (file.root as Map<string, Map<string, Map<string, number[]>[]>[]>).get("optimizer_states")!;
    const listed = optimizer!.get("param_groups")!.flatMap((group) => group.get("params")!).length;
    const masks = [...stateBytes(last)].filter(([name, value]) => /^network\./.test(name) && value.startsWith("bool"));
    const { network } = modelSize(tinyRecipe({}, rest));
    expect(listed).toBe(network.tensors + masks.length);
    const result = await runTraining({
      recipe: tinyRecipe({ max_steps: 10 }, { ...rest, initialization: { from: last, continue: true } }),
      output: at("plain-on"),
    });
    expect(result).toMatchObject({ finished: true, step: 10 });
  });

  it("that is damaged, or stores no constants, is refused", async () => {
    expect(await refused(run, "--output", at("none"), "--step", "7")).toMatch(/holds no checkpoint of step 7/);
    rmSync(join(run, "constants.safetensors"));
    expect(await refused(run, "--output", at("none"))).toMatch(/stores no constants of its data/);
    expect(existsSync(at("none"))).toBe(false);
  });
});

describe("memory", () => {
  it("is at most 1.2 times the output, whatever the checkpoint holds beside", () => {
    const big = at("big.ckpt");
    manualSeed(1);
    const config = tinyConfig({ latents_dim: 768, data_dim: 256, num_processing_layers: 1, num_blocks: 1 });
    scope(() => {
      const [network, preconditioning] = [nn.init.skipped(() => new Rin(config)), new FlowPrecond()];
      const state = new Map<string, Tensor>();
      for (const [name, tensor] of network.stateDict()) {
        const values = tensor.dtype === "bool" ? tensor : randn(tensor.shape).mul(0.02);
        for (const module of ["network", "ema_network"]) state.set(`${module}.${name}`, values);
      }
      for (const [name, tensor] of preconditioning.stateDict()) state.set(`preconditioning.${name}`, tensor);
      for (const module of ["data_preprocessing", "postprocessing"]) {
        state.set(`${module}.scale`, ones([1, 4, 1, 1]));
        state.set(`${module}.bias`, zeros([1, 4, 1, 1]));
      }
      writeTorchCheckpoint(big, { state_dict: state.set("uncond_conditioning", zeros([1, 24])) });
      network.dispose();
      preconditioning.dispose();
    });
    const dist = pathToFileURL(join(import.meta.dirname, "../../dist/")).href;
    const program = `
import { openSource } from "${dist}release/open-source.js";
import { convertToRelease } from "${dist}release/convert.js";
import { statSync } from "node:fs";
const convert = async (path, output) => {
  const source = openSource(path);
  await convertToRelease(source, { output, dtype: "float32", maxShardBytes: 5e9, overwrite: false, card: {} });
  source[Symbol.dispose]();
};
await convert(${JSON.stringify(ckpt)}, ${JSON.stringify(at("small"))});
const before = process.resourceUsage().maxRSS;
await convert(${JSON.stringify(big)}, ${JSON.stringify(at("large"))});
const bytes = statSync(${JSON.stringify(join(at("large"), "model.safetensors"))}).size;
console.log(JSON.stringify({ ratio: (process.resourceUsage().maxRSS - before) * 1024 / bytes, bytes }));
`;
    const printed = execFileSync(process.execPath, ["--input-type=module", "--eval", program], {
      encoding: "utf8",
      env: { ...process.env, OMP_NUM_THREADS: "1" },
    });
    const { ratio, bytes } = JSON.parse(printed);
    expect(bytes).toBeGreaterThan(80e6);
    expect(ratio).toBeLessThan(1.2);
  }, 60_000);
});

describe("cards", () => {
  it("have a header that the Hub reads, and speak of the checkpoint's own rewards alone", async () => {
    const { stdout } = await runCaptured(
      "card",
      at("release-ema_network"),
      "--repo",
      "me/toy",
      "--license",
      "mit",
      "--title",
      "Toy: a | b",
    );
    expect(stdout.trim()).toBe(join(at("release-ema_network"), "README.md"));
    const text = readFileSync(stdout.trim(), "utf8");
    const header = parse(/^---\n([\s\S]*?)\n---\n/.exec(text)![1]!);
    expect(header).toMatchObject({ license: "mit", library_name: "miro-t2i", pipeline_tag: "text-to-image" });
    expect(header.tags).toContain("reward-conditioning");
    for (const key of REWARD_KEYS) expect(text.includes(key)).toBe(key === "clip_score");
    expect(text).toContain("| `sharpness` |");
    expect(text).toContain('MiroPipeline.fromPretrained("me/toy")');
    const { check } = JSON.parse(readFileSync(join(at("release-ema_network"), "release.json"), "utf8"));
    expect(text).toContain(check.sha256);
    expect(text).toContain("float32, EMA weights, step 3");
  });

  it("write the names of rewards as the shell and Markdown take them", async () => {
    const odd = rewritten("odd", (entries) =>
      entries.map(([name, tensor]) => [name.replace("clip_score", "its `look` | $(date)"), tensor]),
    );
    await converted(odd, "--output", at("odd-names"), "--repo", "me/toy");
    const text = readFileSync(join(at("odd-names"), "README.md"), "utf8");
    expect(text).toContain("| ``its `look` \\| $(date)`` | 0 to 1 |");
    expect(text).toContain("--reward 'its `look` | $(date)=1' --reward sharpness=0.3\n");
  });

  it("of a folder of variants list them", async () => {
    mkdirSync(at("variants"));
    await converted(ckpt, "--output", join(at("variants"), "one"), "--repo", "me/toys", "--variant", "one");
    await converted(
      ckpt,
      "--output",
      join(at("variants"), "two"),
      "--ema",
      "1",
      "--repo",
      "me/toys",
      "--variant",
      "two",
    );
    const { code, stdout } = await runCaptured("card", at("variants"), "--repo", "me/toys", "--json");
    expect(JSON.parse(stdout)).toEqual({ file: at("variants/README.md") });
    expect(code).toBe(0);
    const text = readFileSync(join(at("variants"), "README.md"), "utf8");
    for (const name of ["one", "two"])
      expect(text).toContain(`| [\`${name}\`](${name}) | 2 | \`clip_score\`, \`sharpness\` |`);
    expect(readFileSync(join(at("variants"), "one", "README.md"), "utf8")).toContain('{ variant: "one" }');
    expect((await runCaptured("card", at("mine"))).stderr).toMatch(/neither a release/);
  });
});

/** A Python with torch that has the published package `miro-t2i`. */
const python = process.env.MIRO_PYTHON ?? "";
const hasPackage =
  python !== "" &&
  spawnSync(python, ["-c", "import importlib.util as u, sys; sys.exit(not u.find_spec('miro'))"]).status === 0;

describe.runIf(hasPackage)("the published Python code", () => {
  it.each([
    ["back-ema_network", "init.ckpt", 0],
    ["resumed", "last.ckpt", 9],
  ])("loads %s/%s, moments included, and makes a step", (folder, file, step) => {
    const result = spawnSync(
      python,
      ["-c", PROGRAM, join(at(folder), file), join(at(folder), "config.json"), String(step)],
      {
        encoding: "utf8",
        env: {
          ...process.env,
          PYTHONPATH: [join(import.meta.dirname, "../../../../tests/reference"), process.env.PYTHONPATH]
            .filter(Boolean)
            .join(":"),
        },
      },
    );
    expect(result.status, result.stderr).toBe(0);
  });
});

const hasLightning =
  hasPackage &&
  spawnSync(python, ["-c", "import importlib.util as u, sys; sys.exit(not u.find_spec('pytorch_lightning'))"])
    .status === 0;

describe.runIf(hasLightning)("PyTorch Lightning", () => {
  it.each(["resumed", "plain-ckpt"])(
    "resumes a training from %s, and finds all of it restored",
    (folder) => {
      const script = join(import.meta.dirname, "../../../../tests/reference/resume_lightning.py");
      const result = spawnSync(python, [script, at(folder)], { encoding: "utf8" });
      expect(result.status, result.stderr).toBe(0);
      expect(JSON.parse(result.stdout.trim().split("\n").at(-1)!)).toMatchObject({
        from: 9,
        to: 12,
        "same loops": true,
      });
    },
    120_000,
  );
});

const PROGRAM = `
import json, sys, torch
from make_reference import allow_missing_torchvision, parameter_groups
allow_missing_torchvision()
from miro.models.networks.rin import CADRINTextCond
from miro.models.preconditioning import FlowPrecond
from miro.utils.lr_scheduler import WarmupCosineDecayLR
from miro.utils.optimizers import Lamb
path, config, step = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3])
c = torch.load(path, weights_only=True)
net, ema = CADRINTextCond(**config["network"]), CADRINTextCond(**config["network"])
pre = FlowPrecond(num_latents=config["network"]["num_latents"], latents_dim=config["network"]["latents_dim"], sigma_data=0.5)
part = lambda name: {k[len(name) + 1:]: v for k, v in c["state_dict"].items() if k.startswith(name + ".")}
net.load_state_dict(part("network")), ema.load_state_dict(part("ema_network")), pre.load_state_dict(part("preconditioning"))
opt = Lamb(parameter_groups(net, pre, weight_decay=0.01), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, eps=1e-8, decouple=False)
opt.load_state_dict(c["optimizer_states"][0])
schedule = WarmupCosineDecayLR(opt, warmup_steps=1, total_steps=2, rate=0.8)
schedule.load_state_dict(c["lr_schedulers"][0])
assert c["global_step"] == step
trained = [p for g in opt.param_groups for p in g["params"] if p.requires_grad]
moments = [opt.state[p] for p in trained if p in opt.state]
assert (len(moments) > 100) == (step > 0), len(moments)
for p in trained:
    if p in opt.state:
        assert opt.state[p]["exp_avg"].shape == p.shape and opt.state[p]["step"] == step, opt.state[p]["step"]
    p.grad = torch.ones_like(p)
opt.step()
schedule.step(step + 1)
`;
