/**
 * The colour of an object, as GenEval classifies it: OpenAI's CLIP without training of its own looks at the object, cut
 * out along its mask and put before grey, and says which of ten sentences is nearest.
 *
 *   w(colour) = unit(Σ unit(text))  over "a photo of a C X", "a photo of a C-colored X", "a photo of a C object"
 *   colour    = argmax 100 cos(image, w)
 *
 * The article is "a" whatever follows. Pixels are those of the published evaluator: Pillow's bicubic filter on the
 * shorter side, then the middle, so that long objects lose their ends.
 */
import { scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { InvalidInputError, MiroError } from "../../errors.js";
import { pythonRound } from "../../files/python-number.js";
import { type ByLayer, holding } from "../../networks/by-layer.js";
import type { Clip } from "../../networks/clip.js";
import type { RgbImage } from "../../pictures/rgb.js";
import type { ComputeDType } from "../../pipeline/loading/device.js";
import { hashFile } from "../../pipeline/loading/identity.js";
import { clipPixels } from "../../rewards/clip-pixels.js";
import { loadOpenaiClip } from "../../rewards/clip-scorers.js";
import { runByLayer } from "../../rewards/run-by-layer.js";
import type { ClipTokenizer } from "../../text/clip-tokenizer.js";
import { type Box, type Mask, maskHas } from "./detection.js";
import { COLOURS, type Colour } from "./metadata.js";

/** What is seen of an object. */
export interface CutOptions {
  /** Behind the object: `#999`, `#rrggbb`; or `original`, the picture itself. Default `#999`. */
  background?: string | undefined;
  /** Cut to the box of the object, else the whole picture is seen. Default true. */
  crop?: boolean | undefined;
}

/** Options of {@link ColourClassifier.load}. */
export interface ColourOptions extends CutOptions {
  /** Folder or repository of OpenAI's CLIP ViT-L/14. Default: the published repository. */
  clip?: string | undefined;
  /** `cpu`, `cuda`, `cuda:1`, …; default `cpu`. */
  device?: string | undefined;
  /** What the network computes in. */
  dtype?: ComputeDType | undefined;
  /** Cache of downloads; default: the one of Python's `huggingface_hub`. */
  cacheDir?: string | undefined;
  /** Stops downloads. */
  signal?: AbortSignal | undefined;
}

/** A colour with the logits of all ten. */
export interface ColourAnswer {
  colour: Colour;
  /** 100 cos, in the order of {@link COLOURS}. */
  logits: number[];
}

/** Where an object is. */
interface SeenObject {
  box: Box;
  mask?: Mask | undefined;
}

/** Objects that go through the network together. */
const BATCH = 16;

/** Classifies the colours of objects. */
export class ColourClassifier implements Disposable {
  /** What decides its answers, for provenance. */
  readonly identity: { clip: string; background: string; crop: boolean; dtype: string };
  readonly #clip: Clip;
  readonly #tokenizer: ClipTokenizer;
  readonly #options: CutOptions;
  /** Of each class (10, D), of unit length. */
  readonly #weights = new Map<string, Tensor>();

  private constructor(clip: Clip, tokenizer: ClipTokenizer, sha256: string, options: CutOptions) {
    this.#clip = clip;
    this.#tokenizer = tokenizer;
    this.#options = options;
    const { background = "#999", crop = true } = options;
    this.identity = { clip: sha256, background, crop, dtype: clip.visual.stateDict().get("class_embedding")!.dtype };
  }

  /** @throws InvalidInputError for a wrong background; MiroError for weights that are missing or broken */
  static async load({ clip, background, crop, ...options }: ColourOptions = {}): Promise<ColourClassifier> {
    parseBackground(background);
    const towers = await loadOpenaiClip(
      { ...options, ...(clip !== undefined && { weights: { clip_openai: clip } }) },
      "openai",
    );
    return new ColourClassifier(towers.clip, towers.tokenizer, await hashFile(towers.path), { background, crop });
  }

  /** The colours of objects of a class. @throws the signal's reason when it is aborted, between two layers of CLIP */
  async classify(
    image: RgbImage,
    objects: readonly SeenObject[],
    name: string,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<ColourAnswer[]> {
    const weights = await this.weightsOf(name, signal);
    const answers: ColourAnswer[] = [];
    for (let first = 0; first < objects.length; first += BATCH) {
      const logits = await runByLayer(this.#look(image, objects.slice(first, first + BATCH), weights), signal);
      if (!logits.flat().every(Number.isFinite))
        throw new MiroError(
          `the colours of ${name} are not finite; CLIP's weights may be damaged, or its dtype too small`,
        );
      answers.push(...logits.map((row) => ({ colour: COLOURS[row.indexOf(Math.max(...row))]!, logits: row })));
    }
    return answers;
  }

  *#look(image: RgbImage, objects: readonly SeenObject[], weights: Tensor): ByLayer<number[][]> {
    const { image: side } = this.#clip.config.vision;
    const pixels = scope(() => {
      const cuts = objects.map(({ box, mask }) => clipPixels(cutOut(image, box, mask, this.#options), side, "pillow"));
      return stack(cuts).to({ device: this.#clip.logitScale.device });
    });
    const features_BD = unit(yield* holding([pixels], this.#clip.visual.forwardByLayer(pixels)));
    return features_BD.matmul(weights.t()).mul(100).to({ device: "cpu" }).toList() as number[][];
  }

  /** The classifier of a class (10, D); it stays this one's. */
  async weightsOf(name: string, signal?: AbortSignal): Promise<Tensor> {
    const known = this.#weights.get(name);
    if (known !== undefined) return known;
    const weights = (await runByLayer(this.#read(name), signal)).keep();
    this.#weights.set(name, weights);
    return weights;
  }

  *#read(name: string): ByLayer<Tensor> {
    const texts = COLOURS.flatMap((colour) => [
      `a photo of a ${colour} ${name}`,
      `a photo of a ${colour}-colored ${name}`,
      `a photo of a ${colour} object`,
    ]);
    const device = this.#clip.logitScale.device;
    const { ids, ends } = this.#tokenizer.encodeBatch(texts, this.#clip.config.text.context);
    const ids_BT = ids.to({ device });
    const ends_B = tensor(BigInt64Array.from(ends, BigInt), { dtype: "int64" }).to({ device });
    const texts_BD = unit(yield* holding([ids_BT, ends_B], this.#clip.encodeTextByLayer(ids_BT, ends_B)));
    return unit(texts_BD.view(COLOURS.length, 3, -1).mean([1]));
  }

  dispose(): void {
    for (const weights of this.#weights.values()) weights.dispose();
    this.#weights.clear();
    this.#clip.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function unit(x_BD: Tensor): Tensor {
  return x_BD.div(x_BD.square().sum(-1, { keepdim: true }).sqrt());
}

/**
 * What is seen of an object. Where the box reaches beyond the picture it is black, as Pillow's crops are; of a box
 * without any pixel one is seen.
 */
export function cutOut(
  image: RgbImage,
  box: Box,
  mask: Mask | undefined,
  { background = "#999", crop = true }: CutOptions = {},
): RgbImage {
  const { width, height, data } = image;
  const behind = parseBackground(background);
  const [x0, y0, x1, y1] = crop ? (box.map(pythonRound) as unknown as Box) : ([0, 0, width, height] as const);
  const size = { width: Math.max(x1 - x0, 1), height: Math.max(y1 - y0, 1) };
  const out = new Uint8Array(3 * size.width * size.height);
  for (let y = Math.max(0, -y0); y < Math.min(size.height, height - y0); y++) {
    for (let x = Math.max(0, -x0); x < Math.min(size.width, width - x0); x++) {
      const [from, to] = [3 * ((y + y0) * width + x + x0), 3 * (y * size.width + x)];
      const isShown = behind === null || mask === undefined || maskHas(mask, x + x0, y + y0);
      for (let c = 0; c < 3; c++) out[to + c] = isShown ? data[from + c]! : behind[c]!;
    }
  }
  return { ...size, data: out };
}

/**
 * Red, green, blue of `#999` or `#999999`; null for `original`.
 * @throws InvalidInputError for anything else
 */
export function parseBackground(background = "#999"): readonly number[] | null {
  if (background === "original") return null;
  const digits = /^#(?:([0-9a-f])([0-9a-f])([0-9a-f])|([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2}))$/i.exec(background);
  if (digits === null)
    throw new InvalidInputError(
      `bgcolor: expected original, or a colour such as #999 or #999999, received ${JSON.stringify(background)}`,
    );
  return digits.slice(1).flatMap((part) => (part === undefined ? [] : [Number.parseInt(part.padStart(2, part), 16)]));
}
