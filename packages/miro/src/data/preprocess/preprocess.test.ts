import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { noGrad, scope, setNumThreads, tensor } from "@miro-t2i/torch";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { readNpy } from "@miro-t2i/torch/io";
import sharp, { type Sharp } from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../../emoji/register.js";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { run as miro } from "../../cli/main.js";
import { FileLock } from "../../files/file-lock.js";
import { imageFormat } from "../../pictures/decode.js";
import { bundledFolder } from "../../pipeline/loading/bundled.js";
import { registerScorer } from "../../rewards/registry.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { indexShards } from "../dataset/index-shards.js";
import { TrainingSet } from "../dataset/training-set.js";
import { TarFile } from "../shards/tar-file.js";
import { TarWriter } from "../shards/tar-writer.js";
import type { PreprocessOptions } from "./options.js";
import { type PreprocessResult, preprocess } from "./preprocess.js";
import { readScores } from "./scores-csv.js";

setNumThreads(1);
const model = bundledFolder("miro-emoji")!;
const folder = mkdtempSync(join(tmpdir(), "miro-preprocess-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A picture of two colours with a gradient. */
function picture(i: number, { width = 40, height = 30 } = {}): Sharp {
  const data = Buffer.from(
    Array.from({ length: width * height * 3 }, (_, n) => {
      const [x, y] = [Math.floor(n / 3) % width, Math.floor(n / 3 / width)];
      return (x * 5 * (i + 1) + y * 3 + (n % 3) * 80) % 256;
    }),
  );
  return sharp(data, { raw: { width, height, channels: 3 } });
}

interface Given {
  key: string;
  txt?: string | Buffer;
  json?: string;
  image?: Buffer;
  extension?: string;
}

async function writeTar(path: string, samples: readonly Given[]): Promise<void> {
  mkdirSync(dirname(path), { recursive: true });
  const writer = await TarWriter.create(path);
  for (const [i, { key, txt = `caption ${key}`, json = "{}", image, extension = "jpg" }] of samples.entries()) {
    const bytes =
      image ??
      (await picture(i)
        .toFormat(extension === "png" ? "png" : "jpeg")
        .toBuffer());
    await writer.add(`${key}.${extension}`, bytes);
    await writer.add(`${key}.txt`, Buffer.from(txt));
    await writer.add(`${key}.json`, Buffer.from(json));
  }
  await writer.finish();
}

function members(path: string): Map<string, Buffer> {
  const tar = TarFile.open(path);
  const found = new Map(tar.members.map((member) => [member.name, Buffer.from(tar.read(member))]));
  tar.close();
  return found;
}

const raw = join(folder, "raw");
const samples: Given[] = [
  {
    key: "000",
    txt: "a red <PERSON> apple",
    json: '{"width": 40, "height": 30, "url": "é", "score": 1.0, "synthetic_caption": "a shiny red apple", "short_synthetic_caption": "apple"}',
  },
  { key: "001", json: '{"clip_score": 5, "synthetic_caption": "caption 001"}' },
  { key: "002", extension: "png" },
  { key: "dir.x/003", json: '{"similarity": NaN}' },
];

beforeAll(async () => {
  await writeTar(join(raw, "b.tar"), samples);
  await writeTar(join(raw, "a.tar"), [{ key: "100" }]);
});

let outputs = 0;
interface Places {
  csvDir: string;
  dest: string;
}
function places(): Places {
  const place = join(folder, `out-${outputs++}`);
  return { csvDir: join(place, "scores"), dest: join(place, "shards") };
}

type Changes = Partial<PreprocessOptions>;
const run = (where: Places, changes: Changes = {}): Promise<PreprocessResult> =>
  preprocess({
    stage: "all",
    src: raw,
    model,
    vae512: false,
    scorers: ["sharpness", "colorfulness"],
    workers: 1,
    ...where,
    ...changes,
  } as PreprocessOptions);

describe("a prepared shard", () => {
  const where = places();
  beforeAll(async () => {
    const { counts } = await run(where, { vae512: true });
    expect(counts).toEqual({ done: 4, skipped: 0, locked: 0, failed: 0 });
  });

  it("has the published members in the published order", () => {
    const names = [...members(join(where.dest, "b.tar")).keys()];
    const of = (key: string, extension: string, synthetic: boolean) =>
      [
        "flan_t5_xl_embeddings.npy",
        extension,
        "json",
        ...(synthetic ? ["synthetic_flan_t5_xl_embeddings.npy"] : []),
        "txt",
        "vae_embeddings_mean_256.npy",
        "vae_embeddings_mean_512.npy",
        "vae_embeddings_std_256.npy",
        "vae_embeddings_std_512.npy",
      ]
        .sort()
        .map((name) => `${key}.${name}`);
    expect(names).toEqual([
      ...of("000", "jpg", true),
      ...of("001", "jpg", true),
      ...of("002", "png", false),
      ...of("dir.x/003", "jpg", false),
    ]);
  });

  it("keeps the picture's bytes and the caption, and adds scores to the JSON", () => {
    const [before, after] = [members(join(raw, "b.tar")), members(join(where.dest, "b.tar"))];
    for (const name of ["000.jpg", "000.txt", "002.png", "dir.x/003.txt"])
      expect(after.get(name)).toEqual(before.get(name));
    const scores = readScores(join(where.csvDir, "b_scores.csv"));
    const row = scores.get("000")!;
    expect(after.get("000.json")!.toString()).toBe(
      `{"width": 40, "height": 30, "url": "\\u00e9", "score": 1.0, "synthetic_caption": "a shiny red apple", "short_synthetic_caption": "apple", ` +
        `"colorfulness": ${row.get("colorfulness")}, "sharpness": ${row.get("sharpness")}, ` +
        `"synthetic_colorfulness": ${row.get("colorfulness")}, "synthetic_sharpness": ${row.get("sharpness")}}`,
    );
    expect(JSON.parse(after.get("dir.x/003.json")!.toString())).toEqual({
      similarity: null,
      ...Object.fromEntries(scores.get("dir.x/003")!),
    });
  });

  it("holds what autoencoder and text encoder make of picture and caption", async () => {
    const found = members(join(where.dest, "b.tar"));
    const npy = (name: string) => {
      const path = join(folder, "one.npy");
      writeFileSync(path, found.get(name)!);
      return readNpy(path);
    };
    const vae = loadAutoencoder(join(model, "vae"));
    const encoder = await T5Encoder.fromPretrained(join(model, "text_encoder"));
    const tokenizer = await Tokenizer.fromFile(join(model, "text_encoder"));
    // A 30 x 30 square begins 5 pixels from the left; libvips resizes with other weights, so colours agree roughly.
    const { data } = await sharp(found.get("002.png")!)
      .extract({ left: 5, top: 0, width: 30, height: 30 })
      .resize(256, 256, { kernel: "linear" })
      .raw()
      .toBuffer({ resolveWithObject: true });
    scope(() =>
      noGrad(() => {
        const x = tensor(new Uint8Array(data), { shape: [1, 256, 256, 3] })
          .permute(0, 3, 1, 2)
          .float()
          .div(127.5)
          .sub(1);
        const { mean } = vae.encode(x);
        const stored = npy("002.vae_embeddings_mean_256.npy");
        expect([stored.dtype, stored.shape]).toEqual(["float16", [4, 32, 32]]);
        const error = stored.float().sub(mean.select(0, 0)).abs().mean().item();
        expect(error).toBeLessThan(0.1 * mean.std().item());
        expect(npy("002.vae_embeddings_std_512.npy").shape).toEqual([4, 64, 64]);

        for (const [name, text] of [
          ["000.flan_t5_xl_embeddings.npy", "a red  apple"],
          ["000.synthetic_flan_t5_xl_embeddings.npy", "a shiny red apple"],
        ] as const) {
          const { ids, mask } = tokenizer.encodeBatch([text], { maxLength: 64 });
          const length = mask.sum().item() as number;
          const states = encoder.forward(ids, mask).select(0, 0).narrow(0, 0, length);
          const embedded = npy(name);
          expect(embedded.shape).toEqual([length, encoder.config.dModel]);
          // float16 has 11 bits.
          expect(embedded.float().sub(states).abs().max().item()).toBeLessThan(states.abs().max().item() / 1000);
        }
      }),
    );
    vae.dispose();
    encoder.dispose();
  });

  it("has the same bytes whatever the workers, the batch and the run", async () => {
    const other = places();
    await run(other, { vae512: true, workers: 3, batchSize: 2 });
    for (const name of ["a.tar", "b.tar"])
      expect(readFileSync(join(other.dest, name)).equals(readFileSync(join(where.dest, name)))).toBe(true);
    expect(readFileSync(join(other.csvDir, "b_scores.csv"), "utf8")).toBe(
      readFileSync(join(where.csvDir, "b_scores.csv"), "utf8"),
    );
  });

  it("leaves neither locks nor temporary files", () => {
    for (const place of [where.dest, where.csvDir])
      expect(readdirSync(place).filter((name) => name.startsWith("."))).toEqual([]);
  });
});

describe("a restart", () => {
  it("skips what is finished and makes again what is gone, cut or older than its input", async () => {
    const where = places();
    const src = join(folder, "raw-restart");
    await writeTar(join(src, "a.tar"), [{ key: "1" }]);
    await writeTar(join(src, "b.tar"), [{ key: "2" }]);
    const go = () => run(where, { src });
    await go();
    const whole = readFileSync(join(where.dest, "a.tar"));
    expect((await go()).counts).toMatchObject({ done: 0, skipped: 4 });
    writeFileSync(join(where.dest, "a.tar"), whole.subarray(0, 5000));
    expect((await go()).counts).toMatchObject({ done: 1, skipped: 3 });
    expect(readFileSync(join(where.dest, "a.tar")).equals(whole)).toBe(true);
    rmSync(join(where.csvDir, "a_scores.csv"));
    expect((await go()).counts).toMatchObject({ done: 1, skipped: 3 });
    await writeTar(join(src, "b.tar"), [{ key: "2", txt: "another caption" }]);
    const { shards } = await go();
    expect(shards.filter(({ status }) => status === "done").map(({ shard }) => shard)).toContain("b");
    expect(members(join(where.dest, "b.tar")).get("2.txt")!.toString()).toBe("another caption");
  });

  it("does not replace tars of other settings or other makers without --overwrite", async () => {
    const where = places();
    await run(where, { shardId: 0 });
    const other = await run(where, { shardId: 0, textMaxLength: 3 });
    expect(other.shards.at(-1)).toMatchObject({
      status: "failed",
      message: expect.stringMatching(/other settings \(textMaxLength\)/),
    });
    writeFileSync(join(where.dest, "b.tar"), "precious");
    const foreign = await run(where, { shards: ["b.tar"] });
    expect(foreign.shards.at(-1)).toMatchObject({
      status: "failed",
      message: expect.stringMatching(/not made by this program/),
    });
    expect(readFileSync(join(where.dest, "b.tar"), "utf8")).toBe("precious");
    expect((await run(where, { shards: ["b"], overwrite: true })).counts.failed).toBe(0);
  });
});

describe("two sources with shards of the same name", () => {
  it("do not replace each other's tars and scores, but a source that was moved finds its own", async () => {
    const where = places();
    const [one, other, moved] = ["one", "other", "moved"].map((name) => join(folder, `source-${name}`)) as [
      ...[string, string, string],
    ];
    await writeTar(join(one, "a.tar"), [{ key: "1" }]);
    await writeTar(join(other, "a.tar"), [{ key: "2" }, { key: "3" }]);
    await run(where, { src: one });
    const made = [join(where.dest, "a.tar"), join(where.csvDir, "a_scores.csv")];
    const before = made.map((path) => readFileSync(path));
    const { shards } = await run(where, { src: other });
    for (const [i, place] of (["csvDir", "dest"] as const).entries())
      expect(shards[i]).toMatchObject({
        status: "failed",
        message:
          `${made[1 - i]}: was made from ${realpathSync(one)}; ` +
          `choose another \`${place}\`, or \`overwrite: true\``,
      });
    expect(made.map((path) => readFileSync(path))).toEqual(before);
    renameSync(one, moved);
    expect((await run(where, { src: moved })).counts).toMatchObject({ failed: 0, done: 0 });
    expect((await run(where, { src: other, overwrite: true })).counts).toMatchObject({ failed: 0, skipped: 0 });
  });
});

describe("bad samples", () => {
  const src = join(folder, "raw-bad");
  beforeAll(async () => {
    const jpeg = await picture(0).jpeg().toBuffer();
    await writeTar(join(src, "bad.tar"), [
      { key: "good" },
      { key: "cut", image: jpeg.subarray(0, jpeg.length / 2) },
      { key: "text", image: Buffer.from("no picture") },
      { key: "utf8", txt: Buffer.from([0xff, 0xff]) },
      { key: "json", json: "{" },
      { key: "list", json: "[1]" },
      { key: "large", image: await picture(0, { width: 300, height: 200 }).jpeg().toBuffer() },
      { key: "last" },
    ]);
    const writer = await TarWriter.create(join(src, "alone.tar"));
    await writer.add("1.jpg", jpeg);
    await writer.add("1.txt", Buffer.from("no json"));
    await writer.add("2.txt", Buffer.from("no picture"));
    await writer.add("2.json", Buffer.from("{}"));
    await writer.finish();
  });

  it("are left out, counted and listed with their reason", async () => {
    const where = places();
    const { shards } = await run(where, { src, maxPixels: 10_000 });
    const expected = { "bad-image": 1, "unsupported-image": 1, "bad-caption": 1, "bad-json": 2, "image-too-large": 1 };
    const bad = shards.filter(({ shard }) => shard === "bad");
    expect(bad.map(({ seen, written, skipped }) => ({ seen, written, skipped }))).toEqual([
      { seen: 8, written: 2, skipped: expected },
      { seen: 8, written: 2, skipped: expected },
    ]);
    const report = readFileSync(join(where.dest, "bad.skipped.jsonl"), "utf8").trim().split("\n");
    const keys = report.map((line) => (JSON.parse(line) as { key: string }).key);
    expect(keys.sort()).toEqual(["cut", "json", "large", "list", "text", "utf8"]);
    expect([...members(join(where.dest, "bad.tar")).keys()].filter((name) => name.endsWith(".jpg"))).toEqual([
      "good.jpg",
      "last.jpg",
    ]);
    expect(shards.find(({ shard }) => shard === "alone")!.skipped).toEqual({ "missing-json": 1, "missing-image": 1 });
    const manifest = JSON.parse(readFileSync(join(where.dest, "bad.manifest.json"), "utf8")) as Record<string, unknown>;
    expect(manifest.samples).toEqual({ seen: 8, written: 2, skipped: expected });
  });

  it("that have a picture but no scores fail the shard, or are left out, or written, as one likes", async () => {
    const where = places();
    await run(where, { shards: ["b"], stage: "rewards" });
    const csv = join(where.csvDir, "b_scores.csv");
    const lines = readFileSync(csv, "utf8").split("\r\n");
    writeFileSync(csv, lines.filter((line) => !line.startsWith("001,")).join("\r\n"));
    const missing = async (missingScores: "error" | "skip" | "allow") => {
      const changes: Changes = { shards: ["b"], stage: "vae", vae256: false, missingScores };
      return (await run({ ...where, dest: `${where.dest}-${missingScores}` }, changes)).shards[0]!;
    };
    expect(await missing("error")).toMatchObject({
      status: "failed",
      message: expect.stringMatching(/no scores for 1 of 4 samples \(001\)/),
    });
    expect(await missing("skip")).toMatchObject({ status: "done", written: 3, skipped: { "no-scores": 1 } });
    expect(await missing("allow")).toMatchObject({ status: "done", written: 4, skipped: {} });
  });

  it("stop everything with strict, and nothing half-made stays", async () => {
    const where = places();
    await expect(run(where, { src, shards: ["bad"], strict: true })).rejects.toThrow(
      /bad\.tar, sample \w+: .*without `strict: true`/,
    );
    expect(readdirSync(where.csvDir).filter((name) => !name.endsWith(".manifest.json"))).toEqual([]);
  });
});

describe("captions", () => {
  it("of a table are scored, stored, and embedded by the later stage without the table", async () => {
    const where = places();
    const tsv = join(folder, "captions.tsv");
    writeFileSync(tsv, "000.jpg\tshort\tlong <PERSON> text\n002.png\tNA\tnan\n");
    const given = { shards: ["b"], syntheticCaptions: tsv };
    await run(where, { ...given, stage: "rewards" });
    const scores = readScores(join(where.csvDir, "b_scores.csv"));
    expect(scores.get("000")!.get("synthetic_caption")).toBe("long  text");
    expect(scores.get("002")!.get("synthetic_caption")).toBe("nan");
    expect(scores.get("001")!.has("synthetic_caption")).toBe(false);
    await run(where, { shards: ["b"], stage: "vae" });
    const withoutTable = members(join(where.dest, "b.tar"));
    const again = { ...where, dest: `${where.dest}-2` };
    await run(again, { ...given, stage: "vae" });
    const name = "000.synthetic_flan_t5_xl_embeddings.npy";
    expect(members(join(again.dest, "b.tar")).get(name)).toEqual(withoutTable.get(name));
    // 001 has a caption in its JSON, which a table overrules; what was not scored is not embedded either.
    expect(members(join(again.dest, "b.tar")).has("001.synthetic_flan_t5_xl_embeddings.npy")).toBe(false);
    writeFileSync(tsv, "000.jpg\tshort\tsomething else\n");
    const other = await run({ ...where, dest: `${where.dest}-3` }, { ...given, stage: "vae" });
    expect(other.shards[0]).toMatchObject({
      status: "failed",
      message: expect.stringMatching(/key 000: synthetic_caption was scored as/),
    });
  });

  it("that a table lacks are told, as a warning where it has none at all, of finished shards too", async () => {
    const where = places();
    const tsv = join(folder, "few.tsv");
    const told = async (rows: string) => {
      writeFileSync(tsv, rows);
      const said: string[][] = [];
      for (const overwrite of [true, false]) {
        const messages: string[] = [];
        const onMessage = (message: string) => messages.push(message);
        await run(where, { stage: "rewards", shards: ["b"], syntheticCaptions: tsv, overwrite, onMessage });
        said.push(messages.filter((message) => message.includes(tsv)));
      }
      expect(said[1]).toEqual(said[0]);
      return said[0];
    };
    const few = await told("000.jpg\tshort\tlong\n");
    const all = readScores(join(where.csvDir, "b_scores.csv")).size;
    expect(few).toEqual([`${tsv}: has no row for ${all - 1} samples, left without a synthetic caption`]);
    expect(await told("000.jpg\tshort\tlong\n000\tanother\tone\n")).toEqual([
      `warning: ${tsv}: has rows that differ for 1 sample, left without a synthetic caption; keep one of them`,
      few![0],
    ]);
    expect(await told("elsewhere.jpg\tshort\tlong\n")).toEqual([
      `warning: ${tsv}: has no row for ${all} samples, left without a synthetic caption; its first column names the files of samples`,
    ]);
  });

  it("of a tar stay as they are to the byte: with a mark, a NUL, any line ends, and half a character", async () => {
    const src = join(folder, "raw-odd");
    const odd = ["\ufeffmarked", "nul \0 within", "\u2028\r \r\n\n", " ", "x"];
    const synthetic = ["\\ufeffmarked", "nul \\u0000 within", "\\r,\\n", "=1+1", "half \\ud83d"];
    const json = synthetic.map((text) => `{"synthetic_caption": "${text}"}`);
    const given = odd.map((txt, i) => ({ key: `${i}`, txt, json: json[i]! }));
    await writeTar(join(src, "odd.tar"), given);
    const where = places();
    for (let twice = 0; twice < 2; twice++) {
      const { shards } = await run(where, { src, overwrite: true });
      expect(shards.map(({ stage, status, written }) => [stage, status, written])).toEqual([
        ["rewards", "done", 5],
        ["vae", "done", 5],
      ]);
    }
    const made = members(join(where.dest, "odd.tar"));
    expect(given.map(({ key }) => made.get(`${key}.txt`)!.toString())).toEqual(odd);
    const fields = given.map(({ key }) => JSON.parse(made.get(`${key}.json`)!.toString()));
    expect(fields.map((sample) => sample.synthetic_caption)).toEqual(
      json.map((text) => JSON.parse(text).synthetic_caption),
    );
    // What no text file can hold is no synthetic caption.
    expect(fields.map((sample) => "synthetic_sharpness" in sample)).toEqual([true, true, true, true, false]);
  });

  it("that change take their scores with them: none stays beside another text", async () => {
    const where = places();
    const tsv = join(folder, "changing.tsv");
    const given: Changes = { stage: "rewards", shards: ["b"], syntheticCaptions: tsv };
    writeFileSync(tsv, "000.jpg\ts\tfirst\n002.png\ts\tother\n");
    await run(where, given);
    writeFileSync(tsv, "000.jpg\ts\tsecond text\n");
    const partly = await run(where, { ...given, scorers: ["sharpness"] });
    expect(partly.shards[0]).toMatchObject({
      status: "failed",
      message: expect.stringMatching(/synthetic_colorfulness scores "first"/),
    });
    expect((await run(where, given)).counts.done).toBe(1);
    const scores = readScores(join(where.csvDir, "b_scores.csv"));
    expect(scores.get("000")!.get("synthetic_caption")).toBe("second text");
    expect([...scores.get("002")!.keys()].sort()).toEqual(["colorfulness", "sharpness"]);
  });

  it("reach scorers as published: the short one for some, the long one for the others", async () => {
    const length = (key: string, stage: "rewards" | "vqa", syntheticCaption?: "short") =>
      registerScorer({
        key,
        name: key,
        description: "length of the caption",
        stage,
        usesText: true,
        syntheticCaption,
        load: async () => ({
          name: key,
          batchSize: 4,
          score: (_, captions) => captions.map(({ length }) => length),
          dispose() {},
        }),
      });
    const where = places();
    await expect(run(where, { stage: "vqa", scorers: ["sharpness"] })).rejects.toThrow(
      /no scorer of this stage is among `?scorers`?; there are sharpness \(rewards\).*vqa_score \(vqa\)/,
    );
    length("short_test_score", "rewards", "short");
    length("test_score", "rewards");
    length("test_vqa_score", "vqa");
    await run(where, { stage: "rewards", scorers: ["short_test_score", "test_score"] });
    await run(where, { stage: "vqa", scorers: ["test_vqa_score"] });
    const row = readScores(join(where.csvDir, "b_scores.csv")).get("000")!;
    expect(Object.fromEntries(row)).toEqual({
      short_synthetic_caption: "apple",
      synthetic_caption: "a shiny red apple",
      short_test_score: "a red  apple".length,
      synthetic_short_test_score: "apple".length,
      test_score: "a red  apple".length,
      synthetic_test_score: "a shiny red apple".length,
      test_vqa_score: "a red  apple".length,
      synthetic_test_vqa_score: "a shiny red apple".length,
    });
    await run(where, { stage: "rewards", scorers: ["short_test_score"], syntheticText: "long" });
    const after = readScores(join(where.csvDir, "b_scores.csv")).get("000")!;
    expect(after.get("synthetic_short_test_score")).toBe("a shiny red apple".length);
    expect(after.get("synthetic_test_vqa_score")).toBe("a shiny red apple".length);

    const both = places();
    const { counts } = await run(both, { scorers: ["test_score", "test_vqa_score"], shards: ["b"], vae256: false });
    expect(counts, "the stages of both scorers, and the latents").toMatchObject({ done: 3, failed: 0 });
    expect([...readScores(join(both.csvDir, "b_scores.csv")).get("000")!.keys()]).toEqual(
      expect.arrayContaining(["test_score", "test_vqa_score"]),
    );
  });
});

describe("a sample that a scorer cannot score", () => {
  it("is left out; the others of its batch are not", async () => {
    registerScorer({
      key: "moody_score",
      name: "moody",
      description: "fails for one caption",
      stage: "rewards",
      usesText: true,
      load: async () => ({
        name: "moody",
        batchSize: 8,
        dispose() {},
        score: (_, captions) => captions.map((caption) => (caption === "caption 001" ? Number.NaN : 1)),
      }),
    });
    const where = places();
    const { shards } = await run(where, { stage: "rewards", shards: ["b"], scorers: ["moody_score"] });
    expect(shards[0]).toMatchObject({ written: 3, skipped: { "score-failed": 1 } });
    const report = readFileSync(join(where.csvDir, "b_scores.rewards.skipped.jsonl"), "utf8");
    expect(JSON.parse(report)).toMatchObject({ key: "001", message: expect.stringMatching(/moody_score: .*NaN/) });
    const later = await run(where, { stage: "vae", shards: ["b"], vae256: false });
    expect(later.shards[0]).toMatchObject({ status: "done", written: 3, skipped: { "score-failed": 1 } });
  });
});

describe("other sources", () => {
  const pictures = join(folder, "pictures");
  beforeAll(async () => {
    mkdirSync(join(pictures, "sub"), { recursive: true });
    for (const [i, name] of ["b.jpg", "a.png", "sub/c.v2.JPG", "none.jpg"].entries())
      writeFileSync(
        join(pictures, name),
        await picture(i)
          .toFormat(name.endsWith("png") ? "png" : "jpeg")
          .toBuffer(),
      );
    writeFileSync(join(pictures, "a.txt"), "from text");
    writeFileSync(join(pictures, "b.JSON"), '{"caption": "from json", "n": 1.0}');
    writeFileSync(join(pictures, "sub/c.v2.TXT"), "below");
    writeFileSync(join(pictures, "none.json"), '{"caption": "a \\ud83e fox"}');
  });
  const texts = (dest: string, shard: string) =>
    Object.fromEntries(
      [...members(join(dest, shard))]
        .filter(([name]) => name.endsWith(".txt"))
        .map(([name, bytes]) => [name, bytes.toString()]),
    );
  const bare: Changes = { stage: "vae", missingScores: "allow", vae256: false, vae512: false };

  it("are folders of pictures with captions beside them, cut into shards", async () => {
    const where = places();
    const { shards } = await run(where, { ...bare, src: pictures, shardSize: 3 });
    expect(shards.map(({ shard, written }) => [shard, written])).toEqual([
      ["00000", 2],
      ["00001", 1],
    ]);
    expect(shards[0]!.skipped).toEqual({ "bad-caption": 1 });
    expect(texts(where.dest, "00000.tar")).toEqual({ "a.txt": "from text", "b.txt": "from json" });
    expect(texts(where.dest, "00001.tar")).toEqual({ "sub/c_v2.txt": "below" });
    expect(members(join(where.dest, "00000.tar")).get("b.json")!.toString()).toBe('{"caption": "from json", "n": 1.0}');
  });

  it.each([
    ["captions.csv", 'image,caption,n\r\na.png,"one, two",1\r\nmissing.jpg,x,\r\nb.jpg,three,2\r\n'],
    ["captions.tsv", "image\tcaption\tn\na.png\tone, two\t1\nmissing.jpg\tx\t\nb.jpg\tthree\t2\n"],
    [
      "captions.jsonl",
      '{"image": "a.png", "caption": "one, two", "n": "1"}\n{"image": "missing.jpg", "caption": "x"}\n{"image": "b.jpg", "caption": "three", "n": "2"}\n',
    ],
  ])("are tables: %s", async (name, text) => {
    const where = places();
    writeFileSync(join(pictures, name), text);
    const { shards } = await run(where, { ...bare, src: join(pictures, name) });
    expect(shards[0]).toMatchObject({ shard: "00000", written: 2, skipped: { "missing-image": 1 } });
    expect(texts(where.dest, "00000.tar")).toEqual({ "a.txt": "one, two", "b.txt": "three" });
    // Columns of numbers are numbers; JSON says itself what its values are.
    expect(members(join(where.dest, "00000.tar")).get("a.json")!.toString()).toBe(
      name.endsWith(".jsonl") ? '{"n": "1"}' : '{"n": 1}',
    );
    await expect(run(where, { ...bare, src: join(pictures, name), captionColumn: "text" })).rejects.toThrow(
      /caption column: expected "text"; the table has image, caption, n/,
    );
    writeFileSync(
      join(pictures, name),
      text.replace("caption", "descriptions").replace(/"caption"/g, '"descriptions"'),
    );
    await expect(run(where, { ...bare, src: join(pictures, name) })).rejects.toThrow(
      /caption column: expected one of caption, .*; the table has .*descriptions.*, one of which `captionColumn` may name$/,
    );
  });

  it("leave shards of an earlier cut, which is told", async () => {
    const where = places();
    const earlier = async (shardSize: number, dest = where.dest) => {
      const messages: string[] = [];
      await run({ ...where, dest }, { ...bare, src: pictures, shardSize, onMessage: (text) => messages.push(text) });
      return messages.filter((text) => text.includes("earlier"));
    };
    expect(await earlier(1)).toEqual([]);
    writeFileSync(join(where.dest, "00077.tar"), ""); // somebody else's
    expect(await earlier(3)).toEqual([
      expect.stringMatching(
        /^warning: .*: 2 shards are of an earlier preparation \(00002\.tar, 00003\.tar\), .*`shardSize`/,
      ),
    ]);
    expect(await earlier(3, join(where.dest, "new"))).toEqual([]);
  });

  it("are several tables of a folder, whose scores do not replace one another", async () => {
    const captions = { train: "a red thing", test: "a green thing" };
    for (const [name, caption] of Object.entries(captions))
      writeFileSync(join(pictures, `${name}.csv`), `image,caption\na.png,${caption}\n`);
    const scored = async (name: string) => {
      const { shards } = await preprocess({
        stage: "rewards",
        src: join(pictures, `${name}.csv`),
        scorers: ["sharpness"],
        workers: 1,
      });
      return shards[0]!;
    };
    expect((await scored("train")).output).toBe(join(pictures, "scores", "train.csv", "00000_scores.csv"));
    expect((await scored("test")).status).toBe("done");
    expect((await scored("train")).status).toBe("skipped"); // nothing has changed it
  });

  it("are Parquet files, as pyarrow writes them", async () => {
    const where = places();
    const src = join(pictures, "captions.parquet");
    copyFileSync(new URL("./sources/fixtures/captions.parquet", import.meta.url), src);
    const { shards } = await run(where, { ...bare, src });
    expect(shards[0]).toMatchObject({ written: 2, skipped: { "missing-image": 1 } });
    expect(texts(where.dest, "00000.tar")).toEqual({ "a.txt": "one, two", "b.txt": "three" });
    expect(members(join(where.dest, "00000.tar")).get("b.json")!.toString()).toBe('{"n": 2, "score": 2.25}');
    writeFileSync(src, readFileSync(src).subarray(0, 700));
    await expect(run(where, { ...bare, src })).rejects.toThrow(/captions\.parquet: cannot be read as Parquet/);
  });

  it("are folders of Parquet parts that hold the pictures", async () => {
    const where = places();
    const src = fileURLToPath(new URL("./sources/fixtures/parquet", import.meta.url));
    const { shards } = await run(where, { ...bare, src, shardSize: 7 });
    expect(shards.map(({ shard, written, skipped }) => ({ shard, written, skipped }))).toEqual([
      { shard: "00000", written: 5, skipped: { "missing-image": 1, "unsupported-image": 1 } },
      { shard: "00001", written: 1, skipped: { "missing-image": 1, "unsupported-image": 1 } },
    ]);
    expect(texts(where.dest, "00000.tar")).toEqual({
      "red 0.txt": "a red thing 0",
      "red 1.txt": "a red thing 1",
      "train-00000-of-00002/00000001.txt": "a green thing 0",
      "train-00000-of-00002/00000002.txt": "a third thing 0",
      "train-00001-of-00002/00000001.txt": "a green thing 1",
    });
    const found = members(join(where.dest, "00000.tar"));
    expect(found.get("red 0.json")!.toString()).toBe('{"year": 1990}');
    expect(imageFormat(found.get("red 0.png")!)).toBe("png");
    expect(imageFormat(found.get("train-00000-of-00002/00000001.bmp")!)).toBe("bmp");
  });
});

describe("folders", () => {
  it("of scores are made by the stages that write some, not by that which reads them", async () => {
    const where = places();
    expect((await run(where, { stage: "vae", missingScores: "allow" })).counts.done).toBe(2);
    expect([existsSync(where.dest), existsSync(where.csvDir)]).toEqual([true, false]);
    const scored = places();
    expect((await run(scored, { stage: "rewards" })).counts.done).toBe(2);
    expect([existsSync(scored.dest), existsSync(scored.csvDir)]).toEqual([false, true]);
  });

  it("are not made where a model is missing", async () => {
    const where = places();
    await expect(run(where, { model: join(folder, "no-model") })).rejects.toThrow(/no-model/);
    expect([existsSync(where.dest), existsSync(where.csvDir)]).toEqual([false, false]);
  });
});

describe("locks", () => {
  it("keep a shard to one process, which the others say", async () => {
    const where = places();
    mkdirSync(where.dest, { recursive: true });
    const lock = FileLock.acquire(where.dest, "a") as FileLock;
    const { shards } = await run(where, { shards: ["a"], stage: "vae", missingScores: "allow" });
    expect(shards[0]).toMatchObject({
      status: "locked",
      message: expect.stringContaining(`process ${process.pid} on`),
    });
    lock.release();
    expect(readdirSync(where.dest)).toEqual([]);
  });

  it("leave a shard whose scores another process makes to it in all stages", async () => {
    const where = places();
    mkdirSync(where.csvDir, { recursive: true });
    const lock = FileLock.acquire(where.csvDir, "a_scores") as FileLock;
    expect((await run(where, { shards: ["a"] })).counts).toEqual({ done: 0, skipped: 0, locked: 2, failed: 0 });
    lock.release();
    expect((await run(where, { shards: ["a"] })).counts).toEqual({ done: 2, skipped: 0, locked: 0, failed: 0 });
  });

  it("of a process that cannot be looked at are waited for, last of all, until it is heard of or silent", async () => {
    const elsewhere = (folder: string, name: string) => {
      mkdirSync(folder, { recursive: true });
      const lock = join(folder, `.${name}.lock.1`);
      const identity = processIdentity().replace(/^[0-9a-f]{12}/, "0123456789ab");
      writeFileSync(lock, JSON.stringify({ host: "gpu07", pid: 7, identity, token: "x" }));
      const before = new Date(Date.now() - 60_000);
      utimesSync(lock, before, before);
      return lock;
    };
    const where = places();
    const lock = elsewhere(where.dest, "a");
    const said: string[] = [];
    const { shards, counts } = await run(where, {
      stage: "vae",
      missingScores: "allow",
      onMessage(text) {
        if (!text.includes("sign of life")) return;
        said.push(text);
        expect(existsSync(join(where.dest, "b.tar"))).toBe(true);
        utimesSync(lock, new Date(0), new Date(0));
      },
    });
    expect(said).toEqual([expect.stringMatching(/a\.tar: waiting for a sign of life of process 7 on gpu07 .* it$/)]);
    expect(shards.map(({ shard, status }) => [shard, status])).toEqual([
      ["a", "done"],
      ["b", "done"],
    ]);
    expect(counts.locked).toBe(0);

    const scored = places();
    const scoring = elsewhere(scored.csvDir, "a_scores");
    const { shards: left } = await run(scored, {
      stage: "rewards",
      shards: ["a"],
      onMessage: () => utimesSync(scoring, new Date(), new Date()),
    });
    expect(left[0]).toMatchObject({ status: "locked", message: expect.stringContaining("process 7 on gpu07") });
  });
});

it("a data set of which a shard was begun and is missing says so when it is indexed or trained on", async () => {
  const where = places();
  const stop = new AbortController();
  const options: Changes = { stage: "vae", missingScores: "allow" };
  const onProgress = ({ shard }: { shard: string }) => shard === "b" && stop.abort();
  await expect(run(where, { ...options, onProgress, signal: stop.signal })).rejects.toThrow(/abort/);
  const said = async () => {
    const messages: string[] = [];
    const onMessage = (text: string) => void messages.push(text);
    await indexShards({ folders: [where.dest] }, { onMessage });
    const set = await TrainingSet.open({ root: where.dest }, { scores: [], seed: 0, batchSize: 1 }, { onMessage });
    set.close();
    return messages;
  };
  const warning =
    `warning: ${where.dest}: 1 shard was begun and is missing (b); ` +
    "run the same miro preprocess again, or wait for its end";
  expect(await said()).toEqual([warning, warning]);
  await run(where, options);
  expect(await said()).toEqual([]);
});

describe("a raw shard that was cut", () => {
  const cut = join(folder, "cut");
  beforeAll(() => {
    mkdirSync(cut);
    copyFileSync(join(raw, "a.tar"), join(cut, "a.tar"));
    const whole = readFileSync(join(raw, "b.tar"));
    writeFileSync(join(cut, "b.tar"), whole.subarray(0, 2600));
    writeFileSync(join(cut, "c.tar"), "");
    writeFileSync(join(cut, "d.tar"), "<html>no archive</html>");
  });
  const run = (dest: string, options: Partial<PreprocessOptions> = {}) =>
    preprocess({ stage: "vae", src: cut, dest, model, vae512: false, missingScores: "allow", workers: 1, ...options });

  it("fails by name and leaves no tar; the others are made", async () => {
    const dest = join(folder, "cut-out");
    const { counts, shards } = await run(dest);
    expect(counts).toMatchObject({ done: 1, failed: 3 });
    for (const { shard, message } of shards.slice(1))
      expect(message).toMatch(
        new RegExp(`${shard}\\.tar, byte \\d+: .*; copy or make the shard anew, or .*skipBrokenShards: true`),
      );
    expect(readdirSync(dest).filter((name) => name.endsWith(".tar"))).toEqual(["a.tar"]);
  });

  it("is left out where the option says so", async () => {
    const dest = join(folder, "cut-skipped");
    const { counts } = await run(dest, {
      skipBrokenShards: true,
      missingScores: "error",
      csvDir: join(folder, "none"),
      shards: ["b", "c", "d"],
    });
    expect(counts).toMatchObject({ done: 0, failed: 0, skipped: 3 });
    expect(existsSync(dest)).toBe(false);
  });
});

describe("miro preprocess", () => {
  const output = () => {
    const text = { out: "", err: "" };
    const context = {
      stdout: (part: string) => {
        text.out += part;
      },
      stderr: (part: string) => {
        text.err += part;
      },
      interactive: false,
      signal: new AbortController().signal,
    };
    return { text, context };
  };

  it.each([
    [["--stage", "vae", "--src", raw], /--dest: expected a folder/],
    [["--stage", "vae", "--src", raw, "--dest", raw], /--dest: is the folder of --src/],
    [["--stage", "rewards", "--src", join(folder, "nothing")], /nothing: cannot be read: no such file/],
    [
      ["--stage", "rewards", "--src", raw, "--shard-id", "2"],
      /--shard-id: expected a position from 0 to 1 \(2 shards\)/,
    ],
    [["--stage", "rewards", "--src", raw, "--shard-ids", "0,x"], /--shard-ids: expected a position/],
    [["--stage", "rewards", "--src", raw, "--shard-range", "1-0"], /--shard-range: expected FIRST-LAST/],
    [["--stage", "rewards", "--src", raw, "--shard", "c"], /--shard: "c" is not there; there are a, b/],
    [
      ["--stage", "rewards", "--src", raw, "--scorers", "emoji_clip"],
      /"emoji_clip" is not known; there are emoji_clip_score/,
    ],
    [["--stage", "rewards", "--src", raw, "--synthetic-captions", join(folder, "no.tsv")], /no\.tsv: cannot be read/],
    [
      ["--stage", "vae", "--src", raw, "--dest", join(folder, "x"), "--model", join(folder, "no-model")],
      /--model: expected a folder/,
    ],
    [["--stage", "speak", "--src", raw], /--stage: expected one of rewards, vqa, vae, all/],
    [["--stage", "rewards", "--src", raw, "--batch-size", "0"], /--batch-size: expected a positive integer/],
  ])("refuses %j before any model is loaded", async (args, message) => {
    const { text, context } = output();
    const started = performance.now();
    expect(await miro(["preprocess", ...args], context)).toBe(2);
    expect(text.err).toMatch(message);
    expect(text.err.trim().split("\n")).toHaveLength(1);
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it("prints one JSON object, and ends with 1 when a shard failed and the others are complete", async () => {
    const src = join(folder, "raw-cli");
    await writeTar(join(src, "a.tar"), [{ key: "1" }]);
    await writeTar(join(src, "c.tar"), [{ key: "2" }]);
    mkdirSync(join(src, "b.tar"));
    const { text, context } = output();
    const args = ["preprocess", "--stage", "rewards", "--src", src, "--scorers", "sharpness", "--json"];
    expect(await miro(args, context)).toBe(1);
    const { shards, counts } = JSON.parse(text.out) as PreprocessResult;
    expect(counts).toMatchObject({ done: 2, failed: 1 });
    expect(shards.map(({ shard, status }) => [shard, status])).toEqual([
      ["a", "done"],
      ["b", "failed"],
      ["c", "done"],
    ]);
    expect(text.err).toMatch(/1 of 3 shards failed/);
  });
});
