import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { encodeImage } from "../pictures/image-files.js";
import { encodePng } from "../pictures/png.js";
import { sheetText } from "../pipeline/settings.js";
import { registerScorer } from "./registry.js";
import { scoreFiles, scoreFilesWithReport } from "./score-files.js";

const folder = mkdtempSync(join(tmpdir(), "miro-score-files-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Pictures and captions that the probes were asked about, by key. */
const asked: Record<string, string[]> = {};
let failAfter = Number.POSITIVE_INFINITY;
for (const [key, name] of [
  ["level_score", "level"],
  ["length_score", "length"],
] as const)
  registerScorer({
    key,
    name,
    description: "for the tests",
    stage: "rewards",
    usesText: key === "length_score",
    modelName: ({ hpsVersion }) => `${name} ${hpsVersion ?? "v2.1"}`,
    load: async ({ hpsVersion }) => ({
      name: `${name} ${hpsVersion ?? "v2.1"}`,
      batchSize: 4,
      truncates: (caption) => caption.length > 5,
      score: (images, captions) =>
        images.map(({ data }, i) => {
          if (failAfter-- <= 0) throw new Error("the power went");
          asked[key] = [...(asked[key] ?? []), `${data[0]} ${captions[i]}`];
          if (data[0] === 255) return Number.NaN;
          return key === "level_score" ? data[0]! : captions[i]!.length;
        }),
      dispose: () => {},
    }),
  });
/** Bytes of the pictures of each call. */
const together: number[] = [];
registerScorer("whole_score", {
  usesText: false,
  load: async () => ({
    name: "whole",
    batchSize: 64,
    score: (images) => {
      together.push(images.reduce((sum, { data }) => sum + data.length, 0));
      return images.map(({ data }) => data[0]!);
    },
    dispose: () => {},
  }),
});
beforeEach(() => {
  for (const key of Object.keys(asked)) delete asked[key];
  failAfter = Number.POSITIVE_INFINITY;
});

const picture = (level: number, prompt?: string) => {
  const text = prompt === undefined ? [] : [{ keyword: "miro", text: JSON.stringify({ prompt }) }];
  return encodePng(new Uint8Array(27).fill(level), 3, 3, text);
};
const put = (name: string, bytes: Uint8Array | string) => {
  mkdirSync(join(folder, name, ".."), { recursive: true });
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
};
const values = (rows: Awaited<ReturnType<typeof scoreFiles>>, key = "level_score") =>
  rows.map(({ scores }) => scores[key]);

describe("what is scored", () => {
  it("are the pictures of a folder, in the order of their numbers", async () => {
    for (const n of [1, 2, 10]) put(`plain/picture-${n}.png`, picture(n));
    put("plain/notes.txt", "no picture");
    put("plain/deeper/3.png", picture(3));
    const rows = await scoreFiles([join(folder, "plain")], { by: ["level_score"] });
    expect(values(rows)).toEqual([1, 2, 10]);
    await expect(
      scoreFiles([put("empty/readme.md", "").replace("/readme.md", "")], { by: ["level_score"] }),
    ).rejects.toThrow(/empty: holds no pictures/);
  });

  it("are the samples of a folder of GenEval's form, with its prompts", async () => {
    for (const [n, prompt] of ["a dog", "two cats"].entries()) {
      put(`geneval/0000${n}/metadata.jsonl`, JSON.stringify({ tag: "single_object", prompt }));
      for (const k of [0, 1]) put(`geneval/0000${n}/samples/000${k}.png`, picture(10 * n + k, "another text"));
    }
    const of = (paths: string[]) => scoreFiles(paths, { by: ["level_score", "length_score"] });
    const rows = await of([join(folder, "geneval")]);
    expect(values(rows)).toEqual([0, 1, 10, 11]);
    expect(rows.map(({ prompt }) => prompt)).toEqual(["a dog", "a dog", "two cats", "two cats"]);
    expect(values(await of([join(folder, "geneval", "00001")]))).toEqual([10, 11]);
    put("geneval/00001/metadata.jsonl", '{"tag": "counting"}');
    await expect(of([join(folder, "geneval")])).rejects.toThrow(/00001\/metadata\.jsonl: line 1: expected \{"prompt"/);
  });

  it("are not the sheets that this program puts beside them, whatever they are called", async () => {
    const files = [put("sheets/a.png", picture(1, "a cat")), put("sheets/b.png", picture(2, "a dog"))];
    const sheet = put("sheets/all.png", encodePng(new Uint8Array(27).fill(9), 3, 3, [sheetText(["a cat", "a dog"])]));
    const jpeg = put(
      "sheets/z.jpg",
      await encodeImage({ width: 3, height: 3, data: new Uint8Array(27) }, [sheetText(["a cat"])], { format: "jpeg" }),
    );
    for (const paths of [[join(folder, "sheets")], [files[0]!, sheet, files[1]!, jpeg]])
      for (const prompt of [undefined, "a fox"]) {
        const options = { by: ["level_score", "length_score"], ...(prompt && { prompt }) };
        const report = await scoreFilesWithReport(paths, options);
        expect(report.images.map(({ path }) => path)).toEqual(files);
        expect([values(report.images), report.unreadable]).toEqual([[1, 2], 0]);
        expect(report.sheets).toEqual([sheet, jpeg]);
      }
    // In a folder of GenEval's form too; a pair names what it means.
    put("geneval-sheet/00000/metadata.jsonl", JSON.stringify({ prompt: "a dog" }));
    put("geneval-sheet/00000/samples/0000.png", picture(3));
    put("geneval-sheet/00000/samples/sheet.png", readFileSync(sheet));
    const report = await scoreFilesWithReport([join(folder, "geneval-sheet")], { by: ["level_score"] });
    expect([values(report.images), report.sheets.length]).toEqual([[3], 1]);
    const pairs = put("sheets/pairs.jsonl", JSON.stringify({ image: "all.png", prompt: "two pictures" }));
    expect(values(await scoreFiles([], { pairs, by: ["level_score"] }))).toEqual([9]);
    await expect(scoreFiles([sheet], { by: ["level_score"] })).rejects.toThrow(
      /all\.png: is a sheet that shows several pictures, and there is no other picture/,
    );
  });

  it("are pairs of a CSV or TSV file, with texts in quotes", async () => {
    put("pairs/a.png", picture(7));
    const csv = put("pairs/pairs.csv", 'prompt,image\r\n"a ""red"", round apple",a.png\r\n');
    const rows = await scoreFiles([], { pairs: csv, by: ["length_score"] });
    expect(rows).toMatchObject([{ prompt: 'a "red", round apple', scores: { length_score: 20 } }]);
    const tsv = put("pairs/pairs.tsv", `image\tprompt\na.png\ta fox\n`);
    expect(values(await scoreFiles([], { pairs: tsv, by: ["length_score"] }), "length_score")).toEqual([5]);
    const bad = put("pairs/bad.csv", "picture,prompt\na.png,a fox\n");
    await expect(scoreFiles([], { pairs: bad, by: ["length_score"] })).rejects.toThrow(
      /bad\.csv: line 1: expected columns image and prompt/,
    );
  });

  it("is compared with the prompt in a WebP or JPEG picture as in a PNG", async () => {
    const image = { width: 8, height: 8, data: new Uint8Array(192).fill(90) };
    const text = [{ keyword: "miro", text: JSON.stringify({ prompt: "a grey wall" }) }];
    const files = await Promise.all(
      (["webp", "jpeg", "png"] as const).map(async (format) =>
        put(`told/told.${format}`, await encodeImage(image, text, { format })),
      ),
    );
    const rows = await scoreFiles(files, { by: ["length_score"] });
    expect(rows.map(({ prompt }) => prompt)).toEqual(Array(3).fill("a grey wall"));
  });

  it("is refused without a prompt before anything is scored", async () => {
    const files = [put("none/a.png", picture(1, "a")), put("none/b.png", picture(2))];
    await expect(scoreFiles(files, { by: ["length_score"] })).rejects.toThrow(/b\.png: holds no prompt/);
    expect(asked).toEqual({});
  });
});

describe("a picture that has no score", () => {
  it("does not keep the others from theirs, and says why", async () => {
    const files = [
      put("bad/a.png", picture(1)),
      put("bad/b.png", "no picture"),
      join(folder, "bad", "missing.png"),
      put("bad/c.png", picture(255)),
      put("bad/d.png", picture(4)),
    ];
    const report = await scoreFilesWithReport(files, { by: ["level_score"] });
    expect(values(report.images)).toEqual([1, null, null, null, 4]);
    expect(report.images.map(({ error }) => error)).toEqual([
      undefined,
      expect.stringMatching(/b\.png: cannot be read as a picture/),
      expect.stringMatching(/missing\.png: cannot be read: no such file/),
      undefined,
      undefined,
    ]);
    expect(report).toMatchObject({ unreadable: 2, notFinite: { level_score: 1 } });
    await expect(scoreFiles(files.slice(1, 3), { by: ["level_score"] })).rejects.toThrow(/b\.png/);
  });
});

it("large pictures are scored fewer at a time, in order: decoded, they take a quarter of a gigabyte", async () => {
  const [width, height] = [4000, 3000];
  const paths: string[] = [];
  for (let level = 0; level < 9; level++) {
    const data = new Uint8Array(3 * width * height).fill(20 * level);
    paths.push(put(`large/${level}.jpg`, await encodeImage({ width, height, data }, [], { format: "jpeg" })));
  }
  const scored = await scoreFiles([join(folder, "large"), put("large.png", picture(7))], { by: ["whole_score"] });
  expect(scored.map(({ scores }) => scores.whole_score)).toEqual([0, 20, 40, 60, 80, 100, 120, 140, 160, 7]);
  expect(Math.max(...together)).toBeLessThanOrEqual(2 ** 28);
});

it("prompts of which a scorer reads only the beginning are counted, each once", async () => {
  const files = ["one", "a long prompt", "a long prompt", "another long one"].map((prompt, i) =>
    put(`long/${i}.png`, picture(i, prompt)),
  );
  const { truncated } = await scoreFilesWithReport(files, { by: ["length_score", "level_score"] });
  expect(truncated).toEqual({ length_score: 2, level_score: 2 });
});

describe.each(["csv", "jsonl"])("an output file as %s", (ending) => {
  const home = join(folder, `out-${ending}`);
  const output = join(home, `scores.${ending}`);
  const files = () =>
    [1, 2, 3, 255].map((level) => put(`out-${ending}/${level}.png`, picture(level, 'a "red", round\napple')));

  it("is gone on with: only what is missing or has changed is computed", async () => {
    const paths = files();
    const first = await scoreFilesWithReport(paths, { by: ["level_score"], output });
    expect(first.reused).toBe(0);
    delete asked.level_score;
    const both = { by: ["level_score", "length_score"], output };
    const second = await scoreFilesWithReport(paths, both);
    expect(asked.level_score).toBeUndefined();
    expect(asked.length_score).toHaveLength(4);
    expect(second).toMatchObject({ reused: 4, notFinite: { level_score: 1, length_score: 1 } });
    expect(values(second.images)).toEqual([1, 2, 3, null]);
    const fresh = await scoreFilesWithReport(paths, { by: both.by });
    expect(second.images).toEqual(fresh.images);
    delete asked.level_score;
    delete asked.length_score;

    copyFileSync(paths[2]!, paths[1]!);
    const changed = await scoreFilesWithReport(paths, both);
    expect(asked).toEqual({
      level_score: ['3 a "red", round\napple'],
      length_score: ['3 a "red", round\napple'],
    });
    expect(values(changed.images)).toEqual([1, 3, 3, null]);
  });

  it("keeps the rows of other pictures, and takes no score of another model", async () => {
    const paths = files();
    await scoreFiles(paths.slice(0, 2), { by: ["level_score"], output });
    await scoreFiles(paths.slice(2), { by: ["level_score"], output });
    delete asked.level_score;
    expect((await scoreFilesWithReport(paths, { by: ["level_score"], output })).reused).toBe(4);
    const other = await scoreFilesWithReport(paths, { by: ["level_score"], output, hpsVersion: "v2.0" });
    expect(other).toMatchObject({ reused: 0, models: { level_score: { name: "level v2.0" } } });
    expect(asked.level_score).toHaveLength(4);
  });

  it("has what was done when the work ends early, and nothing half-written", async () => {
    rmSync(home, { recursive: true, force: true });
    const paths = Array.from({ length: 20 }, (_, i) => put(`out-${ending}/many/${i}.png`, picture(i)));
    failAfter = 17;
    await expect(scoreFiles(paths, { by: ["level_score"], output })).rejects.toThrow("the power went");
    failAfter = Number.POSITIVE_INFINITY;
    const again = await scoreFilesWithReport(paths, { by: ["level_score"], output });
    expect(again.reused).toBe(16);
    expect(values(again.images)).toEqual(paths.map((_, i) => i));
    expect(readdirSync(home).sort()).toEqual(["many", `scores.${ending}`]);
  });

  it("is written where the process that had it was lost with its machine; left to one that is heard of", async () => {
    const path = join(folder, `lost.${ending}`);
    const images = [put("lost.png", picture(5))];
    const lock = put(
      `.lost.${ending}.lock.1`,
      JSON.stringify({ host: "gpu07", pid: 7, identity: "of another boot", token: "x" }),
    );
    const score = (heard: Date) =>
      scoreFiles(images, { by: ["level_score"], output: path, onMessage: () => utimesSync(lock, heard, heard) });
    const before = new Date(Date.now() - 60_000);
    utimesSync(lock, before, before);
    await expect(score(new Date())).rejects.toThrow(/lost\.\w+: process 7 on gpu07 .* is writing to it/);
    utimesSync(lock, before, before);
    expect(values(await score(new Date(0)))).toEqual([5]);
  });

  it("is refused when it is no such file, and left as it is", async () => {
    const foreign = put(`foreign/table.${ending}`, ending === "csv" ? "a,b\n1,2\n" : '{"a": 1}\n');
    const before = readFileSync(foreign);
    await expect(scoreFiles(files(), { by: ["level_score"], output: foreign })).rejects.toThrow(
      /table\.\w+: line 1: is no row of scores/,
    );
    expect(readFileSync(foreign)).toEqual(before);
    await expect(scoreFiles(files(), { by: ["level_score"], output: join(home, "scores.txt") })).rejects.toThrow(
      /output: expected a file that ends in \.csv or \.jsonl/,
    );
  });
});
