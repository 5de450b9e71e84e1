/** Every reader of files that come from strangers, with files that it reads. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { arange, empty, scope, tensor } from "@miro-t2i/torch";
import {
  readNpy,
  SafetensorsFile,
  type TensorFile,
  TorchCheckpoint,
  writeNpy,
  writeSafetensors,
  writeTorchCheckpoint,
} from "@miro-t2i/torch/io";
import { encodeImage, type ImageSettings, readImageFile, readPromptFile, readSettings, settingsToText } from "miro-t2i";
import { decodeImage, readScores, readWidsIndex, TarFile, TarWriter } from "miro-t2i/data";
import { readResults } from "miro-t2i/evaluation";
import { readReleaseConfig, Tokenizer } from "miro-t2i/networks";
import { ClipTokenizer, WordPieceTokenizer } from "miro-t2i/rewards";

/** A reader. */
export interface Reader {
  /** How names of its files end. */
  ending: string;
  /** Files that it reads, or texts of such. */
  files(): Promise<(Uint8Array | string)[]>;
  /** Reads a file to its end. */
  read(path: string): unknown;
}

const repository = fileURLToPath(new URL("../../../", import.meta.url));
const source = (path: string) => join(repository, "packages/miro/src", path);
/** What the package does not export: its commands read these files. */
const inside = <T>(path: string): Promise<T> =>
  import(new URL(`../../../packages/miro/dist/${path}`, import.meta.url).href);

/** The file that a function writes. */
async function written(ending: string, write: (path: string) => unknown): Promise<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), "miro-fuzz-seed-"));
  try {
    await write(join(folder, `a${ending}`));
    return readFileSync(join(folder, `a${ending}`));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const tensors = () => ({ a: arange(12).view(3, 4), b: tensor([true, false]), n: tensor([1n, 2n]), e: empty([0, 2]) });

function readTensors(file: TensorFile): void {
  for (const key of file.keys())
    scope(() => {
      const { dtype, shape } = file.info(key);
      if (dtype !== null) file.copyTo(key, empty([...shape], { dtype }));
    });
}

const PICTURE = { width: 5, height: 4, data: Uint8Array.from({ length: 60 }, (_, i) => (i * 37) % 256) };

const SETTINGS: ImageSettings = {
  prompt: "a fox",
  seed: 7,
  steps: 2,
  guidanceScale: 7,
  guidanceType: "constant",
  sampler: "euler",
  shift: 1,
  rewardTargets: { sharpness: 1 },
  negativeRewardTargets: { sharpness: 0 },
  model: "miro-emoji",
  width: 5,
  height: 4,
  device: "cpu",
  dtype: "float32",
  versions: { miro: "0.1.0", torch: "2.13.0" },
};

/** Pictures as `miro generate` writes them. */
const drawn = () =>
  Promise.all(
    (["png", "webp", "jpeg"] as const).map((format) => encodeImage(PICTURE, settingsToText(SETTINGS), { format })),
  );

async function pictures(): Promise<Uint8Array[]> {
  const { default: sharp } = await import("sharp");
  const raw = () => sharp(PICTURE.data, { raw: { width: 5, height: 4, channels: 3 } });
  const others = [raw().gif(), raw().tiff({ compression: "lzw" }), raw().png({ palette: true, progressive: true })];
  return [...(await drawn()), ...(await Promise.all(others.map((picture) => picture.toBuffer())))];
}

const CAPTIONS = [
  '{"image": "a.png", "caption": "a fox", "w": 1.5, "id": 12345678901234567890, ' +
    '"tags": ["x", 1, null, {"y": true}]}\n' +
    '{"image": "b.png", "caption": "\\u00fc\\ud83d\\ude00 𝄞", "n": -0, "e": 1e5, "nan": NaN, "inf": -Infinity}\n',
];
const CELLS = [
  'image,caption,w\r\na.png,"a ""fox"", red",1.5\r\nb.png,"two\nlines",nan\r\n',
  "sep=;\nimage;caption\na.png;x\n",
];

const captions = async (path: string) => {
  const { readCaptionTable } = await inside<{ readCaptionTable(path: string): Promise<unknown> }>(
    "data/preprocess/sources/caption-table.js",
  );
  return readCaptionTable(path);
};

/** The readers by name. */
export const READERS: Readonly<Record<string, Reader>> = {
  safetensors: {
    ending: ".safetensors",
    files: async () => [
      await written(".safetensors", (path) => scope(() => writeSafetensors(path, tensors(), { a: "b" }))),
    ],
    read(path) {
      using file = SafetensorsFile.open(path);
      readTensors(file);
    },
  },
  "torch checkpoints": {
    ending: ".pt",
    async files() {
      const content = () => ({ state_dict: tensors(), epoch: 3, more: [1, 2.5, null, "x", true] });
      return [await written(".pt", (path) => scope(() => writeTorchCheckpoint(path, content())))];
    },
    read(path) {
      using file = TorchCheckpoint.open(path);
      readTensors(file.stateDict());
    },
  },
  npy: {
    ending: ".npy",
    files: async () => [await written(".npy", (path) => scope(() => writeNpy(path, arange(6).view(2, 3))))],
    read: (path) => scope(() => readNpy(path)),
  },
  tar: {
    ending: ".tar",
    files: async () => [
      await written(".tar", async (path) => {
        const tar = await TarWriter.create(path);
        const names = ["0001.txt", `${"long/".repeat(60)}0002.json`, "ü.txt"];
        for (const name of names) await tar.add(name, Buffer.from("a fox"));
        await tar.finish();
      }),
    ],
    read(path) {
      for (const policy of ["skip", "error"] as const) {
        const tar = TarFile.open(path, { policy });
        try {
          for (const member of tar.members) tar.read(member);
          tar.samples();
        } finally {
          tar.close();
        }
      }
    },
  },
  parquet: {
    ending: ".parquet",
    async files() {
      const folder = source("data/preprocess/sources/fixtures");
      const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
      return names.filter((name) => name.endsWith(".parquet")).map((name) => readFileSync(join(folder, name)));
    },
    async read(path) {
      const { openParquet } = await inside<{
        openParquet(path: string): Promise<{ rows: number; read(start: number, end: number): Promise<unknown> }>;
      }>("data/preprocess/sources/parquet-table.js");
      const table = await openParquet(path);
      await table.read(0, Math.min(table.rows, 100_000));
    },
  },
  "captions in JSON lines": { ending: ".jsonl", files: async () => CAPTIONS, read: captions },
  "captions in CSV": { ending: ".csv", files: async () => CELLS, read: captions },
  "captions in TSV": {
    ending: ".tsv",
    files: async () => ['image\tcaption\tw\na.png\ta "fox\t1\nb.png\tü\t2e5\n'],
    read: captions,
  },
  "prompts in JSON lines": {
    ending: ".jsonl",
    files: async () => [
      '{"prompt": "a fox", "seed": 7, "reward": {"emoji_clip_score": 0.2}, "steps": 10}\n{"prompt": "b"}\n',
    ],
    read: readPromptFile,
  },
  "prompts in CSV": {
    ending: ".csv",
    files: async () => ['prompt,seed,reward.emoji_clip_score\n"a fox, red",7,0.2\nb,random,\n'],
    read: readPromptFile,
  },
  prompts: { ending: ".txt", files: async () => ["a fox\n\n a red apple\r\nü€\n"], read: readPromptFile },
  "GenEval results": {
    ending: ".jsonl",
    files: async () => {
      const metadata = { tag: "single_object", include: [{ class: "bench", count: 1 }], prompt: "a photo of a bench" };
      const { tag, prompt } = metadata;
      const result = { filename: "0/samples/0.png", tag, prompt, correct: true, reason: "", details: "{}" };
      return [`${JSON.stringify({ ...result, metadata: JSON.stringify(metadata) })}\n`];
    },
    read: readResults,
  },
  "score tables": {
    ending: ".csv",
    files: async () => ["key,clip_score\r\na,0.5\r\nb,nan\r\nc,1e-5\r\n"],
    read: readScores,
  },
  "WIDS indexes": {
    ending: ".json",
    files: async () => [
      '{"__kind__": "wids-shard-index-v1", "wids_version": 1, ' +
        '"shardlist": [{"url": "0.tar", "nsamples": 3, "filesize": 10}]}',
    ],
    read: readWidsIndex,
  },
  YAML: {
    ending: ".yaml",
    files: async () => ["a:\n  b: 4\n  c: [1, 2, {d: e}] # f\ng: &x {h: 1}\ni: *x\nj: |\n  k\nl: ~\n"],
    read: async (path) =>
      (await inside<{ readYamlFile(path: string): unknown }>("files/yaml-file.js")).readYamlFile(path),
  },
  pictures: { ending: ".bin", files: pictures, read: (path) => decodeImage(readFileSync(path)) },
  "settings of pictures": {
    ending: ".bin",
    files: drawn,
    async read(path) {
      const { text } = await readImageFile(path);
      readSettings(text, path);
    },
  },
  tokenizers: {
    ending: ".json",
    async files() {
      const json = JSON.parse(readFileSync(join(repository, "models/miro-emoji/text_encoder/tokenizer.json"), "utf8"));
      json.model.vocab.length = 60;
      json.added_tokens = json.added_tokens.filter(({ id }: { id: number }) => id < 60);
      return [JSON.stringify(json)];
    },
    async read(path) {
      const tokenizer = await Tokenizer.fromFile(path);
      for (const text of ["a red  fox é😀 </s> x", " ".repeat(2000) + "a".repeat(2000)]) tokenizer.encode(text);
    },
  },
  "WordPiece vocabularies": {
    ending: ".txt",
    files: async () => ["[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nfox\n##é\n"],
    read: (path) => WordPieceTokenizer.fromFile(path).encode("a fox ab éé"),
  },
  "merges of CLIP": {
    ending: "/merges.txt",
    files: async () => ["#version: 0.2\ni n\nt h\na n\nth e</w>\n"],
    read: (path) => ClipTokenizer.fromFolder(join(path, ".."), "openai").encode("a fox in the"),
  },
  "config.json": {
    ending: "/config.json",
    files: async () => [readFileSync(join(repository, "models/miro-emoji/config.json"))],
    read: (path) => readReleaseConfig(join(path, "..")),
  },
};
