/**
 * Checkpoints as an attacker, a broken disk or a careless tool would make them. Each is refused in one line that names
 * the file, before anything large is allocated: the process's largest resident size hardly grows.
 */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { full, memory, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { readSafetensors, writeNpy, writeSafetensors } from "@miro-t2i/torch/io";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MiroPipeline } from "../pipeline.js";

const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
const HUGE = 1e12;
/**
 * MiB that an attempt may add to the process's largest resident size: room for the garbage of a parser (JSON nested 10⁶
 * deep leaves 60 to 100 before it is collected), far below what the files above claim to hold (gigabytes).
 */
const ALLOWED_MIB = 256;

let home: string;
let folder: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "miro-hostile-"));
  folder = join(home, "model");
  cpSync(join(tiny, "checkpoint"), folder, { recursive: true });
  for (const part of ["text_encoder", "vae"]) cpSync(join(tiny, part), join(folder, part), { recursive: true });
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

const at = (...path: string[]) => join(folder, ...path);

/** Loads everything, the text encoder too. */
async function loadAll(variant?: string): Promise<void> {
  const pipe = await MiroPipeline.fromPretrained(folder, { dtype: "float32", variant });
  try {
    await pipe.textEncoder();
  } finally {
    await pipe.dispose();
  }
}

/** Rewrites a tensor file. */
function edit(change: (tensors: Map<string, Tensor>) => void, path = at("model.safetensors")): void {
  scope(() => {
    const tensors = new Map([...readSafetensors(path)].map(([name, t]) => [name, t.clone()]));
    change(tensors);
    writeSafetensors(path, tensors);
  });
}

/** Rewrites the header of a tensor file, and nothing behind it. */
function editHeader(change: (header: Record<string, any>) => void): void {
  const bytes = readFileSync(at("model.safetensors"));
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  change(header);
  rawHeader(JSON.stringify(header), bytes.subarray(8 + length));
}

function rawHeader(json: string, data: Uint8Array = new Uint8Array()): void {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(Buffer.byteLength(json)));
  writeFileSync(at("model.safetensors"), Buffer.concat([size, Buffer.from(json), data]));
}

function configure(change: (config: Record<string, any>) => void, path = at("config.json")): void {
  const config = JSON.parse(readFileSync(path, "utf8"));
  change(config);
  writeFileSync(path, JSON.stringify(config));
}

const network = (values: object) => () => configure((c) => Object.assign(c.network, values));
const vae = (values: object) => () => configure((c) => Object.assign(c, values), at("vae", "config.json"));
const text = (values: object) => () => configure((c) => Object.assign(c, values), at("text_encoder", "config.json"));
const deep = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

function npyHeader(dictionary: string): void {
  const header = Buffer.alloc(128, " ");
  header.write("\x93NUMPY\x01\x00", "latin1");
  header.writeUInt16LE(118, 8);
  header.write(dictionary, 10);
  header.write("\n", 127);
  writeFileSync(at("uncond_embedding.npy"), Buffer.concat([header, Buffer.alloc(48 * 4)]));
}

/** The text encoder's weights as two shards with an index. */
function shard(change: (map: Record<string, unknown>) => void): void {
  const path = at("text_encoder", "model.safetensors");
  const map: Record<string, unknown> = Object.fromEntries(
    scope(() => [...readSafetensors(path).keys()].map((name) => [name, "model-00001-of-00002.safetensors"])),
  );
  renameSync(path, at("text_encoder", "model-00001-of-00002.safetensors"));
  change(map);
  writeFileSync(at("text_encoder", "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
}

type Case = [what: string, damage: () => void, message: RegExp, variant?: string];

const WEIGHTS: Case[] = [
  [
    "integers for weights",
    () => edit((t) => t.set("network.latents", zeros([8, 64], { dtype: "int64" }))),
    /model\.safetensors: .*wrong dtype \(1\): latents: expected a floating dtype, got I64/,
  ],
  [
    "a dtype that the engine lacks",
    () => editHeader((h) => Object.assign(h["network.latents"], { dtype: "F8_E4M3" })),
    /tensor "network\.latents".*F8_E4M3.*SizeMismatch/,
  ],
  [
    "NaN",
    () => edit((t) => void t.get("network.latents")!.view(-1).select(0, 77).fill_(Number.NaN)),
    /model\.safetensors, tensor "network\.latents": element 77 is not finite \(NaN\)/,
  ],
  [
    "infinity in the autoencoder",
    () =>
      edit(
        (t) => void t.get("decoder.conv_in.weight")!.view(-1).select(0, 5).fill_(Number.POSITIVE_INFINITY),
        at("vae", "diffusion_pytorch_model.safetensors"),
      ),
    /diffusion_pytorch_model\.safetensors, tensor "decoder\.conv_in\.weight": element 5 is not finite/,
  ],
  [
    "NaN in the text encoder",
    () =>
      edit(
        (t) => void t.get("shared.weight")!.view(-1).select(0, 5).fill_(Number.NaN),
        at("text_encoder", "model.safetensors"),
      ),
    /text_encoder\/model\.safetensors, tensor "shared\.weight": element 5 is not finite/,
  ],
  ["a missing tensor", () => edit((t) => void t.delete("network.data_ln.weight")), /missing \(1\): data_ln\.weight/],
  ["an extra tensor", () => edit((t) => void t.set("network.more", zeros([1]))), /unexpected \(1\): more/],
  [
    "a thousand extra tensors, of which it names a few",
    () =>
      edit((t) => {
        for (let i = 0; i < 1000; i++) t.set(`network.more${i}`, zeros([1]));
      }),
    /unexpected \(1000\): (more\d+, ){5}and 995 more$/,
  ],
  [
    "a shape of 10^12",
    () => editHeader((h) => Object.assign(h["network.latents"], { shape: [HUGE, 64] })),
    /tensor "network\.latents".*takes 256000000000000 bytes, data_offsets span/,
  ],
  [
    "a shape of 10^12 with offsets to match",
    () => editHeader((h) => Object.assign(h["network.latents"], { shape: [HUGE], data_offsets: [0, 4 * HUGE] })),
    /model\.safetensors, tensor .*\((Overlap|DataOutOfBounds|Hole)\)$/,
  ],
  [
    "a shape that overflows",
    () => editHeader((h) => Object.assign(h["network.latents"], { shape: Array(60).fill(HUGE) })),
    /ShapeOverflow/,
  ],
  [
    "a header of 2^60 bytes",
    () => {
      const bytes = readFileSync(at("model.safetensors"));
      bytes.writeBigUInt64LE(2n ** 60n);
      writeFileSync(at("model.safetensors"), bytes);
    },
    /HeaderTooLarge/,
  ],
  ["a header behind the end", () => truncateSync(at("model.safetensors"), 50), /HeaderOutOfBounds/],
  ["a header nested 10^6 deep", () => rawHeader(`{"a":${deep(1e6)}}`), /nesting deeper than/],
  ["a truncated file", () => truncateSync(at("model.safetensors"), 300_000), /DataOutOfBounds/],
  [
    "a pipe",
    () => {
      rmSync(at("model.safetensors"));
      execFileSync("mkfifo", [at("model.safetensors")]);
    },
    /not a regular file/,
  ],
  [
    "constants of a wrong shape",
    () => edit((t) => t.set("postprocessing.scale", zeros([1, 4, 1000, 1000]))),
    /postprocessing\.scale: expected shape \[1,4,1,1\], found \[1,4,1000,1000\]/,
  ],
];

const CONFIGS: Case[] = [
  ["no text", () => writeFileSync(at("config.json"), "\0\xff{"), /config\.json: is not UTF-8 text: a NUL at byte 0/],
  ["no JSON", () => writeFileSync(at("config.json"), "{{"), /config\.json: not valid JSON/],
  ["JSON of 10 GB", () => truncateSync(at("config.json"), 10e9), /config\.json: 10000000000 bytes are too many/],
  ["JSON nested 10^6 deep", () => writeFileSync(at("config.json"), `{"network": ${deep(1e6)}}`), /config\.json: /],
  [
    "a pipe",
    () => {
      rmSync(at("config.json"));
      execFileSync("mkfifo", [at("config.json")]);
    },
    /config\.json: not a regular file/,
  ],
  ["an unknown argument", network({ wings: 2 }), /config\.json: network\.wings: unknown argument/],
  ["a wrong type", network({ num_blocks: "many" }), /config\.json: network\.num_blocks: /],
  ["10^9 blocks", network({ num_blocks: 1e9 }), /expected 1000000000 RIN blocks as config\.json says, found 2/],
  [
    "10^9 layers",
    network({ num_processing_layers: 1e9 }),
    /expected 1000000000 processing layers as config\.json says, found 1/,
  ],
  ["10^12 latents", network({ num_latents: HUGE }), /network\.latents: expected shape \[1000000000000,64\]/],
  ["a width of 10^12", network({ latents_dim: 1.6e13 }), /expected shape/],
  ["a feed-forward layer 10^9 times as wide", network({ latent_mlp_multiplier: 1e9 }), /latent_mlp_multiplier: /],
  ["10^12 registers", network({ num_text_registers: HUGE }), /network\.text_registers: expected shape/],
  [
    "10^12 channels of the loss weight",
    () => configure((c) => Object.assign(c.preconditioning, { logvar_channels: HUGE })),
    /logvar_proj\.0\.freqs: expected shape \[1000000000000\]/,
  ],
  [
    "ten thousand rewards",
    () => {
      const keys = Array.from({ length: 1e4 }, (_, i) => `r${i}`);
      configure(
        (c) => Object.assign(c, { coherence_keys: keys }) && Object.assign(c.network, { coherence_keys: keys }),
      );
    },
    /coherence_positional_embedding: expected shape \[10000,64\]/,
  ],
  [
    "10^12 steps",
    () => configure((c) => Object.assign(c, { sampler_defaults: { num_steps: HUGE } })),
    /sampler_defaults\.num_steps: /,
  ],
  ["a text of 10^12 tokens", () => configure((c) => Object.assign(c, { max_text_len: HUGE })), /max_text_len: /],
];

const PARTS: Case[] = [
  [
    "an embedding of another width",
    () => scope(() => writeNpy(at("uncond_embedding.npy"), zeros([2, 3]))),
    /uncond_embedding\.npy: expected shape \(48,\) or \(n, 48\), found \(2, 3\)/,
  ],
  [
    "an embedding of Python objects",
    () => npyHeader("{'descr': '|O', 'fortran_order': False, 'shape': (1, 48), }"),
    /uncond_embedding\.npy.*descr '\|O' is not one of/,
  ],
  [
    "an embedding of 10^12 rows",
    () => npyHeader("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 48), }"),
    /uncond_embedding\.npy.*DataTooShort/,
  ],
  [
    "an embedding with code in its header",
    () => npyHeader("{'descr': __import__('os').system('x'), 'fortran_order': False, 'shape': (1, 48), }"),
    /uncond_embedding\.npy.*HeaderSyntax/,
  ],
  [
    "an embedding file of 10 GB",
    () => truncateSync(at("uncond_embedding.npy"), 10e9),
    /uncond_embedding\.npy: 10000000000 bytes are too many/,
  ],
  [
    "an embedding of NaN",
    () => scope(() => writeNpy(at("uncond_embedding.npy"), full([1, 48], Number.NaN))),
    /uncond_embedding\.npy: holds values that are not finite/,
  ],
  [
    "a tokenizer that is no JSON",
    () => writeFileSync(at("text_encoder", "tokenizer.json"), "\x89PNG"),
    /tokenizer\.json: not valid JSON/,
  ],
  [
    "a tokenizer of another kind",
    () => writeFileSync(at("text_encoder", "tokenizer.json"), '{"model":{"type":"BPE"}}'),
    /tokenizer\.json: model\.type: expected "Unigram"/,
  ],
  [
    "a tokenizer of 1 GB",
    () => truncateSync(at("text_encoder", "tokenizer.json"), 1e9),
    /tokenizer\.json: 1000000000 bytes are too many/,
  ],
  [
    "a tokenizer nested 10^6 deep",
    () => writeFileSync(at("text_encoder", "tokenizer.json"), `{"model":${deep(1e6)}}`),
    /tokenizer\.json: /,
  ],
  [
    "a text encoder of a thousand layers",
    text({ num_layers: 1000 }),
    /text_encoder\/config\.json: describes \d+ weights, .* holds/,
  ],
  ["a text encoder of 10^9 layers", text({ num_layers: 1e9 }), /text_encoder\/config\.json: num_layers: /],
  [
    "a text encoder with pickled weights only",
    () => renameSync(at("text_encoder", "model.safetensors"), at("text_encoder", "pytorch_model.bin")),
    /^textEncoder: .* holds its weights as text_encoder\/pytorch_model\.bin only, which can run code/,
  ],
  [
    "an index that leaves the folder",
    () => shard((map) => Object.assign(map, { "shared.weight": "../../etc/passwd" })),
    /model\.safetensors\.index\.json: "\.\.\/\.\.\/etc\/passwd" is not the name of a file beside it/,
  ],
  [
    "an index to a missing shard",
    () => shard((map) => Object.assign(map, { "shared.weight": "model-00002-of-00002.safetensors" })),
    /model-00002-of-00002\.safetensors: .*no such file/,
  ],
  [
    "an index that is a list",
    () => {
      shard(() => {});
      writeFileSync(at("text_encoder", "model.safetensors.index.json"), "[]");
    },
    /weight_map: expected an object/,
  ],
  [
    "an autoencoder that is a web page",
    () => writeFileSync(at("vae", "config.json"), "<html>"),
    /vae\/config\.json: a web page, not the file/,
  ],
  [
    "an autoencoder of an unknown kind",
    vae({ _class_name: "constructor" }),
    /_class_name: expected one of AutoencoderKL, PatchAutoencoder/,
  ],
  ["an autoencoder of 10^9 layers", vae({ layers_per_block: 1e9 }), /layers_per_block: /],
  ["an autoencoder of 10^9 channels", vae({ block_out_channels: [1e9, 1e9] }), /block_out_channels\.0: /],
  [
    "an autoencoder wider than its file",
    vae({ block_out_channels: [65_536, 65_536], norm_num_groups: 32 }),
    /describes at least \d+ weights, .* holds \d+/,
  ],
];

const PATHS: Case[] = [
  ["a variant that climbs out", () => {}, /^variant: .* has no variant "\.\.\/other"/, "../other"],
  ["a variant of no name", () => {}, /^variant: .* has no variant "\/etc"/, "/etc"],
  [
    "weights that are a link out of the folder",
    () => {
      renameSync(at("model.safetensors"), join(home, "elsewhere"));
      symlinkSync("../elsewhere", at("model.safetensors"));
    },
    /^model: .*model\.safetensors is a link out of the folder, to .*elsewhere/,
  ],
  [
    "a part that is a link out of the folder",
    () => {
      renameSync(at("vae"), join(home, "vae"));
      symlinkSync("../vae", at("vae"));
    },
    /^model: .*vae\/config\.json is a link out of the folder/,
  ],
  [
    "links in a circle",
    () => {
      rmSync(at("config.json"));
      symlinkSync("config.json", at("config.json"));
    },
    /config\.json is missing/,
  ],
  [
    "a folder for a file",
    () => {
      rmSync(at("config.json"));
      mkdirSync(at("config.json"));
    },
    /config\.json/,
  ],
];

describe.each([
  ["weights", WEIGHTS],
  ["configurations", CONFIGS],
  ["parts", PARTS],
  ["paths", PATHS],
])("hostile %s", (_group, cases) => {
  it.each(cases)("%s", async (_what, damage, message, variant) => {
    damage();
    const largest = () => process.resourceUsage().maxRSS / 1024;
    const [live, before] = [memory.stats().liveTensors, largest()];
    let error: Error | null = null;
    try {
      await loadAll(variant);
    } catch (caught) {
      error = caught as Error;
    }
    expect(error?.message).toMatch(message);
    expect(["InvalidInputError", "MiroError", "TorchError", "FormatError"]).toContain(error!.name);
    expect(error!.message).not.toContain("\n");
    expect(error!.message.length).toBeLessThan(1000);
    expect(memory.stats().liveTensors).toBe(live);
    expect(largest() - before).toBeLessThan(ALLOWED_MIB);
  });
});

it("the folder that is damaged above is good", () => loadAll());
