/**
 * Emoji scenes as raw tar shards, the form in which web data sets come: `KEY.jpg`, `KEY.txt`, `KEY.json` for each
 * sample.
 *
 * The text is what a scene's caption says, which for a share of the scenes is wrong, as alternative texts on the web
 * are. The JSON holds the picture's size, how the scene was made (`scene`), the rewards that are known by construction
 * (`constructed`: what scorers should find), and, for a share of the samples, a true caption under the names that
 * upstream gives synthetic ones: `synthetic_caption` (the whole scene) and `short_synthetic_caption` (the things
 * alone).
 *
 * A shard is a pure function of the recipe and its number; the folder's `render.json` lists the finished ones with
 * their hashes, so that an interrupted run goes on and another recipe is not mixed in.
 */
import { createHash } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { isObject } from "../../arguments.js";
import { TarWriter } from "../../data/shards/tar-writer.js";
import { InvalidInputError } from "../../errors.js";
import { createFolder } from "../../files/make-folder.js";
import { readJson, removeKilledWrites, writeFileAtomic } from "../../files/whole-files.js";
import { message, option } from "../../message.js";
import { counted } from "../../numbers.js";
import { setting } from "../../options.js";
import { sharp } from "../../pictures/sharp.js";
import { SceneRandom } from "./random.js";
import { toRgb8 } from "./render.js";
import { emojiSceneOptionsSchema } from "./scene-options.js";
import { EmojiScenes, type Scene } from "./scenes.js";

/** A recipe of raw shards. */
export const rawShardsRecipeSchema = z.strictObject({
  kind: setting(z.literal("emoji-data"), "what is made"),
  name: setting(
    z.string().regex(/^[\w-]+$/, "expected letters, digits, '_' and '-'"),
    "begins the names of the shards",
  ),
  samples: setting(z.int().positive(), "scenes to render"),
  samplesPerShard: setting(z.int().positive().max(100_000).default(1000), "scenes in one tar"),
  jpegQuality: setting(
    z.int().min(1).max(100).default(95),
    "quality of the JPEG pictures, 1 to 100; colours are not subsampled",
  ),
  syntheticShare: setting(
    z.number().min(0).max(1).default(0.9),
    'share of the samples that bring a true ("synthetic") caption',
  ),
  scenes: setting(emojiSceneOptionsSchema.prefault({}), "scenes to draw"),
});

export type RawShardsRecipe = z.output<typeof rawShardsRecipeSchema>;

/** Options of {@link renderRawShards}. */
export interface RenderRawShardsOptions {
  recipe: RawShardsRecipe;
  /** Folder of the shards; made when it is missing. */
  output: string;
  /** Render shards again that are there, and replace those of another recipe. */
  overwrite?: boolean;
  signal?: AbortSignal;
  /** Called after each sample. */
  onProgress?: (done: number, total: number) => void;
}

/** What {@link renderRawShards} made. */
export interface RenderedShards {
  shards: string[];
  samples: number;
  /** Shards that were there already. */
  kept: number;
}

/** Contents of `render.json`. */
interface Manifest {
  recipe: RawShardsRecipe;
  shards: Record<string, { samples: number; bytes: number; sha256: string }>;
}

/** Pictures that are being encoded while the next are drawn. */
const ENCODED_AHEAD = 4;
/** Stream of random numbers for what is not part of the scene. */
const SHARD_STREAM = 100;

/**
 * Renders the shards of a recipe; those that are finished already are kept.
 *
 * @throws InvalidInputError when the folder holds shards of another recipe; the signal's reason when it is aborted
 */
export async function renderRawShards(options: RenderRawShardsOptions): Promise<RenderedShards> {
  const { recipe, output, overwrite = false, signal, onProgress } = options;
  createFolder(output);
  removeKilledWrites(output);
  const manifestPath = join(output, "render.json");
  const count = Math.ceil(recipe.samples / recipe.samplesPerShard);
  const names = Array.from({ length: count }, (_, i) => `${recipe.name}-${String(i).padStart(6, "0")}.tar`);
  const manifest = openManifest(manifestPath, recipe, overwrite);
  // Whoever reads the folder reads all of its shards.
  const others = shardsListed(manifestPath).filter((name) => !names.includes(name) && existsSync(join(output, name)));
  if (others.length > 0 && !overwrite) {
    const held = `${counted(others.length, "shard")} more than ${counted(recipe.samples, "sample")} take`;
    const remedy = message`name another folder, or replace all of them with ${option("overwrite", true)}`;
    throw new InvalidInputError(message`${output}: holds ${held} (${others[0]}, …); ${remedy}`);
  }
  for (const name of others) rmSync(join(output, name), { force: true });
  const isDone = (name: string) => Object.hasOwn(manifest.shards, name) && existsSync(join(output, name));
  let done = 0;
  let kept = 0;
  let scenes: EmojiScenes | null = null;
  for (const [shard, name] of names.entries()) {
    const first = shard * recipe.samplesPerShard;
    const samples = Math.min(recipe.samplesPerShard, recipe.samples - first);
    if (isDone(name)) {
      kept++;
      done += samples;
      onProgress?.(done, recipe.samples);
      continue;
    }
    scenes ??= await EmojiScenes.load(recipe.scenes);
    const writer = await TarWriter.create(join(output, name));
    const encoding: Promise<void>[] = [];
    try {
      for (let i = first; i < first + samples; i++) {
        signal?.throwIfAborted();
        const sample = encode(scenes, recipe, i);
        // Written in order, whichever picture is encoded first.
        const before = encoding.at(-1);
        encoding.push(
          (async () => {
            const fields = await sample;
            await before;
            await writer.addSample(keyOf(i), fields);
            onProgress?.(++done, recipe.samples);
          })(),
        );
        if (encoding.length >= ENCODED_AHEAD) await encoding.shift();
      }
      await Promise.all(encoding);
      signal?.throwIfAborted();
      const { bytes, sha256 } = await writer.finish();
      manifest.shards[name] = { samples, bytes, sha256 };
    } catch (error) {
      await Promise.allSettled(encoding);
      await writer.abort();
      throw error;
    }
    writeFileAtomic(manifestPath, `${JSON.stringify(manifest, null, 2)}\n`, { overwrite: true });
  }
  return { shards: names.map((name) => join(output, name)), samples: recipe.samples, kept };
}

/** The shards that a manifest lists, if there is one that can be read. */
function shardsListed(path: string): string[] {
  if (!existsSync(path)) return [];
  const { shards } = (readJson(path) ?? {}) as Partial<Manifest>;
  return isObject(shards) ? Object.keys(shards).filter((name) => /^[\w.-]+\.tar$/.test(name)) : [];
}

/** The list of finished shards, empty for a new folder. */
function openManifest(path: string, recipe: RawShardsRecipe, overwrite: boolean): Manifest {
  const fresh: Manifest = { recipe, shards: {} };
  if (overwrite || !existsSync(path)) return fresh;
  const found = readJson(path) as Partial<Manifest> | null;
  // More samples of the same scenes may be asked for, as long as the shards that are there stay what they are.
  const same = (r: Partial<RawShardsRecipe> | undefined) => hash({ ...r, samples: null });
  if (same(found?.recipe) !== same(recipe) || typeof found?.shards !== "object") {
    throw new InvalidInputError(
      message`${path}: the folder holds shards of another recipe; name another folder, or replace them with ${option("overwrite", true)}`,
    );
  }
  const whole = Object.entries(found.shards ?? {}).filter(([, { samples }]) => samples === recipe.samplesPerShard);
  return {
    recipe,
    shards: Object.fromEntries(found.recipe!.samples === recipe.samples ? Object.entries(found.shards ?? {}) : whole),
  };
}

function hash(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

/** Key of a sample: its number, the same in every shard size. */
function keyOf(index: number): string {
  return String(index).padStart(9, "0");
}

async function encode(
  scenes: EmojiScenes,
  recipe: RawShardsRecipe,
  index: number,
): Promise<Record<string, Uint8Array>> {
  const { size } = scenes;
  const scene = scenes.describe(index);
  const pixels = new Float32Array(3 * size * size);
  scenes.render(scene, pixels);
  const jpg = await sharp(toRgb8(pixels, size), { raw: { width: size, height: size, channels: 3 } })
    .jpeg({ quality: recipe.jpegQuality, chromaSubsampling: "4:4:4" })
    .toBuffer();
  const synthetic = new SceneRandom(scenes.options.seed, index, SHARD_STREAM).chance(recipe.syntheticShare);
  return {
    jpg,
    txt: Buffer.from(scene.caption),
    json: Buffer.from(JSON.stringify(metadata(scene, size, synthetic))),
  };
}

function metadata(scene: Scene, size: number, synthetic: boolean): Record<string, unknown> {
  const { kind, entries, count, relation, background, degradation, rewards } = scene;
  return {
    width: size,
    height: size,
    ...(synthetic && {
      synthetic_caption: scene.trueCaption,
      short_synthetic_caption: entries.map(({ label }) => label).join(" and "),
    }),
    scene: {
      index: scene.index,
      kind,
      things: entries.map(({ label }) => label),
      count,
      relation,
      background,
      degradation,
    },
    constructed: Object.fromEntries(
      Object.entries(rewards).map(([key, value]) => [key, Number.isNaN(value) ? null : value]),
    ),
  };
}
