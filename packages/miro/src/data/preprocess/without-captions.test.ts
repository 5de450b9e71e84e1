/** Sources without captions are no data sets: preprocessing says so, says what to do, and fails. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../../errors.js";
import { RED_PNG } from "../../pictures/testing/red.js";
import { bundledFolder } from "../../pipeline/loading/bundled.js";
import { TarWriter } from "../shards/tar-writer.js";
import { preprocess } from "./preprocess.js";

const folder = mkdtempSync(join(tmpdir(), "miro-no-captions-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let sources = 0;
/** Makes a folder of files and prepares it. */
async function prepared(files: Readonly<Record<string, string>>, source = "", stage: "rewards" | "all" = "rewards") {
  const src = join(folder, `source-${sources++}`);
  mkdirSync(src);
  for (const name of ["a.png", "b.png"]) writeFileSync(join(src, name), RED_PNG);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(src, name)), { recursive: true });
    writeFileSync(join(src, name), text);
  }
  const csvDir = join(src, "csv");
  const latents = { model: bundledFolder("miro-emoji")!, vae512: false, dest: `${src}-out` };
  return preprocess({ stage, src: join(src, source), csvDir, scorers: ["sharpness"], workers: 1, ...latents });
}

it("a folder of pictures alone is refused at once, and a table in it is named", async () => {
  await expect(prepared({})).rejects.toThrow(InvalidInputError);
  await expect(prepared({})).rejects.toThrow(
    /source-\d+: none of its 2 pictures has a caption; expected a text file beside each \(a\.txt for a\.png\), or a\.json with a field caption or text; a table/,
  );
  await expect(prepared({ "list.csv": "image,caption\na.png,red\n" })).rejects.toThrow(
    /if list\.csv is a table of captions, name that file in place of the folder/,
  );
  expect((await prepared({ "list.csv": "image,caption\na.png,red\n" }, "list.csv")).shards[0]!.written).toBe(1);
  expect((await prepared({ "b.txt": "red" })).shards[0]).toMatchObject({ seen: 2, written: 1 });
});

it("sources of which no sample can be used fail before the next stage, with the reasons", async () => {
  const about =
    "none of 2 samples can be used \\(2 missing-caption, such as a: .+\\); give each picture a caption: NAME.txt";
  const json = { "a.json": '{"title": "red"}', "b.json": "{}" };
  await expect(prepared(json)).rejects.toThrow(MiroError);
  await expect(prepared(json, "", "all")).rejects.toThrow(new RegExp(about));
  await expect(prepared({ "list.tsv": "image\tcaption\na.png\t\nb.png\t\n" }, "list.tsv")).rejects.toThrow(
    new RegExp(`list\\.tsv: ${about}`),
  );
  await expect(prepared({ "a.txt": "red", "b.txt": "blue", "a.png": "", "b.png": "no picture" })).rejects.toThrow(
    /none of 2 samples can be used \(.*\); the files \*\.skipped\.jsonl beside the output say why/,
  );
});

it("tables that lie elsewhere than their pictures say where these were looked for", async () => {
  const tables = { "lists/a.csv": "image,caption\na.png,red\nb.png,blue\n" };
  await expect(prepared(tables, "lists/a.csv")).rejects.toThrow(
    /lists\/a\.csv: none of 2 samples can be used \(2 missing-image, such as a: no file \/.+\/lists\/a\.png\)/,
  );
});

it("so do tars without their texts", async () => {
  const src = join(folder, "tars");
  mkdirSync(src);
  const writer = await TarWriter.create(join(src, "0.tar"));
  await writer.add("a.png", RED_PNG);
  await writer.add("a.txt", Buffer.from("red"));
  await writer.finish();
  const given = { stage: "rewards" as const, src, scorers: ["sharpness"], workers: 1 };
  await expect(preprocess(given)).rejects.toThrow(
    /none of 1 sample can be used \(1 missing-json, such as a: .+\); give each/,
  );
});
