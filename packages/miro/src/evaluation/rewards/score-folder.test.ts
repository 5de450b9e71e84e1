// The files of `miro evaluate rewards` with tiny random weights, against what the published libraries recorded.
import { execFileSync } from "node:child_process";
import fs, {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { hostname, tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { scope } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import "../../emoji/register.js";
import { runCaptured } from "../../cli/testing/run-captured.js";
import { FileLock } from "../../files/file-lock.js";
import { scoreFolder } from "./score-folder.js";

const reference = fileURLToPath(new URL("../../../../../tests/reference/fixtures/scorers", import.meta.url));
const { captions, scored_pictures: pictures } = JSON.parse(readFileSync(join(reference, "scorers.json"), "utf8")) as {
  captions: string[];
  scored_pictures: string[];
};
const scratch = mkdtempSync(join(tmpdir(), "miro-rewards-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Prompt p is caption p; the first has two pictures. */
const PLACES = [
  [0, 0, 0],
  [0, 1, 1],
  [1, 0, 2],
  [2, 0, 3],
] as const;
const pathOf = (prompt: number, sample: number) =>
  `${String(prompt).padStart(5, "0")}/samples/${String(sample).padStart(4, "0")}.png`;
let folder: string;
let made = 0;

beforeEach(() => {
  folder = join(scratch, `images-${made++}`);
  for (const [prompt, sample, picture] of PLACES) {
    const path = join(folder, pathOf(prompt, sample));
    mkdirSync(resolve(path, ".."), { recursive: true });
    copyFileSync(join(reference, "pictures", `${pictures[picture]}.png`), path);
    writeFileSync(join(path, "../../metadata.jsonl"), JSON.stringify({ tag: "x", prompt: captions[prompt] }));
  }
});

const weights = { pick_score: join(reference, "pick_score"), hpsv2: join(reference, "hpsv2") };
const options = { weights, dtype: "float32" } as const;
const json = (name: string) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Record<string, never>;
const lines = (name = "rewards.jsonl"): Record<string, unknown>[] =>
  readFileSync(join(folder, name), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

/**
 * Root may write whatever the mode says, but not what is mounted so.
 * @returns what undoes it; null where root may not mount, as in a locked container
 */
function makeReadOnly(path: string): (() => void) | null {
  if (process.getuid!() !== 0) {
    chmodSync(path, 0o555);
    return () => chmodSync(path, 0o755);
  }
  try {
    execFileSync("mount", ["--bind", path, path], { stdio: "ignore" });
  } catch {
    return null;
  }
  execFileSync("mount", ["-o", "remount,bind,ro", path]);
  return () => execFileSync("umount", [path]);
}

/** (pictures, captions) */
function recorded(of: string, name: string): (picture: number, caption: number) => number {
  return scope(() => {
    const values = readSafetensors(join(reference, of, "reference.safetensors"))
      .get(name)!
      .data() as Float32Array;
    const copy = Float32Array.from(values);
    return (picture, caption) => copy[picture * captions.length + caption]!;
  });
}

describe("rewards of a folder", () => {
  it("are a row a picture in the published names and units, and the figures of both published tools", async () => {
    const { code, stdout } = await runCaptured(
      ...["evaluate", "rewards", folder, "--dtype", "float32", "--json"],
      ...Object.entries(weights).flatMap(([name, path]) => ["--weights", `${name}=${path}`]),
    );
    expect(code).toBe(0);
    const [logits, cosines] = [recorded("pick_score", "logits"), recorded("hpsv2", "cosine")];
    const rows = lines();
    expect(Object.keys(rows[0]!)).toEqual(["filename", "prompt", "pick_score", "hpsv2"]);
    rows.forEach((row, i) => {
      const [prompt, sample, picture] = PLACES[i]!;
      expect(row).toMatchObject({ filename: pathOf(prompt, sample), prompt: captions[prompt] });
      expect(row.pick_score).toBeCloseTo(logits(picture, prompt) / 100, 5);
      expect(row.hpsv2).toBeCloseTo(cosines(picture, prompt), 5);
    });
    const values = rows.map(({ hpsv2 }) => hpsv2 as number);
    const mean = values.reduce((a, b) => a + b) / 4;
    const summary = json("rewards_summary.json");
    expect(JSON.parse(stdout)).toEqual(summary);
    expect(summary).toMatchObject({ n_images: 4, n_prompts: 3, errors: [] });
    // The first tool's mean under the scorer's name, and the second one's maps.
    expect(summary.hpsv2).toBeCloseTo(mean, 12);
    expect((summary.per_image_mean! as { hpsv2: number }).hpsv2).toBeCloseTo(mean, 12);
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 3);
    expect((summary.per_image_std! as { hpsv2: number }).hpsv2).toBeCloseTo(spread, 12);
    const byPrompt = ((values[0]! + values[1]!) / 2 + values[2]! + values[3]!) / 3;
    expect((summary.per_prompt_mean! as { hpsv2: number }).hpsv2).toBeCloseTo(byPrompt, 12);
    expect(summary.scorers).toEqual({
      pick_score: expect.objectContaining({ key: "pick_a_score_score", divisor: 100 }),
      hpsv2: expect.objectContaining({ key: "hpsv2_score", name: "HPSv2.1", divisor: 1, weights: weights.hpsv2 }),
    });
  });

  it("are computed once: another run, in another place, adds its columns and loses none", async () => {
    // A file of the published tool, with a column that nothing here has made.
    const foreign = PLACES.map(([prompt, sample], i) =>
      JSON.stringify({
        filename: resolve(folder, pathOf(prompt, sample)),
        prompt: captions[prompt],
        clip_openai: i / 8,
      }),
    );
    // Python writes what is no number so.
    foreign[3] = foreign[3]!.replace("0.375", "NaN");
    writeFileSync(join(folder, "rewards.jsonl"), `${foreign.join("\n")}\n`);
    await scoreFolder(folder, { ...options, scorers: ["hpsv2"] });
    const first = lines();
    expect(first.map(({ clip_openai }) => clip_openai)).toEqual([0, 0.125, 0.25, null]);
    const moved = `${folder}-moved`;
    renameSync(folder, moved);
    folder = moved;
    const { reused, summary } = await scoreFolder(folder, { ...options, scorers: ["hpsv2_score", "sharpness"] });
    expect(reused).toBe(4);
    expect(lines().map(({ sharpness, ...row }) => row)).toEqual(first);
    expect(Object.keys(summary.scorers)).toEqual(["hpsv2", "sharpness"]);
    expect(Object.keys(summary.per_image_mean)).toEqual(["hpsv2", "sharpness", "clip_openai"]);
    await scoreFolder(folder, { ...options, scorers: ["sharpness"], absolute: true });
    expect(lines()[0]).toMatchObject({ filename: resolve(folder, pathOf(0, 0)), hpsv2: first[0]!.hpsv2 });
  });

  it("of a folder that cannot be written lie beside the rows, with what was scored there before", async ({ skip }) => {
    await scoreFolder(folder, { scorers: ["sharpness"] });
    const before = readdirSync(folder);
    const rows = join(scratch, `elsewhere-${made}`, "ours.jsonl");
    const scored = (...args: string[]) =>
      runCaptured("evaluate", "rewards", folder, "--scorers", "sharpness,colorfulness", "--json", ...args);
    const writable = makeReadOnly(folder) ?? skip();
    try {
      expect(await scored()).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: --outfile: .*images-/) });
      const { code, stdout, stderr } = await scored("--outfile", rows);
      expect([code, stderr]).toEqual([0, ""]);
      const [first, second] = [
        JSON.parse(stdout),
        await scoreFolder(folder, { outfile: rows, scorers: ["sharpness"] }),
      ];
      expect(second.reused).toBe(4);
      expect(first.per_image_mean).toEqual(second.summary.per_image_mean);
    } finally {
      writable();
    }
    expect(readdirSync(folder)).toEqual(before);
    const theirs = ["ours.jsonl", "ours_scores.jsonl", "ours_summary.json"];
    expect(readdirSync(resolve(rows, "..")).filter((name) => !name.startsWith("."))).toEqual(theirs);
  });

  it("are written with the figures while no other process can add a column", async () => {
    const { renameSync } = fs;
    const written: Record<string, string | undefined> = {};
    fs.renameSync = (from, to) => {
      written[basename(String(to))] = FileLock.holder(folder, "rewards_scores.jsonl")?.text;
      renameSync(from, to);
    };
    syncBuiltinESMExports();
    try {
      await scoreFolder(folder, { scorers: ["sharpness"] });
    } finally {
      fs.renameSync = renameSync;
      syncBuiltinESMExports();
    }
    const own = `process ${process.pid} on ${hostname()}`;
    expect(written).toEqual({ "rewards_scores.jsonl": own, "rewards.jsonl": own, "rewards_summary.json": own });
    expect(FileLock.holder(folder, "rewards_scores.jsonl")).toBeNull();
  });

  it("of a picture that has changed are computed anew, and what is not is not kept", async () => {
    await scoreFolder(folder, { ...options, scorers: ["hpsv2", "sharpness"] });
    const before = lines();
    copyFileSync(join(reference, "pictures", "noise.png"), join(folder, pathOf(0, 0)));
    const { reused } = await scoreFolder(folder, { ...options, scorers: ["hpsv2"] });
    expect(reused).toBe(3);
    const after = lines();
    expect(after[0]!.hpsv2).not.toBe(before[0]!.hpsv2);
    expect(after[0]!.sharpness).toBeNull();
    expect(after.slice(1)).toEqual(before.slice(1));
  });

  it("of a folder of weights are computed anew where the weights in it are others", async () => {
    const own = join(folder, "own");
    cpSync(join(reference, "pick_score"), own, { recursive: true });
    const scored = async () => {
      const { reused, rows, summary } = await scoreFolder(folder, {
        weights: { pick_score: own },
        dtype: "float32",
        scorers: ["pick_score", "sharpness"],
      });
      return [reused, rows.map(({ scores }) => scores.pick_score), summary.scorers.pick_score!.sha256] as const;
    };
    const [, values, hash] = await scored();
    expect(await scored()).toEqual([8, values, hash]);
    const bytes = readFileSync(join(own, "model.safetensors"));
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
    bytes.writeFloatLE(1, 8 + length + header.logit_scale.data_offsets[0]); // what cosines are multiplied by
    writeFileSync(join(own, "model.safetensors"), bytes);
    const [reused, others, otherHash] = await scored();
    expect(reused).toBe(4); // of the other scorer
    expect(otherHash).not.toBe(hash);
    others.forEach((value, i) => {
      expect(value).not.toBeCloseTo(values[i]!, 4);
    });
  });

  it("are null where a picture cannot be read, which the figures leave out and name", async () => {
    writeFileSync(join(folder, pathOf(1, 0)), "no picture");
    const { summary } = await scoreFolder(folder, { scorers: ["sharpness"] });
    const values = lines().map(({ sharpness }) => sharpness as number | null);
    expect(values[2]).toBeNull();
    const there = values.filter((value) => value !== null);
    expect(summary.per_image_mean.sharpness).toBeCloseTo(there.reduce((a, b) => a + b) / 3, 12);
    expect(summary).toMatchObject({ n_images: 4, n_prompts: 3, per_image_count: { sharpness: 3 } });
    const { stdout } = await runCaptured("evaluate", "rewards", folder, "--scorers", "sharpness");
    expect(stdout).toMatch(/^4 pictures of 3 prompts\n/);
    expect(stdout).toMatch(/^sharpness .* {2}\(3 of 4 pictures\)$/m);
    expect(summary.errors).toEqual([
      { filename: pathOf(1, 0), scorers: ["sharpness"], reason: expect.stringMatching(/cannot be read as a picture/) },
    ]);
  });

  it("are refused for folders of another form, unknown names, and rows that would be lost", async () => {
    const refused = async (message: RegExp, ...args: string[]) =>
      expect(await runCaptured("evaluate", "rewards", ...args)).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(message),
      });
    await refused(/pictures: expected folders of prompts/, join(reference, "pictures"));
    await refused(/--scorers: "beauty" is not known; there are aesthetic, pick_score/, folder, "--scorers", "beauty");
    await refused(/--weights: "beauty" is not known/, folder, "--weights", "beauty=x");
    writeFileSync(join(folder, "rewards.jsonl"), '{"filename": "a"}\n');
    await refused(/rewards\.jsonl: line 1: expected \{"filename"/, folder, "--scorers", "sharpness");
  });
});
