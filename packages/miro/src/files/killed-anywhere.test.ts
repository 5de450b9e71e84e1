/**
 * Kills a process that writes at every one of its file operations, each time in a new folder; the next process writes
 * the same. The kill is simulated: that operation and all later ones fail, those that would clean up too, and what is
 * left is given to a process that is dead.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tensor } from "@miro-t2i/torch";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { listCheckpoints, saveTrainingCheckpoint } from "../training/state/checkpoint.js";
import { FileLock } from "./file-lock.js";
import { writeFileAtomic } from "./whole-files.js";
import { replaceFolder } from "./whole-folders.js";

const CHANGES = [
  ...["openSync", "writeSync", "fsyncSync", "writeFileSync", "copyFileSync", "mkdirSync", "rmSync", "rmdirSync"],
  ...["renameSync", "linkSync", "symlinkSync"],
] as const;
const table = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
const real = Object.fromEntries(CHANGES.map((name) => [name, table[name]!]));

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(join(tmpdir(), "miro-killed-"));
});
afterEach(() => {
  heal();
  fs.rmSync(root, { recursive: true, force: true });
});

/** Lets file operations below the folder succeed until the n-th. @returns how many there have been */
function failFrom(n: number): () => number {
  let count = 0;
  for (const name of CHANGES)
    table[name] = (...args) => {
      const touches = args.some((one) => typeof one === "number" || String(one).startsWith(root));
      if (touches && ++count >= n) throw new Error(`killed at ${name}`);
      return real[name]!(...args);
    };
  syncBuiltinESMExports();
  return () => count;
}

function heal(): void {
  Object.assign(table, real);
  syncBuiltinESMExports();
}

/** Makes what this process has left a dead one's. */
function die(folder = root): void {
  const dead = processIdentity().replace(/\d+$/, "1");
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) die(path);
    else if (/\.lock\.\d+$/.test(entry.name))
      fs.writeFileSync(path, fs.readFileSync(path, "utf8").replace(processIdentity(), dead));
    fs.renameSync(path, join(folder, entry.name.replace(processIdentity(), dead)));
  }
}

const files = (folder: string) => fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();

/** @returns at how many operations the work was killed */
async function killAnywhere(prepare: () => Promise<void>, work: () => Promise<void>, check: () => void) {
  await prepare();
  await work();
  const whole = files(root);
  for (let n = 1; ; n++) {
    fs.rmSync(root, { recursive: true });
    fs.mkdirSync(root);
    await prepare();
    const count = failFrom(n);
    await work().catch(() => {});
    heal();
    if (count() < n) return n - 1;
    die();
    check();
    await work();
    expect(files(root), `after a kill at operation ${n}`).toEqual(whole);
  }
}

describe("killed at any of its operations, and done again", () => {
  it("a folder is the old one or the new one, or missing between two renames", async () => {
    const path = join(root, "a", "release");
    const fill = (text: string) => (folder: string) => writeFileAtomic(join(folder, "below", "text"), text);
    const states: (string | null)[] = [];
    const textIn = () => fs.readFileSync(join(path, "below", "text"), "utf8");
    const points = await killAnywhere(
      () => replaceFolder(path, fill("old")),
      () => replaceFolder(path, fill("new")),
      () => states.push(fs.existsSync(path) ? textIn() : null),
    );
    expect(textIn()).toBe("new");
    expect(states.length).toBe(points);
    expect(new Set(states)).toEqual(new Set(["old", null, "new"]));
    expect(states.filter((state) => state === null).length).toBe(1);
  });

  it("a file that is written under a lock is whole, and nothing of lock and folder stays in its way", async () => {
    const path = join(root, "scores", "a.csv");
    const points = await killAnywhere(
      async () => {},
      async () => {
        const lock = FileLock.acquire(join(root, "scores"), "a.csv");
        expect(lock).toBeInstanceOf(FileLock);
        try {
          writeFileAtomic(path, "text", { overwrite: true });
        } finally {
          (lock as FileLock).release();
        }
      },
      () => fs.existsSync(path) && expect(fs.readFileSync(path, "utf8")).toBe("text"),
    );
    expect(points).toBeGreaterThan(8);
  });

  it("of checkpoints at least the one before is whole", async () => {
    const folder = join(root, "checkpoints");
    const store = async (step: number) => {
      const x = tensor([step]);
      const state = { format: 1, step, emaUpdates: 0, skippedSteps: 0, seconds: 0, optimizerStep: step, recipe: {} };
      saveTrainingCheckpoint(folder, { state, network: { x }, emas: {}, optimizer: {} } as never, { keepLast: 1 });
      x.dispose();
    };
    const newest: number[] = [];
    await killAnywhere(
      () => store(1),
      () => store(2),
      () => newest.push(listCheckpoints(folder).at(-1)!.step),
    );
    expect([...new Set(newest)]).toEqual([1, 2]);
  });
});
