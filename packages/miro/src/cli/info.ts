/**
 * `miro info`: the settings in a picture, or what a checkpoint, a run, a text encoder, an autoencoder, a tensor file, a
 * training checkpoint or shards hold.
 */
import { existsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { CUT_REMEDY } from "../data/shards/shard-error.js";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { formatMemory } from "../files/sizes.js";
import { readJson } from "../files/whole-files.js";
import { message, option } from "../message.js";
import { counted, plural } from "../numbers.js";
import { field, flag } from "../options.js";
import { readImageFile } from "../pictures/image-files.js";
import { BUNDLED_MODEL, modelOrBundled } from "../pipeline/loading/bundled.js";
import type { ReleaseConfig } from "../pipeline/loading/release-config.js";
import { textToSettings } from "../pipeline/settings.js";
import { printable } from "../printable.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { Register } from "./context.js";
import { withFlags } from "./flag-names.js";
import { helpText } from "./help-text.js";
import { holdsShards, shardInfo, shardLines } from "./info-shards.js";
import { viewOf, viewOptions } from "./view.js";

const EXAMPLES = `
Examples:
  miro info pictures/a-fox-seed0.png       prompt, seed, rewards and everything else that made the picture
  miro info pictures/a-fox-seed0.png --show kitty
  miro info runs/emoji                     checkpoints of a run, and what the newest is as a model
  miro info miro-emoji                     configuration, tensors and parameters of a checkpoint; this is the bundled one
  miro info model.safetensors --json
  miro info epoch=14-step=250000.ckpt      what a training checkpoint of the published code holds; nothing in it is executed
  miro info data/emoji/train --plot scores.png --sheet samples.png     what shards hold, in words and pictures
`;

const schema = z.strictObject({
  path: field(z.string().min(1), {
    expected: "a path",
    help: "a PNG, WebP or JPEG picture, a folder with config.json, a run, a .safetensors, .npy or .ckpt file, a tar shard or a folder of shards",
    flag: "<path>",
  }),
  plot: field(
    z
      .string()
      .regex(/\.(?:png|svg)$/i)
      .optional(),
    {
      expected: "a file that ends in .png or .svg",
      help: "of shards: histograms of the numbers in their metadata, as .png or .svg",
      flag: "--plot <file>",
      writes: "file",
    },
  ),
  sheet: field(
    z
      .string()
      .regex(/\.png$/i)
      .optional(),
    {
      expected: "a file that ends in .png",
      help: "of shards: pictures with their captions and scores",
      flag: "--sheet <file.png>",
      writes: "file",
    },
  ),
  skipBrokenShards: flag(
    "leave out shards that were cut or cannot be read; otherwise they are an error",
    "--skip-broken-shards",
  ),
  ...viewOptions,
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, async ({ path: named, json, skipBrokenShards, open, show, ...pictures }) => {
    const view = viewOf({ open, show, json }, context);
    const path = named === BUNDLED_MODEL ? modelOrBundled(named) : named;
    const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory();
    if (isFolder !== undefined && holdsShards(path, isFolder)) {
      const report = await shardInfo(path, { ...pictures, skipBrokenShards }, context);
      context.stdout(json ? `${JSON.stringify(report)}\n` : `${shardLines(report).join("\n")}\n`);
      await view(Object.values(pictures).filter((file) => file !== undefined));
      if (report.broken > 0)
        throw new MiroError(
          `${report.broken} of ${counted(report.shards, "shard")} ${plural(report.broken, "was", "were")} cut: the report tells of what is left; ${withFlags(CUT_REMEDY, {})}`,
        );
      return;
    }
    for (const [name, file] of Object.entries(pictures)) {
      if (file !== undefined)
        throw new InvalidInputError(message`${option(name)} applies to shards only, and ${path} contains none`);
    }
    const report = await inspect(path);
    if (!("format" in report))
      for (const [name, given] of Object.entries({ open: open || undefined, show }))
        if (given !== undefined) throw invalid(name, "a picture to look at", path);
    context.stdout(json ? `${JSON.stringify(report)}\n` : `${toLines(report).join("\n")}\n`);
    if (open || show !== undefined) await view([path]);
  }).addHelpText("after", helpText(EXAMPLES));
};

type Report = Record<string, unknown>;

async function inspect(path: string): Promise<Report> {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new InvalidInputError(`${path}: no such file or directory`);
  if (stat.isDirectory()) return inspectFolder(path);
  if (/\.safetensors$/i.test(path)) return { file: path, ...(await inspectTensors(path)) };
  if (/\.npy$/i.test(path)) return inspectNpy(path);
  if (/\.(ckpt|pt|pth|bin)$/i.test(path)) {
    const { describeTorchFile } = await import("../training/state/torch-file-summary.js");
    return describeTorchFile(path);
  }
  return inspectPicture(path);
}

const READABLE = "miro info reads pictures, checkpoints, runs, shards, and .safetensors, .ckpt, .npy and .tar files";

async function inspectPicture(path: string): Promise<Report> {
  const { format, width, height, text } = await readImageFile(path).catch((error) => {
    // What is no picture may have been meant as something else; a damaged one is told as such.
    if (!(error instanceof InvalidInputError)) throw error;
    throw new InvalidInputError(message`${error}; ${READABLE}`, { cause: error });
  });
  const settings = textToSettings(text);
  const texts = Object.fromEntries(
    text.filter(({ keyword }) => keyword !== "miro").map(({ keyword, text }) => [keyword, text]),
  );
  return { file: path, format, width, height, ...(settings ? { settings } : { settings: null, texts }) };
}

async function inspectNpy(path: string): Promise<Report> {
  const { readNpy } = await import("@miro-t2i/torch/io");
  using tensor = readNpy(path);
  return { file: path, dtype: tensor.dtype, shape: tensor.shape };
}

async function inspectFolder(folder: string): Promise<Report> {
  const { listVariants } = await import("../pipeline/loading/checkpoint.js");
  const { readReleaseConfig } = await import("../pipeline/loading/release-config.js");
  const { isRun } = await import("../pipeline/loading/run-checkpoint.js");
  if (isRun(folder)) return inspectRun(folder);
  const variants = listVariants(folder);
  const config = join(folder, "config.json");
  if (!existsSync(config)) {
    if (variants.length > 0) return { folder, variants };
    throw new InvalidInputError(`${folder}: holds no config.json, so it is not a checkpoint; ${READABLE}`);
  }
  const weights = ["model.safetensors", "diffusion_pytorch_model.safetensors"]
    .map((name) => join(folder, name))
    .find((file) => existsSync(file));
  const json = readJson(config) as Report | null;
  if (!json?.network) return { folder, config: json, ...(weights ? await inspectTensors(weights) : {}) };
  return {
    folder,
    ...aboutModel(readReleaseConfig(folder)),
    parts: ["text_encoder", "vae"].filter((part) => existsSync(join(folder, part, "config.json"))),
    ...(weights ? await inspectTensors(weights, "network.") : { weights: "missing" }),
    ...(variants.length > 0 && { variants }),
  };
}

function aboutModel({ coherenceKeys, network, settings }: ReleaseConfig): Report {
  const { sampler_defaults: sampler } = settings;
  return {
    rewards: [...coherenceKeys],
    resolution: settings.img_resolution ?? null,
    latents: `${network.numInputChannels} x ${settings.data_resolution} x ${settings.data_resolution}`,
    "text tokens": settings.max_text_len,
    ...(sampler && { "sampler defaults": sampler }),
    ...(settings.scheduler && { scheduler: settings.scheduler }),
    network,
  };
}

/** A run of `miro train`, or one of its checkpoints: which there are, and what the newest or this one is as a model. */
async function inspectRun(run: string): Promise<Report> {
  const { openStored, listCheckpoints } = await import("../pipeline/loading/run-checkpoint.js");
  const { readModelDescription } = await import("../pipeline/loading/run-model.js");
  return openStored(run, {}, (checkpoint) => {
    const description = readModelDescription(checkpoint.path);
    const { recipe } = readJson(join(checkpoint.path, "state.json")) as { recipe: Report };
    return {
      folder: run,
      recipe: recipe.name,
      checkpoints: listCheckpoints(dirname(checkpoint.path)).map(({ step }) => step),
      [existsSync(join(run, "state.json")) ? "checkpoint" : "newest"]: checkpoint.path,
      ...(description && {
        "text encoder": description.textEncoder ?? null,
        autoencoder: description.vae ?? null,
        ...aboutModel(description.config),
      }),
    };
  });
}

/** Tensors of a file by top-level module, dtypes, parameters. Only the header is read. */
async function inspectTensors(path: string, counted = ""): Promise<Report> {
  const { SafetensorsFile } = await import("@miro-t2i/torch/io");
  const file = SafetensorsFile.open(path);
  try {
    const groups = new Map<string, number>();
    const dtypes: Record<string, number> = {};
    let parameters = 0;
    for (const key of file.keys()) {
      const { dtype, shape } = file.info(key);
      const group = key.split(".")[0]!;
      groups.set(group, (groups.get(group) ?? 0) + 1);
      const kind = dtype ?? "other";
      dtypes[kind] = (dtypes[kind] ?? 0) + 1;
      if (kind.includes("float") && key.startsWith(counted))
        parameters += shape.reduce((product, size) => product * size, 1);
    }
    return {
      weights: basename(path),
      bytes: statSync(path).size,
      tensors: file.keys().length,
      "tensors by module": Object.fromEntries(groups),
      dtypes,
      parameters,
      ...(file.metadata.size > 0 && { metadata: Object.fromEntries(file.metadata) }),
    };
  } finally {
    file.close();
  }
}

/** A report for people: one line a value, nested ones indented. */
function toLines(value: Report, indent = ""): string[] {
  return Object.entries(value).flatMap(([key, item]) => {
    const name = printable(key);
    if (item !== null && typeof item === "object" && !Array.isArray(item)) {
      if (Object.keys(item).length === 0) return [`${indent}${name}: none`];
      return [`${indent}${name}:`, ...toLines(item as Report, `${indent}  `)];
    }
    const text = Array.isArray(item)
      ? item.map((part) => (typeof part === "object" ? JSON.stringify(part) : String(part))).join(", ") || "none"
      : typeof item === "number"
        ? count(key, item)
        : String(item ?? "none");
    return [`${indent}${name}: ${printable(text).replaceAll("\n", `\n${indent}  `)}`];
  });
}

function count(key: string, value: number): string {
  if (key === "parameters") return `${value} (${(value / 1e6).toFixed(1)}M)`;
  if (key === "bytes") return `${value} (${formatMemory(value)})`;
  return String(value);
}
