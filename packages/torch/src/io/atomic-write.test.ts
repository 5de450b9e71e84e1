import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import promises from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { full, ones, scope, TorchError, tensor, zeros } from "../index.js";
import { writeFileAtomicallyAside } from "./atomic-write.js";
import {
  publishFile,
  readSafetensors,
  removeKilledWrites,
  writeFileAtomically,
  writeSafetensors,
  writeSafetensorsInPieces,
  writeTorchCheckpointInPieces,
} from "./index.js";
import { lifeOf, processIdentity } from "./process-identity.js";

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "atomic-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  fs.rmSync(folder, { recursive: true, force: true });
});

const path = (): string => join(folder, "model.safetensors");
const valueIn = (file: string): number => scope(() => readSafetensors(file).get("x")!.amax().item());

function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

describe("a failing write", () => {
  const failures: [string, () => void, RegExp][] = [
    [
      "a full disk",
      () => failingWrite("ENOSPC"),
      /model\.safetensors: cannot be written after \d+ bytes: no space left/,
    ],
    ["a full quota", () => failingWrite("EDQUOT"), /quota/],
    [
      "a failing flush",
      () =>
        void vi.spyOn(fs, "fsyncSync").mockImplementationOnce(() => {
          throw systemError("EIO");
        }),
      /EIO/,
    ],
    [
      "a failing rename",
      () =>
        void vi.spyOn(fs, "renameSync").mockImplementationOnce(() => {
          throw systemError("EACCES");
        }),
      /permission denied/,
    ],
  ];
  function failingWrite(code: string): void {
    const write = fs.writeSync;
    let calls = 0;
    vi.spyOn(fs, "writeSync").mockImplementation(((...args: Parameters<typeof write>) => {
      if (++calls === 2) throw systemError(code);
      return write(...args);
    }) as typeof write);
  }

  test.each(failures)("%s leaves the old file and nothing else", (_, breakIt, message) => {
    scope(() => {
      writeSafetensors(path(), { x: tensor([1]) });
      breakIt();
      expect(() => writeSafetensors(path(), { x: tensor([2]) })).toThrow(message);
      vi.restoreAllMocks();
      expect(fs.readdirSync(folder)).toEqual(["model.safetensors"]);
      expect(valueIn(path())).toBe(1);
    });
  });

  test("an error while the content is made does the same", () => {
    const broken = (): void =>
      writeFileAtomically(path(), (write) => {
        write(new Uint8Array(10));
        throw new RangeError("from the producer");
      });
    expect(broken).toThrow(RangeError);
    expect(fs.readdirSync(folder)).toEqual([]);
  });

  test("writing that is left between two tensors does the same", () => {
    scope(() => {
      writeSafetensors(path(), { x: tensor([1]) });
      for (const inPieces of [writeSafetensorsInPieces, writeTorchCheckpointInPieces]) {
        const pieces = inPieces(path(), { x: ones([2]), y: ones([3]) });
        expect(pieces.next().done).toBe(false);
        expect(fs.readdirSync(folder)).toHaveLength(2);
        pieces.return();
        expect(fs.readdirSync(folder)).toEqual(["model.safetensors"]);
        expect(valueIn(path())).toBe(1);
      }
    });
  });

  test("a missing folder and a folder in the place of the file are named", () => {
    const write = (file: string) => () => writeFileAtomically(file, (sink) => sink(new Uint8Array(1)));
    expect(write(join(folder, "none", "x"))).toThrow(/none\/x: cannot be written: the folder does not exist/);
    fs.mkdirSync(join(folder, "taken"));
    expect(write(join(folder, "taken"))).toThrow(TorchError);
    expect(fs.readdirSync(folder)).toEqual(["taken"]);
  });

  test("a pipe in the place of the file is refused and stays a pipe, through a link too", async () => {
    const pipe = join(folder, "pipe");
    spawnSync("mkfifo", [pipe]);
    fs.symlinkSync(pipe, join(folder, "link"));
    const refusal = /(pipe|link): cannot be written: it is no regular file/;
    for (const name of ["pipe", "link"]) {
      const file = join(folder, name);
      expect(() => writeFileAtomically(file, (sink) => sink(new Uint8Array(1)))).toThrow(refusal);
      await expect(writeFileAtomicallyAside(file, new Uint8Array(1))).rejects.toThrow(refusal);
      fs.writeFileSync(join(folder, "made"), "");
      expect(() => publishFile(join(folder, "made"), file)).toThrow(refusal);
    }
    expect(fs.statSync(join(folder, "link")).isFIFO()).toBe(true);
    expect(fs.readdirSync(folder).sort()).toEqual(["link", "made", "pipe"]);
  });

  test("a short count from the system is continued", () => {
    const write = fs.writeSync;
    vi.spyOn(fs, "writeSync").mockImplementation(((
      descriptor: number,
      bytes: Uint8Array,
      from: number,
      length: number,
    ) => write(descriptor, bytes, from, Math.min(length, 3))) as typeof write);
    writeFileAtomically(path(), (sink) => sink(Buffer.from("a whole sentence")));
    expect(fs.readFileSync(path(), "utf8")).toBe("a whole sentence");
  });
});

describe("beside the event loop", () => {
  const failing = (name: "sync" | "write", code: string) => async () => {
    const file = await promises.open(join(folder, "probe"), "w");
    vi.spyOn(Object.getPrototypeOf(file), name).mockRejectedValueOnce(systemError(code));
    await file.close();
    fs.rmSync(join(folder, "probe"));
  };
  const put = (text: string, options = {}) => writeFileAtomicallyAside(path(), Buffer.from(text), options);

  test.each<[string, () => unknown, RegExp]>([
    ["a full disk", failing("write", "ENOSPC"), /model\.safetensors: cannot be written: no space left/],
    ["a failing flush", failing("sync", "EIO"), /model\.safetensors: cannot be written after 3 bytes: EIO/],
    [
      "a failing rename",
      () => vi.spyOn(promises, "rename").mockRejectedValueOnce(systemError("EACCES")),
      /permission denied/,
    ],
  ])("%s leaves the old file and nothing else", async (_, breakIt, message) => {
    await put("old");
    await breakIt();
    await expect(put("new")).rejects.toThrow(message);
    expect(fs.readdirSync(folder)).toEqual(["model.safetensors"]);
    expect(fs.readFileSync(path(), "utf8")).toBe("old");
    await put("new");
    expect(fs.readFileSync(path(), "utf8")).toBe("new");
  });

  test("without overwrite a file that exists stays, also one that appears during the writing", async () => {
    await put("old");
    await expect(put("new", { overwrite: false })).rejects.toThrow(/cannot be written.*EEXIST/);
    expect(fs.readFileSync(path(), "utf8")).toBe("old");
    fs.rmSync(path());
    const both = await Promise.allSettled(["first", "second"].map((text) => put(text, { overwrite: false })));
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const winner = ["first", "second"][both.findIndex(({ status }) => status === "fulfilled")];
    expect(fs.readFileSync(path(), "utf8")).toBe(winner);
    expect(fs.readdirSync(folder)).toEqual(["model.safetensors"]);
  });

  test("file systems without hard links are written to as well", async () => {
    vi.spyOn(promises, "link").mockRejectedValue(systemError("EPERM"));
    await put("new", { overwrite: false });
    await expect(put("newer", { overwrite: false })).rejects.toThrow(/EEXIST/);
    expect(fs.readFileSync(path(), "utf8")).toBe("new");
    expect(fs.readdirSync(folder)).toEqual(["model.safetensors"]);
  });
});

describe("without overwrite", () => {
  const put = (name: string, text: string) => () =>
    writeFileAtomically(join(folder, name), (write) => write(Buffer.from(text)), { overwrite: false });

  test("a file that exists stays, also one that appears during the writing", () => {
    put("x", "old")();
    expect(put("x", "new")).toThrow(/x: cannot be written.*EEXIST/);
    const racing = (): void =>
      writeFileAtomically(join(folder, "y"), () => fs.writeFileSync(join(folder, "y"), "first"), { overwrite: false });
    expect(racing).toThrow(TorchError);
    expect([fs.readFileSync(join(folder, "x"), "utf8"), fs.readFileSync(join(folder, "y"), "utf8")]).toEqual([
      "old",
      "first",
    ]);
    expect(fs.readdirSync(folder)).toEqual(["x", "y"]);
  });

  test("file systems without hard links are written to as well", () => {
    vi.spyOn(fs, "linkSync").mockImplementation(() => {
      throw systemError("EPERM");
    });
    put("x", "old")();
    expect(put("x", "new")).toThrow(TorchError);
    expect(fs.readFileSync(join(folder, "x"), "utf8")).toBe("old");
    expect(fs.readdirSync(folder)).toEqual(["x"]);
  });
});

test("names as long as the file system allows are written", () => {
  for (const name of ["n".repeat(255), "日".repeat(85)]) {
    writeFileAtomically(join(folder, name), (write) => write(Buffer.from("text")));
    expect(fs.readFileSync(join(folder, name), "utf8")).toBe("text");
  }
  expect(fs.readdirSync(folder).length).toBe(2);
});

describe("what others left unfinished in a folder", () => {
  const own = processIdentity();
  const name = (owner: string) => `.picture.png.${owner}.0123456789ab.tmp`;
  /** Other processes that this text could be taken for. */
  const dead = own.replace(/\d+$/, "1"); // the same id, of a process that began at another time
  const otherBoot = own.replace(/^[0-9a-f]{12}/, "0123456789ab");
  const otherPlaces = [otherBoot, "0".repeat(12) + own.slice(12)];

  test("goes when its process is dead, files and folders; everything else stays", () => {
    const others = [...[own, ...otherPlaces].map(name), ".picture.png.tmp", "notes.tmp", "picture.png"];
    for (const file of [name(dead), ...others]) fs.writeFileSync(join(folder, file), "");
    const half = `.step.${dead}.ba9876543210.tmp`;
    fs.mkdirSync(join(folder, half));
    fs.writeFileSync(join(folder, half, "x"), "");
    expect(removeKilledWrites(folder).sort()).toEqual([name(dead), half].sort());
    expect(fs.readdirSync(folder).sort()).toEqual([...others].sort());
    expect(removeKilledWrites(join(folder, "none"))).toEqual([]);
  });

  test("goes by its age where nothing can be known of its process", () => {
    const files = [own, ...otherPlaces].map(name);
    const before = new Date(Date.now() - 25 * 3600_000);
    for (const file of files) {
      fs.writeFileSync(join(folder, file), "");
      fs.utimesSync(join(folder, file), before, before);
    }
    expect(removeKilledWrites(folder).sort()).toEqual(files.slice(1).sort());
  });

  test("is told apart across PID namespaces, where all have the same small ids", (context) => {
    const write = `process.stdout.write(m.processIdentity() + " " + m.lifeOf(process.argv[1]))`;
    const program = `import(${JSON.stringify(new URL("../../dist/io/atomic-write.js", import.meta.url).href)}).then((m) => { ${write} })`;
    const unshare = ["--pid", "--fork", "--mount-proc", process.execPath, "-e", program, own];
    const { status, stdout } = spawnSync("unshare", unshare, { encoding: "utf8" });
    if (status !== 0) return context.skip("namespaces need privileges");
    const [theirs, life] = stdout.split(" ") as [string, string];
    expect(theirs.split("-")[3]).toBe("1");
    expect(theirs.split("-")[1]).not.toBe(own.split("-")[1]);
    expect(life).toBe("unknown"); // a process that lives, and cannot be seen from there
    expect(lifeOf(theirs)).not.toBe("alive");
    expect(lifeOf(theirs.replace(/^([^-]+)-\d+/, `$1-${own.split("-")[1]}`))).toBe("dead"); // our process 1 is another
  });
});

test("a device without space is refused by the real system", (context) => {
  const mount = join(folder, "small");
  fs.mkdirSync(mount);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]);
  if (mounted.status !== 0) return context.skip("mounting needs privileges");
  try {
    const file = join(mount, "model.safetensors");
    scope(() => {
      writeSafetensors(file, { x: full([1000], 1) });
      expect(() => writeSafetensors(file, { x: zeros([2 ** 19]) })).toThrow(/no space left on the device/);
      expect(fs.readdirSync(mount)).toEqual(["model.safetensors"]);
      expect(valueIn(file)).toBe(1);
    });
  } finally {
    spawnSync("umount", ["-l", mount]);
  }
});

describe("a killed writer", () => {
  /** Writes {x: 4 MiB full of n} for n = 2, 3, … over `file` until it is killed; prints each n when it is in place. */
  const program = `
    import { scope, full } from ${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)};
    import { writeSafetensors } from ${JSON.stringify(new URL("../../dist/io/index.js", import.meta.url).href)};
    for (let n = 2; ; n++) {
      scope(() => writeSafetensors(process.argv[1], { x: full([2 ** 20], n) }));
      process.stdout.write(n + "\\n");
    }`;
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
  });

  test("leaves one whole file, the old or the new, at any moment", { timeout: 180_000 }, async () => {
    const first = full([2 ** 20], 1);
    const whole = new Set<number>();
    for (let round = 0; round < 6; round++) {
      writeSafetensors(path(), { x: first });
      const child = spawn(process.execPath, ["--input-type=module", "-e", program, path()], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      children.push(child);
      await new Promise<void>((resolve, reject) => {
        child.stdout.once("data", () => resolve());
        child.once("error", reject);
        child.once("exit", (code) => reject(new Error(`the writer ended with ${code} before it wrote`)));
      });
      child.removeAllListeners("exit");
      // Spreads the kills over the phases of a write (each takes a few ms).
      await new Promise((resolve) => setTimeout(resolve, 1 + round * 2.3));
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
      scope(() => {
        const x = readSafetensors(path()).get("x")!;
        expect(x.amin().item()).toBe(x.amax().item());
        whole.add(x.amax().item());
      });
    }
    expect([...whole].every((n) => n >= 2)).toBe(true);
    // What a killed process leaves behind goes with the next write.
    writeSafetensors(path(), { x: first });
    expect(fs.readdirSync(folder)).toEqual(["model.safetensors"]);
    first.dispose();
  });
});
