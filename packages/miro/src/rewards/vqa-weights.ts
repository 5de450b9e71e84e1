/**
 * The weights of a CLIP-FlanT5: T5's under transformers' names, `mm_projector.0` and `.2`, and the vision tower under
 * `vision_tower.vision_tower.` or in a repository of its own.
 *
 * Loading is strict over the whole file. Blocks of the stacks are in memory, or, where that is short, are read from the
 * file each time they are used and freed behind it; both compute the same.
 */
import { F, nn, scope, type Tensor } from "@miro-t2i/torch";
import { type TensorFile, takeAll } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import type { OpenTensors } from "../files/tensor-files.js";
import type { ClipVisionTower } from "../networks/clip.js";
import { filled, inPieces, type Pieces } from "../pieces.js";
import { T5Seq2Seq } from "../text/t5-seq2seq.js";
import { T5Block, type T5Side } from "../text/t5-stack.js";
import { loadClipTower } from "./clip-weights.js";
import { checkSize, checkTensors, readInto, type Stored, type WeightsPlace } from "./strict-weights.js";
import { countVqaParameters, type VqaConfig } from "./vqa-config.js";

/** Tokens of the published tokenizer; files may have rows for more. */
const FLAN_T5_TOKENS = 32_100;
const TOWER = "vision_tower.vision_tower.";
/** Copies of the embedding, under the names that classes of its users have for it. */
const EMBEDDINGS = ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "embed_tokens"].map(
  (name) => `${name}.weight`,
);
const WHAT = "this CLIP-FlanT5";

/** A loaded CLIP-FlanT5. */
export interface VqaNetworks extends Disposable {
  /** Null: it is not in the file. */
  tower: ClipVisionTower | null;
  projector: nn.Sequential;
  t5: T5Seq2Seq;
}

/** Rows of the embedding and of the head that are used. */
export function vqaTokens(file: TensorFile, { t5 }: VqaConfig): number {
  const [rows = 0] = file.info(embeddingKey(file)).shape;
  return Math.min(rows, t5.vocabSize, FLAN_T5_TOKENS);
}

function embeddingKey(file: TensorFile): string {
  const key = EMBEDDINGS.find((name) => file.has(name));
  if (key === undefined)
    throw new MiroError(
      `${file.path}: not the weights of ${WHAT}: missing: shared.weight; it begins with ` +
        file.keys().slice(0, 3).join(", "),
    );
  return key;
}

/**
 * Loads a file that {@link checkVqa} has looked at. Where blocks are streamed it stays open until the networks are
 * disposed of; else the caller may close it.
 *
 * @throws MiroError naming the file and the tensors of the vision tower that do not fit; FormatError for values that
 *   are not finite; the signal's reason when it is aborted
 */
export async function loadVqa(
  file: OpenTensors,
  config: VqaConfig,
  place: WeightsPlace,
  { streamed, signal }: { streamed: boolean; signal?: AbortSignal | undefined },
): Promise<VqaNetworks> {
  const tokens = vqaTokens(file, config);
  const { t5: c, decoderLayers } = config;
  const layers = { encoder: c.numLayers, decoder: decoderLayers };
  const disposables: Disposable[] = [];
  const own = <T extends Disposable>(thing: T): T => {
    disposables.push(thing);
    return thing;
  };
  const dispose = () => {
    for (const thing of disposables.splice(0)) thing[Symbol.dispose]();
  };
  try {
    const read = <M extends nn.Module>(construct: () => M, where: WeightsPlace, keyOf: (name: string) => string) =>
      filled(
        () => make(construct),
        (module) => readInto(module, file, where, storedAs(module, keyOf)),
      );
    const readBlock = (side: T5Side, i: number): Pieces<T5Block> =>
      read(
        () => new T5Block(c, side),
        place,
        (name) => `${side}.block.${i}.${name}`,
      );
    const readBlocks = async (side: T5Side): Promise<Iterable<T5Block>> => {
      if (streamed) return new BlocksOnDisk(layers[side], (i) => takeAll(readBlock(side, i)));
      const blocks: T5Block[] = [];
      for (let i = 0; i < layers[side]; i++) blocks.push(own(await inPieces(readBlock(side, i), signal)));
      return blocks;
    };
    const blocks = { encoder: await readBlocks("encoder"), decoder: await readBlocks("decoder") };
    const tower = hasTower(file)
      ? own(await loadClipTower(file, config.vision, place, { prefix: TOWER, signal }))
      : null;
    const readProjector = read(
      () => newProjector(config),
      { ...place, dtype: "float32" },
      (name) => `mm_projector.${name}`,
    );
    const projector = own(await inPieces(readProjector, signal));
    const readT5 = read(
      () => new T5Seq2Seq(c, tokens, blocks),
      place,
      (name) => restKey(file, name),
    );
    const t5 = own(await inPieces(readT5, signal));
    if (streamed) own(file);
    return { tower, projector, t5, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** Blocks that are in memory while they are used. */
class BlocksOnDisk implements Iterable<T5Block> {
  constructor(
    readonly count: number,
    readonly read: (i: number) => T5Block,
  ) {}

  *[Symbol.iterator](): Generator<T5Block> {
    for (let i = 0; i < this.count; i++) {
      using block = this.read(i);
      yield block;
    }
  }
}

function make<M extends nn.Module>(construct: () => M): M {
  return scope(() => nn.init.skipped(construct));
}

function newProjector({ t5, vision }: VqaConfig): nn.Sequential {
  const gelu = new nn.Lambda((x: Tensor) => F.gelu(x));
  return new nn.Sequential(new nn.Linear(vision.width, t5.dModel), gelu, new nn.Linear(t5.dModel, t5.dModel));
}

function hasTower(file: TensorFile): boolean {
  return file.keys().some((key) => key.startsWith(TOWER));
}

/** The key of a tensor that is in none of the blocks. */
function restKey(file: TensorFile, name: string): string {
  if (name === "shared.weight") return embeddingKey(file);
  return name.replace(
    /^(encoder|decoder)\.relative_attention_bias/,
    "$1.block.0.layer.0.SelfAttention.relative_attention_bias",
  );
}

function storedAs(module: nn.Module, keyOf: (name: string) => string): Map<string, Stored> {
  return new Map([...module.stateDict().keys()].map((name) => [name, { keys: [keyOf(name)] }]));
}

/**
 * Whether T5 and projector are in the file as a whole, and nothing else; nothing of it is read.
 *
 * @throws MiroError naming the file and the tensors that do not fit
 */
export function checkVqa(file: TensorFile, config: VqaConfig): void {
  const { t5: c, decoderLayers } = config;
  const [rows = 0] = file.info(embeddingKey(file)).shape;
  const { blocks, embedding, projector } = countVqaParameters(config, rows);
  checkSize(file, { what: WHAT, size: blocks + 2 * embedding + projector });
  const shapes = new Map<string, { shape: readonly number[] }>();
  const stored = new Map<string, Stored>();
  const expect = (key: string, shape: readonly number[]) => {
    shapes.set(key, { shape });
    stored.set(key, { keys: [key] });
  };
  const expectModule = <M extends nn.Module>(construct: () => M, keysOf: (name: string) => string[]) => {
    using module = make(construct);
    for (const [name, { shape }] of module.stateDict()) for (const key of keysOf(name)) expect(key, [...shape]);
  };
  const blockKeys = (side: T5Side, count: number) => (name: string) =>
    Array.from({ length: count }, (_, i) => `${side}.block.${i}.${name}`);
  expectModule(() => new T5Block(c, "encoder"), blockKeys("encoder", c.numLayers));
  expectModule(() => new T5Block(c, "decoder"), blockKeys("decoder", decoderLayers));
  expectModule(
    () => newProjector(config),
    (name) => [`mm_projector.${name}`],
  );
  expectModule(
    () => new T5Seq2Seq(c, rows, { encoder: [], decoder: [] }),
    (name) => [restKey(file, name)],
  );
  const ignored = (key: string) => key.startsWith(TOWER) || EMBEDDINGS.includes(key);
  checkTensors(shapes, stored, { what: WHAT, ignored }, file);
}
