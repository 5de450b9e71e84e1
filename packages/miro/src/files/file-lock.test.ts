import fs, { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { InvalidInputError } from "../errors.js";
import { RunLock } from "../training/state/run-lock.js";
import { FileLock, type LockOwner, SILENT_MS } from "./file-lock.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-lock-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

const acquire = () => FileLock.acquire(folder, "a");
/** Makes a lock another process' by changing its owner's identity. */
function give(lock: FileLock, pattern: RegExp, to: string): void {
  writeFileSync(lock.path, readFileSync(lock.path, "utf8").replace(pattern, to));
}
const BOOT = /(?<="identity":")[0-9a-f]{12}/;
const STARTED = /(?<="identity":"[^"]*-)\d+(?=")/;
/** Sets back the last sign of life. */
function silence(path: string, ms: number): void {
  const before = new Date(Date.now() - ms);
  utimesSync(path, before, before);
}

describe("a lock", () => {
  it("is held by one, and leaves nothing", () => {
    const lock = acquire() as FileLock;
    expect(lock).toBeInstanceOf(FileLock);
    expect(acquire()).toMatchObject({ text: expect.stringContaining(`process ${process.pid} on`), isKnown: true });
    expect(FileLock.acquire(folder, "b")).toBeInstanceOf(FileLock);
    lock.release();
    const next = acquire() as FileLock;
    expect(next).toBeInstanceOf(FileLock);
    next.release();
    expect(readdirSync(folder)).toEqual([".b.lock.1"]);
  });

  it("of a dead process is taken over at once, though its number is another one's now", () => {
    const lock = acquire() as FileLock;
    give(lock, STARTED, "1");
    expect(lock.isHeld()).toBe(true);
    const heir = acquire() as FileLock;
    expect(heir).toBeInstanceOf(FileLock);
    expect([lock.isHeld(), heir.isHeld()]).toEqual([false, true]);
    lock.release();
    expect(heir.isHeld()).toBe(true);
    heir.release();
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each([
    ["of another boot or machine", (lock: FileLock) => give(lock, BOOT, "0123456789ab")],
    ["that is not written yet", (lock: FileLock) => writeFileSync(lock.path, "")],
  ])("%s stands until its owner is silent for long", (_, change) => {
    const lock = acquire() as FileLock;
    change(lock);
    silence(lock.path, SILENT_MS - 5000);
    expect(acquire()).toMatchObject({ isKnown: false, text: expect.stringMatching(/last heard of 11\d s ago/) });
    silence(lock.path, SILENT_MS + 5000);
    expect(acquire()).toBeInstanceOf(FileLock);
  });

  it("works on file systems without hard links", () => {
    vi.spyOn(fs, "linkSync").mockImplementation(() => {
      throw Object.assign(new Error("EPERM"), { code: "EPERM" });
    });
    const lock = acquire() as FileLock;
    expect(lock).toBeInstanceOf(FileLock);
    expect((acquire() as LockOwner).isKnown).toBe(true);
    lock.release();
    expect(readdirSync(folder)).toEqual([]);
  });

  it("makes its folder, which goes with it unless something has come to lie in it", () => {
    const path = join(folder, "a", "b");
    (FileLock.acquire(path, "x") as FileLock).release();
    expect(readdirSync(folder)).toEqual([]);
    const [one, other] = ["x", "y"].map((name) => FileLock.acquire(path, name) as FileLock);
    one!.release();
    expect(readdirSync(path)).toEqual([".y.lock.1"]);
    writeFileSync(join(path, "made"), "");
    other!.release();
    expect(readdirSync(path)).toEqual(["made"]);
    (FileLock.acquire(folder, "x") as FileLock).release();
  });

  it("clears its folder of what killed processes left unfinished, its own beginnings too", () => {
    const dead = processIdentity().replace(/\d+$/, "1");
    for (const name of [".a.lock.1", "made.csv"]) writeFileSync(join(folder, `.${name}.${dead}.0123456789ab.tmp`), "");
    (acquire() as FileLock).release();
    expect(readdirSync(folder)).toEqual([]);
  });

  it("that can no longer be removed is no error: what has failed on such a disk says so itself", () => {
    const lock = acquire() as FileLock;
    const { rmSync } = fs;
    fs.rmSync = () => {
      throw Object.assign(new Error("EIO"), { code: "EIO" });
    };
    syncBuiltinESMExports();
    try {
      lock.release();
    } finally {
      fs.rmSync = rmSync;
      syncBuiltinESMExports();
    }
    expect(FileLock.holder(folder, "a")).toMatchObject({ isKnown: true });
    lock.release();
    expect(FileLock.holder(folder, "a")).toBeNull();
  });

  it("says what is wrong with its folder", () => {
    writeFileSync(join(folder, "file"), "");
    const below = join(folder, "file", "below");
    expect(() => FileLock.acquire(below, "a")).toThrow(/below: cannot be created: a part of its path is not a folder/);
    expect(() => FileLock.acquire("/proc/none", "a")).toThrow(/none: cannot be created: no such file/);
  });
});

describe("the folder of a run", () => {
  const output = () => join(folder, "runs/one");

  it("refuses a second training by name, and takes the next one when the first has ended", async () => {
    const first = await RunLock.acquire(output());
    const second = RunLock.acquire(output());
    await expect(second).rejects.toThrow(/runs\/one: process \d+ on .* trains here; wait for its end/);
    await expect(second).rejects.toThrow(InvalidInputError);
    first.check();
    first.release();
    (await RunLock.acquire(output())).release();
    expect(readdirSync(folder)).toEqual([]); // nothing was trained
  });

  it("is cleared of checkpoints that a killed training wrote or removed", async () => {
    const checkpoints = join(output(), "checkpoints");
    const dead = processIdentity().replace(/\d+$/, "1");
    mkdirSync(join(checkpoints, `.step-00000002.${dead}.0123456789ab.tmp`), { recursive: true });
    mkdirSync(join(checkpoints, "step-00000004"));
    (await RunLock.acquire(output())).release();
    expect(readdirSync(checkpoints)).toEqual(["step-00000004"]);
  });

  it("whose owner cannot be looked at is waited for aloud, until it is heard of or silent for long", async () => {
    const lock = await RunLock.acquire(output());
    const path = join(output(), ".run.lock.1");
    const elsewhere = () => {
      writeFileSync(path, readFileSync(path, "utf8").replace(BOOT, "0123456789ab"));
      silence(path, SILENT_MS - 60_000);
    };
    elsewhere();
    const heard = (onMessage: () => void) => RunLock.acquire(output(), { onMessage });
    await expect(heard(() => utimesSync(path, new Date(), new Date()))).rejects.toThrow(/trains here/);
    elsewhere();
    const said: string[] = [];
    const heir = await RunLock.acquire(output(), {
      onMessage(message) {
        said.push(message);
        silence(path, SILENT_MS + 1000);
      },
    });
    expect(said).toEqual([
      expect.stringMatching(/waiting for a sign of life of process \d+ on .*, which trained here$/),
    ]);
    expect(() => lock.check()).toThrow(/another process has taken over this run/);
    rmSync(output(), { recursive: true });
    expect(() => heir.check()).toThrow(
      /: the folder of the run was removed or renamed; it stops without a checkpoint$/,
    );
    heir.release();
  });
});
