/**
 * `npm run bench -- preparation`: milliseconds of processor time that data preparation takes for one JPEG of 1024 × 768
 * before a model sees it, on one thread: decoding it, and what is made of its pixels. Pillow does the same work.
 */
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeImage, type RgbImage } from "miro-t2i";
import { centreSquare, decodeImage, resizeThenCrop } from "miro-t2i/data";
import { type BenchOptions, columns, runReference, type Spread, spread, store } from "./harness.js";

const SIZE = { width: 1024, height: 768 };
/** Pictures of each round. */
const REPEATS = 20;

interface Reference {
  /** Milliseconds of each round, by part. */
  times: Record<string, number[]>;
  versions: Record<string, string>;
}

export async function preparation(options: BenchOptions): Promise<void> {
  const jpeg = await encodeImage(smoothPicture(), [], { format: "jpeg" });
  const image = await decodeImage(jpeg, {});
  const parts: Record<string, () => unknown> = {
    "decoding it": () => decodeImage(jpeg, {}),
    "its square at 256 × 256": () => centreSquare(image, 256),
    "its square at 512 × 512": () => centreSquare(image, 512),
    "what a CLIP tower sees at 224 × 224": () => resizeThenCrop(image, 224, "bicubic"),
  };
  const times: Record<string, number[]> = {};
  for (const [part, work] of Object.entries(parts)) times[part] = await milliseconds(options.rounds, work);

  const file = join(tmpdir(), `miro-bench-${process.pid}.jpg`);
  let python: Reference | null = null;
  try {
    writeFileSync(file, jpeg);
    if (options.python)
      python = runReference<Reference>(options.python, "preparation.py", [
        file,
        String(REPEATS),
        String(options.rounds),
        ...Object.keys(parts),
      ]);
  } finally {
    rmSync(file, { force: true });
  }

  const rows = Object.entries(times).map(([part, ours]) => {
    const theirs = python?.times[part];
    return { part, ours: spread(ours), python: theirs ? spread(theirs) : null };
  });
  const range = (value: Spread | null) =>
    value === null ? "" : `${value.median.toFixed(1)} (${value.min.toFixed(1)} to ${value.max.toFixed(1)})`;
  console.log(
    columns([
      ["processor milliseconds of a JPEG of 1024 × 768", "miro-t2i", "Pillow"],
      ...rows.map(({ part, ours, python }) => [part, range(ours), range(python)]),
    ]),
  );
  const config = { ...SIZE, bytes: jpeg.length, repeats: REPEATS };
  console.log(`\n${store(options, config, { rows }, python?.versions)}`);
}

/** Of each round, after one that is not counted. */
async function milliseconds(rounds: number, work: () => unknown): Promise<number[]> {
  const all: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    const before = process.cpuUsage();
    for (let i = 0; i < REPEATS; i++) await work();
    const { user, system } = process.cpuUsage(before);
    all.push((user + system) / 1000 / REPEATS);
  }
  return all.slice(1);
}

/** Waves in three colours: a photograph's share of detail. */
function smoothPicture(): RgbImage {
  const { width, height } = SIZE;
  const data = new Uint8Array(3 * width * height);
  for (let i = 0; i < data.length; i++) {
    const [c, x, y] = [i % 3, Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    data[i] = 128 + 60 * Math.sin(x / (9 + 4 * c) + y / 31) + 60 * Math.sin((x * y) / 2e3 + c);
  }
  return { width, height, data };
}
