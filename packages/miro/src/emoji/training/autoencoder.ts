/**
 * Training of the bundled model's autoencoder on rendered scenes.
 *
 * Loss, x the picture and x̂ its reconstruction from z + s·n, n ~ N(0,1), s ~ U(0, noise) for each picture:
 *
 *   |x̂ − x| + |pool₄ x̂ − pool₄ x| + 2 (x̂ − x)² + ⅕ Σ over three scales |∇x̂ − ∇x| + penalty · z²        (means)
 *
 * The pooled term holds flat colours, the gradients hold edges, the noise makes the decoder tolerant of what a sampler
 * leaves, and the penalty keeps the learned latents small. With `loss.redrawn`, a share of each batch has latents with
 * the error of a diffusion network instead of noise (redrawing.ts), so that the decoder mends what such a network
 * leaves.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { cat, nn, noGrad, rand, randint, randnLike, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { PatchAutoencoder, parsePatchAutoencoderConfig } from "../../autoencoder/patch-autoencoder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { sharp } from "../../pictures/sharp.js";
import type { Task, TaskContext } from "../../training/loop/tasks.js";
import { EmojiScenes } from "../scenes/scenes.js";
import type { AutoencoderRecipe } from "./recipes.js";
import { Redrawing } from "./redrawing.js";

const { avgPool2d, l1Loss, mseLoss } = nn.functional;

/** Index of the first scene that is kept for evaluation; training starts at 0. */
const UNSEEN = 2 ** 31;
const EVALUATED = 64;
/** Pictures on the sheet of originals and reconstructions. */
const SHOWN = 16;

/** The training of a recipe; see the top. */
export async function buildAutoencoder(recipe: AutoencoderRecipe, context: TaskContext): Promise<Task> {
  const { trainer } = recipe;
  const { device } = trainer;
  const scenes = await EmojiScenes.load(recipe.scenes);
  const S = scenes.size;
  context.seedInitialWeights();
  const network =
    recipe.refineDecoderOf === undefined
      ? new PatchAutoencoder(recipe.network)
      : decoderOf(recipe.refineDecoderOf, recipe.network);
  const { redrawn, crop } = recipe.loss;
  const redrawing =
    redrawn === undefined ? null : await Redrawing.load(redrawn, { autoencoder: network, size: S, device });

  const pictures = (start: number, count: number) => {
    const { pixels, scenes: described } = scenes.batch(start, count);
    return { x: tensor(pixels, { shape: [count, 3, S, S], device }), described };
  };
  return {
    network,
    loss(step) {
      const B = trainer.batchSize;
      const { x, described } = pictures(step * B, B);
      const z = network.encode(x).mean;
      const noisy = z.add(randnLike(z).mul(rand([B, 1, 1, 1], { device }).mul(recipe.loss.noise)));
      const rows = redrawn === undefined ? 0 : Math.max(1, Math.round(redrawn.share * B));
      const drawn = redrawing === null ? [] : [redrawing.redraw(z.narrow(0, 0, rows), described.slice(0, rows))];
      const latents = cat([...drawn, noisy.narrow(0, rows, B - rows)], 0);
      const [part, target] = cropped(latents, x, crop);
      return autoencoderLoss(network.decode(part), target, z, recipe.loss);
    },
    async evaluate() {
      const { figures, sheet } = noGrad(() => measureAutoencoder(network, { scenes, device, redrawing }));
      const picture = sharp(sheet.data, { raw: { width: sheet.width, height: sheet.height, channels: 3 } });
      writeFileAtomic(join(context.output, "reconstructions.png"), await picture.png().toBuffer(), { overwrite: true });
      return figures;
    },
    export(folder, figures) {
      writeFileSync(join(folder, "config.json"), `${JSON.stringify(network.config, null, 2)}\n`);
      const tensors = scope(() => writeHalf(join(folder, "diffusion_pytorch_model.safetensors"), network));
      writeFileSync(join(folder, "training.json"), `${JSON.stringify({ recipe, figures, tensors }, null, 2)}\n`);
    },
    dispose: () => redrawing?.dispose(),
  };
}

/**
 * The autoencoder of a folder, its decoder to be trained, with as many of its blocks as a recipe's network asks for.
 */
export function decoderOf(folder: string, { decoder_blocks: blocks }: AutoencoderRecipe["network"]): PatchAutoencoder {
  const stored = PatchAutoencoder.fromPretrained(folder);
  if (blocks === undefined) return stored.trainDecoderOnly();
  const { decoder_blocks } = parsePatchAutoencoderConfig({ decoder_blocks: blocks });
  const grown = stored.withDecoderBlocks(decoder_blocks);
  stored.dispose();
  return grown.trainDecoderOnly();
}

/** The same random square of latents (B, C, h, w) and of their pictures (B, 3, S, S); all where no side is given. */
function cropped(latents: Tensor, x: Tensor, side: number | undefined): [Tensor, Tensor] {
  const whole = latents.size(2);
  if (side === undefined || side >= whole) return [latents, x];
  const cell = x.size(2) / whole;
  const [top, left] = (randint(0, whole - side + 1, [2]).toList() as (number | bigint)[]).map(Number) as [
    number,
    number,
  ];
  const square = (t: Tensor, scale: number) =>
    t.narrow(2, top * scale, side * scale).narrow(3, left * scale, side * scale);
  return [square(latents, 1), square(x, cell)];
}

/** The loss above. x̂, x (B, 3, S, S); z (B, C, h, w). */
function autoencoderLoss(
  reconstruction: Tensor,
  x: Tensor,
  z: Tensor,
  { latentPenalty }: AutoencoderRecipe["loss"],
): { loss: Tensor; figures: Record<string, Tensor> } {
  const l1 = l1Loss(reconstruction, x);
  const mse = mseLoss(reconstruction, x);
  const pooled = l1Loss(avgPool2d(reconstruction, 4), avgPool2d(x, 4));
  let gradients: Tensor | null = null;
  let [a, b] = [reconstruction, x];
  for (let scale = 0; scale < 3; scale++) {
    for (const dim of [2, 3]) {
      const term = l1Loss(difference(a, dim), difference(b, dim));
      gradients = gradients === null ? term : gradients.add(term);
    }
    [a, b] = [avgPool2d(a, 2), avgPool2d(b, 2)];
  }
  const loss = l1.add(pooled).add(mse.mul(2)).add(gradients!.mul(0.2)).add(z.square().mean().mul(latentPenalty));
  return { loss, figures: { l1, mse } };
}

/** Neighbour minus value along a dimension. */
function difference(x: Tensor, dim: number): Tensor {
  const n = x.shape[dim]!;
  return x.narrow(dim, 1, n - 1).sub(x.narrow(dim, 0, n - 1));
}

/**
 * PSNR over scenes that training never sees (dB, pictures in [-1, 1], so the peak is 2), the same with noise on the
 * latents and of redrawn ones where the loss has some, the error of flat backgrounds (levels of 255), the latents'
 * standard deviation; and a sheet: originals over reconstructions, over pictures from redrawn latents.
 */
function measureAutoencoder(
  network: Pick<PatchAutoencoder, "encode" | "decode">,
  { scenes, device, redrawing }: { scenes: EmojiScenes; device: string; redrawing: Redrawing | null },
): { figures: Record<string, number>; sheet: { data: Uint8Array; width: number; height: number } } {
  const S = scenes.size;
  return scope(() => {
    const { pixels, scenes: described } = scenes.batch(UNSEEN, EVALUATED);
    const x = tensor(pixels, { shape: [EVALUATED, 3, S, S], device });
    const z = network.encode(x).mean;
    const plain = inChunks(z, (part) => network.decode(part).clamp(-1, 1));
    const redrawn = redrawing && network.decode(redrawing.redraw(z.narrow(0, 0, SHOWN), described.slice(0, SHOWN)));
    const noisy = inChunks(z.add(randnLike(z).mul(0.15)), (part) => network.decode(part).clamp(-1, 1));
    const psnr = (y: Tensor) =>
      y
        .sub(x.narrow(0, 0, y.size(0)))
        .div(2)
        .square()
        .mean([1, 2, 3])
        .log()
        .mul(-10 / Math.LN10)
        .mean()
        .item();
    const corner = (t: Tensor) => t.narrow(2, 0, 4).narrow(3, 0, 4);
    const figures = {
      psnr: psnr(plain),
      psnr_noise_0_15: psnr(noisy),
      ...(redrawn && { psnr_redrawn: psnr(redrawn.clamp(-1, 1)) }),
      background_error: corner(plain).sub(corner(x)).abs().mean().item() * 127.5,
      latent_std: z.std().item(),
    };
    const columns = 8;
    const rows: Tensor[] = [];
    for (let first = 0; first < SHOWN; first += columns) {
      for (const t of [x, plain, ...(redrawn ? [redrawn] : [])])
        rows.push(cat(t.narrow(0, first, columns).unbind(0), 2));
    }
    const sheet = cat(rows, 1);
    const [, height, width] = sheet.shape as [number, number, number];
    const planar = sheet.data() as Float32Array;
    return { figures, sheet: { data: interleave(planar, width, height), width, height } };
  });
}

function inChunks(z: Tensor, decode: (part: Tensor) => Tensor): Tensor {
  return cat(z.split(16, 0).map(decode), 0);
}

function interleave(planar: Float32Array, width: number, height: number): Uint8Array {
  const out = new Uint8ClampedArray(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) out[3 * i + c] = (planar[c * width * height + i]! + 1) * 127.5;
  }
  return new Uint8Array(out.buffer);
}

/** Writes a network's state dict in half precision. Returns the number of values. */
export function writeHalf(path: string, network: nn.Module): number {
  let values = 0;
  const tensors: Record<string, Tensor> = {};
  for (const [name, value] of network.stateDict()) {
    values += value.numel;
    tensors[name] = value.detach().half();
  }
  writeSafetensors(path, tensors, { format: "pt" });
  return values;
}
