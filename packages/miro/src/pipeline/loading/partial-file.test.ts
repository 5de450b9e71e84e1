import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PartialFile } from "./partial-file.js";

let folder: string;
let blob: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-partial-"));
  blob = join(folder, "abcd");
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** A part that a process of another container writes, or one that is no more. */
function partElsewhere(owner: string): string {
  const path = join(folder, `abcd.miro-${owner}-0123abcd.incomplete`);
  writeFileSync(path, "some");
  return path;
}

describe("a part whose process cannot be looked at", () => {
  const owners = [
    ["of another boot", processIdentity().replace(/^[0-9a-f]{12}/, "0123456789ab")],
    ["with no owner that is known", "1-0123abcd"],
  ] as const;

  it.each(owners)("%s is waited for aloud, and left alone when it stands still", async (_, owner) => {
    const path = partElsewhere(owner);
    let seconds = 0;
    vi.spyOn(performance, "now").mockImplementation(() => 10_000 * seconds++);
    const said: string[] = [];
    const mine = await PartialFile.claim(blob, { onWait: (message) => said.push(message) });
    expect(said).toEqual([`waiting for another process that downloads ${blob}`]);
    expect(mine!.path).not.toBe(path);
    expect(readFileSync(path, "utf8")).toBe("some");
  });

  it.each(owners)("%s is waited for as long as it grows", async (_, owner) => {
    const path = partElsewhere(owner);
    let polls = 0;
    vi.spyOn(performance, "now").mockImplementation(() => 10_000 * polls);
    const report = () => {
      polls++;
      if (polls < 4) writeFileSync(path, "more".repeat(polls + 1));
      else writeFileSync(blob, "all of it");
    };
    expect(await PartialFile.claim(blob, { report, onWait: () => {} })).toBeNull();
  });

  it.each(owners)("%s is taken over when nobody has written to it for long", async (_, owner) => {
    const path = partElsewhere(owner);
    const before = new Date(Date.now() - 700_000);
    utimesSync(path, before, before);
    const mine = await PartialFile.claim(blob);
    expect(existsSync(path)).toBe(false);
    expect(mine!.sizeBytes()).toBe(4);
    expect(readdirSync(folder)).toEqual([basename(mine!.path)]);
  });
});
