/**
 * Drawing over a picture. Image to image starts from the picture's latents x₀ instead of from noise alone,
 *
 *   x = γ·x₀ + (1 − γ)·n,   γ = 1 − strength,
 *
 * and samples the rest of the way (SDEdit, Meng et al., arXiv 2108.01073). In-painting draws some places only: after
 * each step the others are put back on their straight path from the same noise to x₀,
 *
 *   x ← m·x + (1 − m)·(γ'·x₀ + (1 − γ')·n),
 *
 * and at the end the pixels are blended by the mask (RePaint without its jumps, Lugmayr et al., arXiv 2201.09865).
 */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { cat, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { type LatentNormalization, normalize } from "../autoencoder/normalization.js";
import { InvalidInputError, invalid } from "../errors.js";
import { readBytes } from "../files/whole-files.js";
import { release } from "../flow/release.js";
import { about, message } from "../message.js";
import { centreSquare } from "../pictures/crop.js";
import { decodeShown } from "../pictures/decode-shown.js";
import type { RgbImage } from "../pictures/rgb.js";
import type { ResolvedGenerateOptions } from "./generate-options.js";
import { tilde } from "./loading/identity.js";
import type { PictureIdentity } from "./settings.js";

/** A file, the bytes of one, or pixels. */
export type PictureSource = string | Uint8Array | RgbImage;

/** A picture or a mask that was read once and found good. */
interface Checked {
  source: PictureSource;
  identity: PictureIdentity;
}

/** What the pictures of one prompt are drawn over. */
export interface Edit {
  image: Checked;
  mask: Checked | null;
}

/** What a call draws over. */
export interface EditPlan {
  /** 0 keeps the picture, 1 starts from noise alone. */
  strength: number;
  /** One for each prompt. */
  edits: Edit[];
}

/** An {@link Edit} as the sampler needs it. Tensors are float32 on the CPU. */
export interface EncodedEdit {
  /** x₀, (1, C, r, r) in the network's space. */
  latents: Tensor;
  /** 1 where the network draws, (1, 1, r, r); null: everywhere. */
  mask: Tensor | null;
  /** Pixels that are kept where the mask is black, and the mask, of the size that is drawn; null: nothing is. */
  kept: { image: RgbImage; mask: RgbImage } | null;
}

/** Strength where none is given. */
export const STRENGTH = { image: 0.75, mask: 1 };

/**
 * Reads what a call draws over and finds everything that is wrong with it; the pixels of files are let go again.
 *
 * @param prompts number of prompts
 * @returns null where nothing is drawn over
 * @throws InvalidInputError naming the option; MiroError for a file that cannot be read
 */
export async function planEdits(
  { image, mask, strength }: Pick<ResolvedGenerateOptions, "image" | "mask" | "strength">,
  prompts: number,
): Promise<EditPlan | null> {
  if (image === undefined) {
    if (mask !== undefined) throw invalid("mask", "an image with it", message`none`);
    if (strength !== undefined) throw invalid("strength", "an image with it", message`none`);
    return null;
  }
  const images = perPrompt("image", image, prompts);
  const masks = mask === undefined ? null : perPrompt("mask", mask, prompts);
  const known = new Map<PictureSource, Promise<Checked & { size: string }>>();
  const check = (parameter: string, source: PictureSource) => {
    const checked = known.get(source) ?? checkPicture(parameter, source);
    known.set(source, checked);
    return checked;
  };
  const edits: Edit[] = [];
  for (const [i, source] of images.entries()) {
    const { size, ...checked } = await check("image", source);
    const own = masks && (await check("mask", masks[i]!));
    if (own && own.size !== size) throw invalid("mask", `the size of the image, ${size}`, message`${own.size}`);
    edits.push({ image: checked, mask: own && { source: own.source, identity: own.identity } });
  }
  return { strength: strength ?? (masks ? STRENGTH.mask : STRENGTH.image), edits };
}

function perPrompt(parameter: string, given: PictureSource | readonly PictureSource[], prompts: number) {
  if (!Array.isArray(given)) return Array.from({ length: prompts }, () => given as PictureSource);
  const list = given as readonly PictureSource[];
  if (list.length !== prompts)
    throw invalid(parameter, `one picture for all prompts or one for each of ${prompts}`, list.length);
  return list;
}

async function checkPicture(parameter: string, source: PictureSource): Promise<Checked & { size: string }> {
  const { width, height, data } = await readPicture(parameter, source);
  const sha256 = createHash("sha256").update(`${width} ${height}\n`).update(data).digest("hex");
  const file = typeof source === "string" ? { file: tilde(resolve(source)) } : {};
  return { source, identity: { ...file, sha256 }, size: `${width} x ${height}` };
}

async function readPicture(parameter: string, source: PictureSource): Promise<RgbImage> {
  if (typeof source !== "string" && !(source instanceof Uint8Array)) return source;
  const [bytes, name] = typeof source === "string" ? [readBytes(source), `${source}: `] : [source, ""];
  try {
    return await decodeShown(bytes);
  } catch (error) {
    throw new InvalidInputError(message`${about(parameter)}: ${name}${error}`, { cause: error });
  }
}

/**
 * The latents of what is drawn over.
 *
 * @param side of what the network draws, in latents
 */
export async function encodeEdit(
  { image, mask }: Edit,
  {
    autoencoder,
    normalization,
    side,
    device,
  }: { autoencoder: Autoencoder; normalization: LatentNormalization; side: number; device: string },
): Promise<EncodedEdit> {
  const pixels = side * autoencoder.downsampling;
  const square = async (parameter: string, { source }: Checked) =>
    centreSquare(await readPicture(parameter, source), pixels);
  const picture = await square("image", image);
  const drawn = mask && (await square("mask", mask));
  return {
    latents: scope(() =>
      noGrad(() => {
        const x = tensor(picture.data, { shape: [1, pixels, pixels, 3] })
          .to({ device })
          .permute(0, 3, 1, 2)
          .float()
          .div(127.5)
          .sub(1)
          .contiguous();
        return normalize(autoencoder.encode(x).mean, normalization).to({ device: "cpu", dtype: "float32" });
      }),
    ),
    mask: drawn && latentMask(drawn, autoencoder.downsampling),
    kept: drawn && { image: picture, mask: drawn },
  };
}

/** The largest value of the mask among the pixels of each latent, 0 to 1: a latent with any new place is free. */
function latentMask(mask: RgbImage, downsampling: number): Tensor {
  const side = mask.width / downsampling;
  const values = new Float32Array(side * side);
  for (let y = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++) {
      const cell = Math.floor(y / downsampling) * side + Math.floor(x / downsampling);
      values[cell] = Math.max(values[cell]!, levelOf(mask, y * mask.width + x) / 255);
    }
  }
  return tensor(values, { shape: [1, 1, side, side] });
}

/** Brightness of a pixel, 0 to 255 (the luma of ITU-R BT.601). */
function levelOf({ data }: RgbImage, pixel: number): number {
  const at = pixel * 3;
  return (299 * data[at]! + 587 * data[at + 1]! + 114 * data[at + 2]!) / 1000;
}

/** What was drawn where the mask is white, what was there where it is black, and a mixture between. */
export function blend(drawn: RgbImage, { image, mask }: NonNullable<EncodedEdit["kept"]>): RgbImage {
  const data = new Uint8Array(drawn.data.length);
  for (let i = 0; i < data.length; i++) {
    const share = levelOf(mask, Math.floor(i / 3)) / 255;
    data[i] = Math.round(share * drawn.data[i]! + (1 - share) * image.data[i]!);
  }
  return { ...drawn, data };
}

/**
 * Where sampling begins, and what keeps places as they are.
 *
 * @param noise n, (b, C, r, r)
 * @param edits one for each row
 * @param gamma level at which sampling begins
 */
export function startOver(
  noise: Tensor,
  edits: readonly EncodedEdit[],
  gamma: number,
): { start: Tensor; keep: ((x: Tensor, gamma: number) => Tensor) | null; dispose: () => void } {
  const together = (parts: Tensor[]) => cat(parts, 0).to({ device: noise.device });
  const at = (data: Tensor, level: number) =>
    level <= 0 ? noise : data.mul(level).add(noise.mul(Math.fround(1 - level)));
  const { data, mask, start } = scope(() => {
    const data = together(edits.map(({ latents }) => latents));
    const masked = edits.some((edit) => edit.mask !== null);
    const mask = masked ? together(edits.map((edit) => edit.mask!)) : null;
    return { data, mask, start: at(data, gamma).clone() };
  });
  return {
    start,
    keep: mask && ((x, level) => x.mul(mask).add(at(data, level).mul(mask.neg().add(1)))),
    dispose: () => release([data, mask, start]),
  };
}

/** The levels of a grid from `gamma` on: `gamma` itself and those above it. */
export function gridFrom(grid: Float32Array, gamma: number): Float32Array {
  const first = Math.fround(gamma);
  if (first <= grid[0]!) return grid;
  return Float32Array.from([first, ...grid.filter((level) => level > first)]);
}
