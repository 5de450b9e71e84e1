import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError } from "../../errors.js";
import { FileLock, SILENT_MS } from "../../files/file-lock.js";
import { GeneratedImage } from "../generated-image.js";
import type { ImageSettings } from "../settings.js";
import { PictureFiles, type PictureFilesOptions } from "./picture-files.js";
import { checkOptions, type PlannedPicture } from "./plan-pictures.js";

let root: string;
let before: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "miro-names-"));
  before = process.cwd();
  process.chdir(root); // where pictures go when no folder is given
});
afterEach(() => {
  process.chdir(before);
  rmSync(root, { recursive: true, force: true });
});

const nothing = { settings: null, rewards: null };
const pictures = (...prompts: string[]): PlannedPicture[] =>
  prompts.map((prompt, index) => ({ index, prompt, seed: index, options: checkOptions({}) }));
const settings = {
  prompt: "fox",
  seed: 0,
  steps: 1,
  sampler: "euler",
  guidanceScale: 1,
  rewardTargets: {},
  versions: { miro: "1", torch: "1" },
} as unknown as ImageSettings;
const image = new GeneratedImage({ width: 1, height: 1, data: new Uint8Array(3) }, settings);
async function claimed(options: PictureFilesOptions, plan = pictures("fox")): Promise<PictureFiles> {
  const files = new PictureFiles(options);
  await files.claim(plan, nothing);
  return files;
}

it("a name that ends with a slash is that of a folder, whatever else it ends with", async () => {
  const plan = pictures("fox", "cat");
  const files = await claimed({ output: "book.png/" }, plan);
  expect(plan.map((picture) => files.path(picture))).toEqual(["book.png/fox-seed0.png", "book.png/cat-seed1.png"]);
  await files.write(plan[0]!, image);
  files.release();
  expect(readdirSync("book.png")).toEqual(["fox-seed0.png"]);
});

describe("commands that share a folder", () => {
  it("number their pictures apart before any is drawn, and leave nothing but them", async () => {
    const plan = pictures("fox", "cat");
    const runs = await Promise.all([1, 2, 3].map(() => claimed({}, plan)));
    expect(runs.map((files) => plan.map((picture) => basename(files.path(picture))))).toEqual([
      ["fox-seed0.png", "cat-seed1.png"],
      ["fox-seed0-2.png", "cat-seed1-2.png"],
      ["fox-seed0-3.png", "cat-seed1-3.png"],
    ]);
    await runs[2]!.write(plan[0]!, image);
    for (const files of runs) files.release();
    expect(readdirSync("pictures")).toEqual(["fox-seed0-3.png"]);
  });

  it("notice at once that they want the same file, and may have it when the other has ended", async () => {
    const first = await claimed({ output: "o" });
    await expect(claimed({ output: "o" })).rejects.toThrow(/fox-seed0\.png: another command is about to write it/);
    await expect(claimed({ output: "o" })).rejects.toThrow(InvalidInputError);
    first.release();
    expect(existsSync("o")).toBe(false);
    (await claimed({ output: "o" })).release();
  });

  it("leave each other's pictures alone with --resume, and take over those that were not drawn", async () => {
    const plan = pictures("fox", "cat");
    const first = await claimed({ output: "o", resume: true }, [plan[0]!]);
    const second = await claimed({ output: "o", resume: true }, plan);
    expect(plan.map((picture) => second.isElsewhere(picture))).toEqual([true, false]);
    const said: string[] = [];
    // It is told when the waiting begins: then the first one ends without its picture.
    const onWait = (message: string) => {
      said.push(message);
      first.release();
    };
    expect(await second.fromOthers(plan, { onWait })).toEqual([plan[0]]);
    expect(said).toEqual(["o: waiting for another command, which draws 1 of them"]);
    expect(second.isElsewhere(plan[0]!)).toBe(false);
    const third = await claimed({ output: "o", resume: true }, plan);
    expect(third.isElsewhere(plan[0]!)).toBe(true);
    await second.write(plan[0]!, image);
    second.release();
    expect(await third.fromOthers(plan)).toEqual(plan);
    third.release();
    expect(readdirSync("o")).toEqual(["fox-seed0.png"]);
  });

  it("do not mind what killed ones have claimed", async () => {
    const dead = processIdentity().replace(/\d+$/, "1");
    mkdirSync("o");
    writeFileSync(`o/.claims.${dead}.0123456789ab.json`, JSON.stringify({ names: ["o/fox-seed0.png"] }));
    const lock = FileLock.acquire("o", "claims") as FileLock;
    writeFileSync(lock.path, JSON.stringify({ host: "h", pid: process.pid, identity: dead, token: "" }));
    const files = await claimed({ output: "o" });
    files.release();
    expect(readdirSync("o")).toEqual([]);
  });

  it("mind what one of another machine claims, until it has been silent for long", async () => {
    const foreign = processIdentity().replace(/^[0-9a-f]{12}/, "0123456789ab");
    const claims = `o/.claims.${foreign}.0123456789ab.json`;
    mkdirSync("o");
    writeFileSync(claims, JSON.stringify({ names: ["o/fox-seed0.png"] }));
    await expect(claimed({ output: "o" })).rejects.toThrow(/another command is about to write it/);
    const old = new Date(Date.now() - SILENT_MS - 60_000);
    utimesSync(claims, old, old);
    (await claimed({ output: "o" })).release();
    expect(existsSync(claims)).toBe(false);
  });

  it("take names for the same that differ in capitals or in the form of accents alone", async () => {
    const named = (name: string) => claimed({ output: "o", name });
    const first = await named("Caf\u00e9");
    await expect(named("cafe\u0301")).rejects.toThrow(/another command is about to write it/);
    first.release();
  });

  it("give another number to a picture whose name a program has taken that claims nothing", async () => {
    const [picture] = pictures("fox") as [PlannedPicture];
    const files = await claimed({});
    writeFileSync("pictures/fox-seed0.png", "by hand");
    expect(await files.write(picture, image)).toBe("pictures/fox-seed0-2.png");
    files.release();
    const named = await claimed({ output: "o" });
    writeFileSync("o/fox-seed0.png", "by hand");
    await expect(named.write(picture, image)).rejects.toThrow(/fox-seed0\.png: exists already/);
    named.release();
  });
});

it("a folder is where the system takes its path to, behind links too", async () => {
  mkdirSync("far/away", { recursive: true });
  symlinkSync("far/away", "link");
  for (const [output, place] of [
    ["link/../o", "far/o"],
    ["missing/../o", "o"],
  ] as const) {
    const [picture] = pictures("fox") as [PlannedPicture];
    const files = await claimed({ output });
    await files.write(picture, image);
    files.release();
    expect(readdirSync(place)).toEqual(["fox-seed0.png"]);
  }
  expect(readdirSync(".").sort()).toEqual(["far", "link", "o"]);
});
