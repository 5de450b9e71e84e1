import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { scoreShared } from "./shared-work.js";

const output = mkdtempSync(join(tmpdir(), "miro-sweep-"));
afterAll(() => rmSync(output, { recursive: true, force: true }));
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it("the folders of a sweep are scored once, however many share them, and all know all scores", async () => {
  const folders = ["a", "b", "c", "d", "e"];
  const kept = new Map<string, number>();
  const busy = new Set<string>();
  const computed: string[] = [];
  /** As scores beside the pictures: who comes later reads them. */
  const score = async (folder: string) => {
    if (busy.has(folder)) throw new Error(`${folder} is scored by two at once`);
    busy.add(folder);
    for (let i = 0; i < 5; i++) await turn();
    if (!kept.has(folder)) {
      computed.push(folder);
      kept.set(folder, folder.charCodeAt(0));
    }
    busy.delete(folder);
    return kept.get(folder)!;
  };
  const all = await Promise.all([1, 2, 3].map(() => scoreShared(folders, score, { output })));
  expect(all).toEqual(Array(3).fill([97, 98, 99, 100, 101]));
  expect(computed.sort()).toEqual(folders);
  expect(readdirSync(output)).toEqual([]);
});

it("a process that fails gives its folder to the others", async () => {
  let failed = false;
  const score = async (folder: string) => {
    await turn();
    if (folder === "b" && !failed) {
      failed = true;
      throw new Error("no memory");
    }
    return folder;
  };
  const results = await Promise.allSettled([1, 2].map(() => scoreShared(["a", "b"], score, { output })));
  expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  expect(results.find(({ status }) => status === "fulfilled")).toMatchObject({ value: ["a", "b"] });
  expect(readdirSync(output)).toEqual([]);
});
