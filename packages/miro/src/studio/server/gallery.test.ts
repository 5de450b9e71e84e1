import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "libsql";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { SILENT_MS } from "../../files/file-lock.js";
import { GeneratedImage } from "../../pipeline/generated-image.js";
import { IMAGE_SETTINGS } from "../../pipeline/testing/image-settings.js";
import { Gallery } from "./gallery.js";
import type { JobView } from "./job.js";
import { KEEP_JOB_MS } from "./limits.js";

it("knows the jobs of an earlier server as long as its own, and then forgets them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const start = Date.parse("2026-01-01T00:00:00Z");
  const job = (id: string, at: number) => ({ id, finishedAt: new Date(at).toISOString() }) as unknown as JobView;
  const at = (after: number) => ({ now: () => new Date(start + after) });
  const known = async (after: number) => {
    const gallery = await Gallery.open(folder, at(after));
    try {
      return ["old", "new"].filter((id) => gallery.recallJob(id) !== null);
    } finally {
      gallery.close();
    }
  };
  try {
    const first = await Gallery.open(folder, at(0));
    first.rememberJob(job("old", start));
    first.rememberJob(job("new", start + 1000));
    first.close();
    expect(await known(KEEP_JOB_MS)).toEqual(["old", "new"]);
    expect(await known(KEEP_JOB_MS + 500)).toEqual(["new"]);
    expect(await known(KEEP_JOB_MS + 5000)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

describe("a folder whose studio cannot be looked at", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const lock = () => join(folder, ".studio", ".server.lock.1");
  /** Says something else of the owner of the lock, and sets its last sign of life to a minute ago. */
  function say(text: string, pattern: RegExp, to: string): void {
    writeFileSync(lock(), text.replace(pattern, to));
    const before = new Date(Date.now() - SILENT_MS / 2);
    utimesSync(lock(), before, before);
  }
  /** Of an identity of BOOT-PIDNS-TIMENS-PID-START the third: what is in another one cannot be seen. */
  const NAMESPACE = /(?<="identity":"[0-9a-f]+-\d+-)\d+/;
  const BOOT = /(?<="identity":")[0-9a-f]{12}/;

  it("as in another container, is refused at once while it lives, and free at once when it was killed", async () => {
    const first = await Gallery.open(folder);
    const text = readFileSync(lock(), "utf8");
    say(text, NAMESPACE, "7");
    await expect(Gallery.open(folder)).rejects.toThrow(
      new RegExp(`another studio serves these pictures \\(process ${process.pid} on [^()]+\\); choose another`),
    );
    first.close();
    const onWait = vi.fn();
    say(text, NAMESPACE, "7");
    const second = await Gallery.open(folder, { onWait });
    expect(onWait).not.toHaveBeenCalled();
    second.close();
  });

  it.each([
    ["on another machine", BOOT, "0123456789ab"],
    ["by another file system", /(?<="device":)\d+/, "7"],
    ["and holds no file", /"device":\d+/, '"other":7'],
  ])("%s, is waited for aloud, until it is heard of or silent for long", async (_, pattern, to) => {
    const first = await Gallery.open(folder);
    const text = readFileSync(lock(), "utf8");
    first.close();
    const change = () => say(text.replace(NAMESPACE, "7"), pattern, to);
    change();
    const heard = Gallery.open(folder, { onWait: () => utimesSync(lock(), new Date(), new Date()) });
    await expect(heard).rejects.toThrow(/another studio serves these pictures \(process \d+ on .*last heard of/);
    change();
    const long = new Date(Date.now() - 2 * SILENT_MS);
    const onWait = vi.fn(() => utimesSync(lock(), long, long));
    (await Gallery.open(folder, { onWait })).close();
    expect(onWait).toHaveBeenCalledOnce();
  });
});

it("does not begin with favourites that are none, and says which file holds them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  try {
    mkdirSync(join(folder, ".studio"));
    const file = join(folder, ".studio", "favourites.json");
    for (const text of ['{"a":1}', "[1]", "[", ""]) {
      writeFileSync(file, text);
      await expect(Gallery.open(folder)).rejects.toThrow(file);
    }
    // It is not taken for another server's.
    writeFileSync(file, "[]");
    (await Gallery.open(folder)).close();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it("does not take for a favourite what it could not store", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  try {
    const picture = new GeneratedImage({ width: 8, height: 4, data: new Uint8Array(8 * 4 * 3) }, IMAGE_SETTINGS);
    for (const name of ["a.png", "b.png"]) await picture.save(join(folder, name));
    const gallery = await Gallery.open(folder);
    try {
      expect(await gallery.repair()).toMatchObject({ added: 2 });
      const [one, other] = gallery.list({ limit: 2 }).pictures.map(({ id }) => id) as [string, string];
      const file = join(folder, ".studio", "favourites.json");
      mkdirSync(file); // in the way, as a full disk would be
      await expect(gallery.setFavourite(one, true)).rejects.toThrow(/favourites\.json: cannot be written/);
      rmSync(file, { recursive: true });
      await gallery.setFavourite(other, true);
      expect(JSON.parse(readFileSync(file, "utf8"))).toEqual([other]);
      // Of changes at once none is lost.
      await Promise.all([gallery.setFavourite(other, false), gallery.setFavourite(one, true)]);
      expect(JSON.parse(readFileSync(file, "utf8"))).toEqual([one]);
      expect(gallery.list({ favourite: true, limit: 9 }).pictures.map(({ id }) => id)).toEqual([one]);
    } finally {
      gallery.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it("finds the beginnings of words, and anything in scripts that put no spaces between them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const gallery = await Gallery.open(folder);
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

it("lists a prompt as a whole, also where a zero stands in it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const gallery = await Gallery.open(folder);
  try {
    const path = join(folder, "zero.png");
    writeFileSync(path, "");
    gallery.add(path, { ...IMAGE_SETTINGS, prompt: "a fox\0and a cat" });
    const { pictures } = gallery.list({ q: "cat", limit: 10 });
    expect(pictures.map(({ prompt }) => prompt)).toEqual(["a fox\ufffdand a cat"]);
  } finally {
    gallery.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

it("forgets pictures that are gone with all that it knew of them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-gallery-"));
  const gallery = await Gallery.open(folder);
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
