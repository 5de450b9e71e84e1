// The score files against the recording of the published libraries, with tiny random weights, whose `stored` tensors
// hold what upstream's preparation writes for each picture and caption.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import { scope, setNumThreads } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../../emoji/register.js";
import { runCaptured } from "../../cli/testing/run-captured.js";
import { registerScorer } from "../../rewards/registry.js";
import { TarWriter } from "../shards/tar-writer.js";
import type { PreprocessOptions } from "./options.js";
import { preprocess } from "./preprocess.js";
import { readScores } from "./scores-csv.js";

setNumThreads(1);
const reference = fileURLToPath(new URL("../../../../../tests/reference/fixtures/scorers", import.meta.url));
const { captions, scored_pictures: pictures } = JSON.parse(readFileSync(join(reference, "scorers.json"), "utf8")) as {
  captions: string[];
  scored_pictures: string[];
};
const folder = mkdtempSync(join(tmpdir(), "miro-score-stage-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The scorers of the recording, by column: where it is, and which of the synthetic captions is judged. */
const RECORDED = [
  ["aesthetic_score", "aesthetic", null],
  ["clip_score", "clip_jina", "long"],
  ["hpsv2_score", "hpsv2", "short"],
  ["image_reward_score", "image_reward", "short"],
  ["pick_a_score_score", "pick_score", "short"],
] as const;
const weights = {
  ...Object.fromEntries(RECORDED.map(([key, of]) => [key, join(reference, of)])),
  clip_openai: join(reference, "clip_openai"),
};
/** Captions of a picture, as places among the recorded ones; 7 has a <PERSON>, which is removed. */
const textsOf = (i: number) => ({ original: i, long: i + 5 === 7 ? 11 : i + 5, short: (i + 8) % 12 });
const raw = join(folder, "raw");

beforeAll(async () => {
  mkdirSync(raw);
  const writer = await TarWriter.create(join(raw, "0.tar"));
  for (const [i, name] of pictures.entries()) {
    const { original, long, short } = textsOf(i);
    const json = { synthetic_caption: captions[long], short_synthetic_caption: captions[short] };
    await writer.add(`${name}.png`, readFileSync(join(reference, "pictures", `${name}.png`)));
    await writer.add(`${name}.txt`, Buffer.from(captions[original]!));
    // The last sample has no synthetic caption.
    await writer.add(`${name}.json`, Buffer.from(JSON.stringify(i === pictures.length - 1 ? {} : json)));
  }
  await writer.add("broken.png", Buffer.from("no picture"));
  await writer.add("broken.txt", Buffer.from("a caption"));
  await writer.add("broken.json", Buffer.from("{}"));
  await writer.finish();
});

const run = (name: string, changes: Partial<PreprocessOptions> = {}) =>
  preprocess({ stage: "rewards", src: raw, csvDir: join(folder, name), workers: 1, ...changes });
const scoresOf = (name: string) => readScores(join(folder, name, "0_scores.csv"));

/** The recorded tensor, and what upstream divides it by. */
const UNITS = {
  aesthetic: ["raw", 10],
  clip_jina: ["logits", 100],
  hpsv2: ["cosine", 1],
  image_reward: ["stored", 1],
  pick_score: ["logits", 100],
} as const;

/** What upstream would store, by picture and by caption where one is read. */
function stored(of: (typeof RECORDED)[number][1]): (picture: number, caption: number) => number {
  const [name, divisor] = UNITS[of];
  return scope(() => {
    const values = readSafetensors(join(reference, of, "reference.safetensors")).get(name)!;
    const [data, wide] = [Float32Array.from(values.data() as Float32Array), values.ndim === 2];
    return (picture, caption) => data[wide ? picture * captions.length + caption : picture]! / divisor;
  });
}

describe("the score file", () => {
  it("has upstream's columns in upstream's units, for the caption that each judges", async () => {
    // Without --scorers, the published scorers run whose weights are named; clip_openai is none of them.
    const { shards } = await run("whole", { weights, dtype: "float32" });
    expect(shards[0]).toMatchObject({ seen: 7, written: 6, skipped: { "unsupported-image": 1 } });
    const text = readFileSync(join(folder, "whole", "0_scores.csv"), "utf8");
    expect(text.split("\r\n")[0]).toBe(
      "key,aesthetic_score,clip_score,hpsv2_score,image_reward_score,pick_a_score_score,short_synthetic_caption," +
        "synthetic_aesthetic_score,synthetic_caption,synthetic_clip_score,synthetic_hpsv2_score," +
        "synthetic_image_reward_score,synthetic_pick_a_score_score",
    );
    const scores = scoresOf("whole");
    for (const [key, of, judged] of RECORDED) {
      const expected = stored(of);
      for (const [i, name] of pictures.entries()) {
        const row = scores.get(name)!;
        const texts = textsOf(i);
        expect(row.get(key), `${key} of ${name}`).toBeCloseTo(expected(i, texts.original), 5);
        const synthetic = row.get(`synthetic_${key}`);
        if (i === pictures.length - 1) expect(synthetic).toBeUndefined();
        else expect(synthetic, `synthetic ${key} of ${name}`).toBeCloseTo(expected(i, texts[judged ?? "original"]), 5);
      }
    }
  });

  it("says in its manifest which model, precision and caption gave each score, and is made anew for others", async () => {
    const manifest = () =>
      JSON.parse(readFileSync(join(folder, "kept", "0_scores.rewards.manifest.json"), "utf8")).settings.scorers;
    const given = { scorers: ["hpsv2_score"], weights, dtype: "float32" } as const;
    await run("kept", given);
    expect(manifest().hpsv2_score).toEqual({
      name: "HPSv2.1",
      synthetic: "short",
      dtype: "float32",
      weights: { hpsv2_score: expect.stringMatching(/^[0-9a-f]{64}$/) },
      letterbox: false,
    });
    expect(
      JSON.parse(readFileSync(join(folder, "kept", "0_scores.rewards.manifest.json"), "utf8")).details,
    ).toMatchObject({ "cutCaptions.hpsv2_score": 1 });
    expect((await run("kept", given)).counts.skipped).toBe(1);
    const before = scoresOf("kept").get("wide")!.get("hpsv2_score");
    expect((await run("kept", { ...given, hpsLetterbox: true })).counts.done).toBe(1);
    expect(scoresOf("kept").get("wide")!.get("hpsv2_score")).not.toBe(before);
    const home = join(folder, "own-hpsv2");
    cpSync(join(reference, "hpsv2"), home, { recursive: true });
    const own = { ...given, weights: { hpsv2_score: home } };
    expect((await run("kept", own)).counts.done).toBe(1);
    expect((await run("kept", own)).counts.skipped).toBe(1);
    // The same merges, packed otherwise: what tokenizes captions counts.
    const table = join(home, "tokenizer/bpe_simple_vocab_16e6.txt.gz");
    writeFileSync(table, gzipSync(gunzipSync(readFileSync(table)), { level: 1 }));
    expect((await run("kept", own)).counts.done).toBe(1);
  });
});

describe("a score that is not finite", () => {
  it("is an empty cell and a line of the report; the other scores of the sample stay", async () => {
    const state = { value: Number.NaN };
    registerScorer({
      key: "uneven_score",
      name: "uneven",
      description: "fails for one caption",
      stage: "rewards",
      usesText: true,
      load: async () => ({
        name: "uneven",
        batchSize: 8,
        dispose() {},
        score: (_, texts) => texts.map((text) => (text === captions[1] ? state.value : 1)),
      }),
    });
    const given = { scorers: ["uneven_score", "sharpness"] };
    const { shards } = await run("uneven", given);
    expect(shards[0]).toMatchObject({ written: 6, skipped: { "unsupported-image": 1 } });
    const row = scoresOf("uneven").get(pictures[1]!)!;
    expect([row.has("uneven_score"), row.get("synthetic_uneven_score"), row.has("sharpness")]).toEqual([
      false,
      1,
      true,
    ]);
    const report = readFileSync(join(folder, "uneven", "0_scores.rewards.skipped.jsonl"), "utf8")
      .trim()
      .split("\n");
    expect(report.map((line) => JSON.parse(line))).toContainEqual({
      key: pictures[1],
      reason: "score-failed",
      message: expect.stringMatching(/uneven_score: .*NaN/),
      column: "uneven_score",
    });
    // The shard is finished all the same; with a value from an earlier run it would be made again.
    expect((await run("uneven", given)).counts.skipped).toBe(1);
    state.value = 2;
    await run("uneven", { ...given, overwrite: true });
    expect(scoresOf("uneven").get(pictures[1]!)!.get("uneven_score")).toBe(2);
    state.value = Number.POSITIVE_INFINITY;
    await run("uneven", { ...given, overwrite: true });
    expect(scoresOf("uneven").get(pictures[1]!)!.has("uneven_score")).toBe(false);
    await expect(run("strict", { ...given, scorers: ["uneven_score"], strict: true, shardId: 0 })).rejects.toThrow(
      /sample \w+: .* without `strict: true`/,
    );
  });
});

describe("miro preprocess", () => {
  it("refuses weights of an unknown scorer, precisions that a stage lacks, and folders without weights", async () => {
    const at = ["preprocess", "--src", raw, "--csv-dir", join(folder, "refused")];
    const cases: [string[], RegExp][] = [
      [
        ["--stage", "rewards", "--weights", `hps=${reference}`],
        /--weights: "hps" is not known; there are .*hpsv2_score/,
      ],
      [["--stage", "vae", "--dest", join(folder, "d"), "--dtype", "float16"], /--dtype: expected auto, float32/],
      [
        ["--stage", "rewards", "--weights", `hpsv2_score=${folder}`],
        /holds no weights of hpsv2_score; expected HPS_v2\.1/,
      ],
    ];
    for (const [args, message] of cases)
      expect(await runCaptured(...at, ...args)).toMatchObject({ code: 2, stderr: expect.stringMatching(message) });
  });
});
