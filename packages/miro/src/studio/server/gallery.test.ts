import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "libsql";
import { expect, it } from "vitest";
import { GeneratedImage } from "../../pipeline/generated-image.js";
import { IMAGE_SETTINGS } from "../../pipeline/testing/image-settings.js";
import { Gallery } from "./gallery.js";
import type { JobView } from "./job.js";
import { KEEP_JOB_MS } from "./limits.js";

it("knows the jobs of an earlier server as long as its own, and then forgets them", () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const start = Date.parse("2026-01-01T00:00:00Z");
  const job = (id: string, at: number) => ({ id, finishedAt: new Date(at).toISOString() }) as unknown as JobView;
  const known = (after: number) => {
    const gallery = Gallery.open(folder, () => new Date(start + after));
    try {
      return ["old", "new"].filter((id) => gallery.recallJob(id) !== null);
    } finally {
      gallery.close();
    }
  };
  try {
    const first = Gallery.open(folder, () => new Date(start));
    first.rememberJob(job("old", start));
    first.rememberJob(job("new", start + 1000));
    first.close();
    expect(known(KEEP_JOB_MS)).toEqual(["old", "new"]);
    expect(known(KEEP_JOB_MS + 500)).toEqual(["new"]);
    expect(known(KEEP_JOB_MS + 5000)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it("does not begin with favourites that are none, and says which file holds them", () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  try {
    mkdirSync(join(folder, ".studio"));
    const file = join(folder, ".studio", "favourites.json");
    for (const text of ['{"a":1}', "[1]", "[", ""]) {
      writeFileSync(file, text);
      expect(() => Gallery.open(folder)).toThrow(file);
    }
    // It is not taken for another server's.
    writeFileSync(file, "[]");
    Gallery.open(folder).close();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it("does not take for a favourite what it could not store", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  try {
    const picture = new GeneratedImage({ width: 8, height: 4, data: new Uint8Array(8 * 4 * 3) }, IMAGE_SETTINGS);
    for (const name of ["a.png", "b.png"]) await picture.save(join(folder, name));
    const gallery = Gallery.open(folder);
    try {
      expect(await gallery.repair()).toMatchObject({ added: 2 });
      const [one, other] = gallery.list({ limit: 2 }).pictures.map(({ id }) => id) as [string, string];
      const file = join(folder, ".studio", "favourites.json");
      mkdirSync(file); // in the way, as a full disk would be
      expect(() => gallery.setFavourite(one, true)).toThrow(/favourites\.json: cannot be written/);
      rmSync(file, { recursive: true });
      gallery.setFavourite(other, true);
      expect(JSON.parse(readFileSync(file, "utf8"))).toEqual([other]);
    } finally {
      gallery.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it("finds the beginnings of words, and anything in scripts that put no spaces between them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const gallery = Gallery.open(folder);
  try {
    const prompts = ["一只红色的狐狸", "赤いキツネが走る", "ป่าสีเขียว", "a café with foxes", "שועל אדום"];
    for (const [i, prompt] of prompts.entries()) {
      const path = join(folder, `${i}.png`);
      writeFileSync(path, "");
      gallery.add(path, { ...IMAGE_SETTINGS, prompt });
    }
    const found = (q: string) => gallery.list({ q, limit: 9 }).pictures.map(({ prompt }) => prompts.indexOf(prompt));
    for (const [q, places] of [
      ["狐狸", [0]],
      ["红色 狐狸", [0]],
      ["キツネ", [1]],
      ["走る", [1]],
      ["เขียว", [2]],
      ["cafe fox", [3]],
      ["oxes", []],
      ["אד", [4]],
      ["狐狸 fox", []],
    ] as const)
      expect([q, found(q)]).toEqual([q, places]);
  } finally {
    gallery.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

it("forgets pictures that are gone with all that it knew of them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const gallery = Gallery.open(folder);
  try {
    mkdirSync(join(folder, "day"));
    for (let i = 0; i < 350; i++) {
      const path = join(folder, i < 340 ? "day" : ".", `${i}.png`);
      writeFileSync(path, "");
      const rewardTargets = { one: i / 350, other: 1, unknown: null };
      gallery.add(path, { ...IMAGE_SETTINGS, prompt: `number ${i}`, rewardTargets });
    }
    rmSync(join(folder, "day"), { recursive: true });
    expect(await gallery.repair()).toMatchObject({ added: 0, removed: 340 });
    const index = new Database(join(folder, ".studio", "index.sqlite"));
    const count = (table: string) => (index.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
    expect([count("pictures"), count("words"), count("targets")]).toEqual([10, 10, 20]);
    index.close();
  } finally {
    gallery.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
