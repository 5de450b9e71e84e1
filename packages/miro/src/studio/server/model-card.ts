/** What is known of a model of the studio before it is loaded: from its files, of which a few are fetched. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { filledLines } from "../../files/table-file.js";
import { readTextFile } from "../../files/text-file.js";
import { readJson, readText } from "../../files/whole-files.js";
import { resolveModel } from "../../pipeline/loading/hub.js";
import type { HubOptions } from "../../pipeline/loading/hub-repository.js";
import {
  type ReleaseConfig,
  readReleaseConfig,
  type SamplerDefaults,
  samplerDefaults,
} from "../../pipeline/loading/release-config.js";
import { isRun } from "../../pipeline/loading/run-checkpoint.js";
import { openRunModel } from "../../pipeline/loading/run-model.js";
import { variantPrefix } from "../../pipeline/loading/sources.js";

const EXAMPLES = "examples.txt";
const MOST_EXAMPLES = 64;
/** Most bytes of a small model. */
const SMALL_BYTES = 64 * 2 ** 20;

/** What is known of a model before it is loaded. */
export interface ModelCard {
  id: string;
  /** For people: as much of the end of the id as tells it from the others. */
  name: string;
  coherenceKeys: readonly string[];
  defaults: SamplerDefaults;
  /** As its card says; null where it says nothing. */
  license: string | null;
  /** Width and height of its pictures. */
  size: [number, number];
  /** Prompts that show what it draws: `examples.txt` beside the checkpoint, one a line. */
  examples: readonly string[];
}

/** What {@link describeModel} finds. */
export interface DescribedModel {
  card: Omit<ModelCard, "name">;
  /** Bytes of its weights. */
  bytes: number;
  /** Whether it may be in memory several times, with its text encoder and its autoencoder. */
  isSmall: boolean;
}

/** What models are called for people, by their ids. */
export function shortNames(ids: readonly string[]): string[] {
  const parts = ids.map((id) => id.split("/").filter((part) => part !== ""));
  return parts.map((own, i) => {
    const tails = own.map((_, at) => own.slice(at)).reverse();
    const apart = tails.find((tail) =>
      parts.every((other, j) => j === i || other.slice(-tail.length).join("/") !== tail.join("/")),
    );
    return apart?.join("/") ?? ids[i]!;
  });
}

/**
 * Reads what a model says of itself.
 * @param id what the studio calls it
 * @throws InvalidInputError for a model that is none
 */
export async function describeModel(
  id: string,
  { model, variant }: { model: string; variant: string | undefined },
  hub: HubOptions,
): Promise<DescribedModel> {
  const { folder, autoencoder, config, bytes } = isRun(model) ? ofRun(model) : await ofRelease(model, variant, hub);
  return {
    card: {
      id,
      coherenceKeys: config.coherenceKeys,
      defaults: samplerDefaults(config.settings),
      license: licenseOf(join(folder, "README.md")),
      size: sizeOf(autoencoder, config),
      examples: examplesOf(join(folder, EXAMPLES)),
    },
    bytes,
    isSmall: isSmall(folder),
  };
}

/** What a model says of itself, and how much its weights are. */
interface Described {
  folder: string;
  /** Folder of its autoencoder, where it has its own. */
  autoencoder: string | undefined;
  config: ReleaseConfig;
  bytes: number;
}

/** A release folder, or a repository in that layout, of which only that much is fetched. */
async function ofRelease(model: string, variant: string | undefined, hub: HubOptions): Promise<Described> {
  const source = await resolveModel(model, "model", hub);
  const prefix = variantPrefix(source, variant);
  await source.fetch(
    ["config.json", "README.md", "vae/config.json", EXAMPLES]
      .map((file) => prefix + file)
      .filter((file) => source.files.includes(file)),
  );
  const folder = join(source.folder, prefix);
  const config = readReleaseConfig(folder);
  return { folder, autoencoder: join(folder, "vae"), config, bytes: bytesOf(join(folder, "model.safetensors")) };
}

/** The checkpoint of a run that is the newest now; what is loaded is the newest by then. */
function ofRun(run: string): Described {
  using model = openRunModel(run);
  const bytes = [...model.weights.keys()].map((name) => bytesOf(join(model.path, name)));
  return {
    folder: model.path,
    autoencoder: model.vae,
    config: model.config,
    bytes: bytes.reduce((sum, size) => sum + size, 0),
  };
}

function bytesOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

const autoencoderSchema = z.looseObject({ block_out_channels: z.array(z.number()).min(1).max(16) });

/**
 * Width and height of a model's pictures; the published autoencoders, which it is loaded with, have 8 pixels a latent.
 */
function sizeOf(autoencoder: string | undefined, { network, settings }: ReleaseConfig): [number, number] {
  const path = autoencoder === undefined ? null : join(autoencoder, "config.json");
  const own = path !== null && existsSync(path) ? autoencoderSchema.safeParse(readJson(path)).data : undefined;
  const side = own
    ? network.dataSize * 2 ** (own.block_out_channels.length - 1)
    : (settings.img_resolution ?? network.dataSize * 8);
  return [side, side];
}

/** The license in the header of a model card. */
function licenseOf(card: string): string | null {
  return existsSync(card) ? (/^license: *([\w.+-]{1,40}) *$/m.exec(readText(card).slice(0, 4096))?.[1] ?? null) : null;
}

function examplesOf(file: string): string[] {
  if (!existsSync(file)) return [];
  const lines = filledLines(readTextFile(file)).map(({ text }) => text.trim());
  return lines.slice(0, MOST_EXAMPLES).map((text) => text.slice(0, 1000));
}

/** Whether a release, with the text encoder and the autoencoder in its folder, may be in memory several times. */
function isSmall(folder: string): boolean {
  const parts = [folder, join(folder, "text_encoder"), join(folder, "vae")];
  if (!parts.every((part) => existsSync(part))) return false;
  const files = parts.flatMap((part) => readdirSync(part).map((name) => join(part, name)));
  return files.reduce((sum, file) => sum + bytesOf(file), 0) <= SMALL_BYTES;
}
