import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
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
