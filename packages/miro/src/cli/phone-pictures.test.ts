/** Pictures as phones store them: turned where that is asked for, and told where it is not. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { shardSheet } from "../data/inspect/shard-sheet.js";
import type { PreprocessOptions } from "../data/preprocess/options.js";
import { preprocess } from "../data/preprocess/preprocess.js";
import { readScores } from "../data/preprocess/scores-csv.js";
import { TarWriter } from "../data/shards/tar-writer.js";
import { decodeShown } from "../pictures/decode-shown.js";
import { storedTurned, UPRIGHT } from "../pictures/testing/turned.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import { registerScorer } from "../rewards/registry.js";
import { sizeOfUpload, stretched } from "../studio/server/recode.js";
import { runCaptured } from "./testing/run-captured.js";

const ORIENTATIONS = [1, 2, 3, 4, 5, 6, 7, 8];
const folder = mkdtempSync(join(tmpdir(), "miro-phone-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const src = join(folder, "photos");
const file = (orientation: number) => join(src, `${orientation}.png`);

/** The red of the first pixel: how far from the left it is. */
const corner = (key: string, pixels: "shown" | "stored") =>
  registerScorer({
    key,
    name: "corner",
    description: "red of the first pixel",
    stage: "rewards",
    usesText: false,
    pixels,
    load: async () => ({
      name: "corner",
      batchSize: 8,
      dispose: () => {},
      score: (images) => images.map(({ data, width, height }) => data[0]! + 1000 * width + height),
    }),
  });

beforeAll(async () => {
  mkdirSync(src);
  for (const orientation of ORIENTATIONS) {
    writeFileSync(file(orientation), await storedTurned(orientation).png().toBuffer());
    writeFileSync(join(src, `${orientation}.txt`), "a photograph");
  }
  corner("corner_shown", "shown");
  corner("corner_stored", "stored");
});

const upright = 1000 * UPRIGHT.width + UPRIGHT.height;

it("preprocess turns all eight orientations, or says how many it took as they are stored", async () => {
  const scored = async (changes: Partial<PreprocessOptions>) => {
    const csvDir = join(folder, `csv-${Object.keys(changes).length}`);
    const messages: string[] = [];
    const onMessage = (text: string) => messages.push(text);
    const given = { stage: "rewards", src, csvDir, scorers: ["corner_shown"], workers: 1, onMessage, ...changes };
    const { shards } = await preprocess(given as PreprocessOptions);
    const rows = [...readScores(join(csvDir, "00000_scores.csv")).values()];
    return { values: rows.map((row) => Number(row.get("corner_shown"))), messages, shards };
  };
  const turned = await scored({ exifOrientation: true });
  expect(turned.values).toEqual(ORIENTATIONS.map(() => upright));
  expect(turned.messages).toEqual([]);
  expect(turned.shards[0]!.unturned).toBeUndefined();

  const stored = await scored({});
  expect(new Set(stored.values).size).toBeGreaterThan(2);
  expect(stored.shards[0]!.unturned).toBe(7);
  expect(stored.messages).toEqual([
    expect.stringMatching(/photos: 7 pictures are stored turned .* as in the published data; .*exifOrientation: true/),
  ]);
  // What is finished already says it again.
  expect((await scored({})).messages).toEqual(stored.messages);
  const { stderr } = await runCaptured(
    ...["preprocess", "--stage", "rewards", "--src", src, "--csv-dir", join(folder, "cli"), "--scorers", "sharpness"],
  );
  expect(stderr).toMatch(/--exif-orientation turns them as viewers do/);
});

it("score judges what is shown; of scorers that judge stored pixels it is told", async () => {
  const score = (by: string) => runCaptured("score", src, "--by", by, "--json");
  const shown = await score("corner_shown");
  expect(shown.stderr).toBe("");
  expect(JSON.parse(shown.stdout)).toMatchObject({
    images: ORIENTATIONS.map(() => ({ scores: { corner_shown: upright } })),
    unturned: 0,
  });
  const stored = await score("corner_stored");
  expect(stored.stderr).toMatch(
    /^warning: 7 pictures stored turned or mirrored \(EXIF\): corner_stored sees them as stored/,
  );
  expect(JSON.parse(stored.stdout).unturned).toBe(7);
});

it("drawing over a picture, and the studio's uploads, take it as it is shown", async () => {
  const pipe = await MiroPipeline.fromPretrained();
  try {
    const { images } = await pipe.generate(
      ORIENTATIONS.map(() => "a fox"),
      { image: ORIENTATIONS.map(file), strength: 0, steps: 1, guidanceScale: 1, seed: 1 },
    );
    for (const { data } of images) expect(Buffer.compare(data, images[0]!.data)).toBe(0);
  } finally {
    await pipe.dispose();
  }
  const square = async (orientation: number) => {
    const bytes = await storedTurned(orientation).png().toBuffer();
    expect(await sizeOfUpload("image", bytes)).toEqual([UPRIGHT.width, UPRIGHT.height]);
    return decodeShown(await stretched("image", bytes, 1));
  };
  const first = await square(1);
  for (const orientation of ORIENTATIONS.slice(1)) {
    const { width, height, data } = await square(orientation);
    expect([width, height]).toEqual([first.width, first.height]);
    // The interpolation lies a third of a pixel off; before the turning, it does so in another direction.
    for (const [i, value] of data.entries()) expect(Math.abs(value - first.data[i]!)).toBeLessThanOrEqual(15);
  }
});

it("a sheet of shards shows what was trained on", async () => {
  const sheet = async (name: string, orientation: number, settings: object) => {
    mkdirSync(join(folder, name));
    const writer = await TarWriter.create(join(folder, name, "00000.tar"));
    await writer.addSample("a", { png: await storedTurned(orientation).png().toBuffer(), txt: Buffer.from("a") });
    const { bytes, sha256 } = await writer.finish();
    const manifest = {
      format: "miro-shard-manifest",
      version: 1,
      program: "miro",
      state: "complete",
      stage: "vae",
      input: {},
      settings,
      output: { file: "00000.tar", bytes, sha256 },
      samples: null,
      details: {},
      seconds: {},
    };
    writeFileSync(join(folder, name, "00000.manifest.json"), JSON.stringify(manifest));
    return (await shardSheet(join(folder, name))).data;
  };
  const shown = await sheet("upright", 1, {});
  expect(Buffer.compare(await sheet("turned", 6, { exifOrientation: true }), shown)).toBe(0);
  expect(Buffer.compare(await sheet("stored", 6, { exifOrientation: false }), shown)).not.toBe(0);
});
