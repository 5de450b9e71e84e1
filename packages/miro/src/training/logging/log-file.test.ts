import fs, { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LogFile } from "./log-file.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-log-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

describe("a log file", () => {
  it("keeps what the disk refuses, and says so once", () => {
    const said: string[] = [];
    const log = new LogFile("log.jsonl", openSync("/dev/full", "a"), (message) => said.push(message));
    for (let i = 0; i < 3; i++) log.append(Buffer.from(`${i}\n`));
    expect(said).toEqual([expect.stringMatching(/^log\.jsonl: cannot be written: no space left .*the run goes on/)]);
    log.close();
    expect(said[1]).toBe("log.jsonl: 3 records could not be written and are lost");
  });

  it("writes what has waited, in order, as soon as the disk takes it", () => {
    const path = join(folder, "log.jsonl");
    const said: string[] = [];
    const log = new LogFile(path, openSync(path, "a"), (message) => said.push(message));
    const write = vi.spyOn(fs, "writeSync");
    const refuse = () => {
      throw Object.assign(new Error("no space"), { code: "ENOSPC" });
    };
    // The disk takes two bytes of the first record, then nothing more for a while.
    const short = (descriptor: number, bytes: Uint8Array) => fs.writevSync(descriptor, [bytes.subarray(0, 2)]);
    write.mockImplementationOnce(short as typeof fs.writeSync).mockImplementationOnce(refuse);
    log.append(Buffer.from("first\n"));
    write.mockImplementationOnce(refuse);
    log.append(Buffer.from("second\n"));
    log.append(Buffer.from("third\n"));
    log.close();
    expect(readFileSync(path, "utf8")).toBe("first\nsecond\nthird\n");
    expect(said).toEqual([expect.stringMatching(/cannot be written/), expect.stringMatching(/is written again$/)]);
  });

  it("loses records only as long as no more of them can wait", () => {
    const path = join(folder, "log.jsonl");
    const said: string[] = [];
    const log = new LogFile(path, openSync(path, "a"), (message) => said.push(message));
    const write = vi.spyOn(fs, "writeSync").mockImplementation(() => {
      throw Object.assign(new Error("no space"), { code: "ENOSPC" });
    });
    const large = Buffer.alloc(40 * 2 ** 20);
    log.append(large);
    log.append(large);
    write.mockRestore();
    log.append(large);
    log.close();
    expect(readFileSync(path).length).toBe(2 * large.length);
    expect(said[1]).toMatch(/is written again$/);
    expect(said[2]).toMatch(/1 record could not be written and is lost$/);
  });
});
