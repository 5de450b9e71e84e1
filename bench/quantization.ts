/**
 * `npm run bench -- quantization`: what int8 does to pictures. The bundled model draws the same texts and seeds in
 * float32, bfloat16 and int8; what is compared is the signal-to-noise ratio of pictures (PSNR over 0 … 255) and of
 * latents against float32.
 */
import { join } from "node:path";
import { MiroPipeline } from "miro-t2i";
import { type BenchOptions, columns, root, spread, store } from "./harness.js";

const TEXTS = ["a red apple on a light blue background", "a fox", "a cat", "a green car", "a yellow bird", "a house"];

interface Drawn {
  picture: Uint8Array;
  latents: Float32Array;
}

async function draw(options: { dtype: "float32" | "bfloat16"; quantization?: "int8" }): Promise<Drawn[]> {
  const pipe = await MiroPipeline.fromPretrained(join(root(), "models", "miro-emoji"), options);
  try {
    const { images, latents } = await pipe.generate(TEXTS, { seed: 0, keepLatents: true });
    const values = latents.data() as Float32Array;
    latents.dispose();
    const size = values.length / TEXTS.length;
    return images.map(({ data }, i) => ({ picture: data, latents: values.slice(i * size, (i + 1) * size) }));
  } finally {
    await pipe.dispose();
  }
}

/** 10·log₁₀(peak² / mean squared difference). */
function ratio(a: ArrayLike<number>, b: ArrayLike<number>, peak: number): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return 10 * Math.log10(peak ** 2 / (sum / a.length));
}

/** Root mean square. */
const power = (a: ArrayLike<number>) => Math.sqrt(Array.from(a).reduce((sum, v) => sum + v * v, 0) / a.length);

export async function quantization(options: BenchOptions): Promise<void> {
  const exact = await draw({ dtype: "float32" });
  const rows = [];
  for (const [name, how] of [
    ["bfloat16", { dtype: "bfloat16" }],
    ["int8, rest float32", { dtype: "float32", quantization: "int8" }],
    ["int8, rest bfloat16", { dtype: "bfloat16", quantization: "int8" }],
  ] as const) {
    const drawn = await draw(how);
    rows.push({
      name,
      picturesDecibel: spread(drawn.map(({ picture }, i) => ratio(picture, exact[i]!.picture, 255))),
      latentsDecibel: spread(
        drawn.map(({ latents }, i) => ratio(latents, exact[i]!.latents, power(exact[i]!.latents))),
      ),
    });
  }
  console.log(
    columns([
      [`against float32, ${TEXTS.length} pictures of the bundled model`, "pictures dB", "least", "latents dB", "least"],
      ...rows.map(({ name, picturesDecibel: p, latentsDecibel: l }) => [
        name,
        ...[p.median, p.min, l.median, l.min].map((v) => v.toFixed(1)),
      ]),
    ]),
  );
  console.log(`written: ${store(options, { texts: TEXTS, seed: 0 }, { rows })}`);
}
