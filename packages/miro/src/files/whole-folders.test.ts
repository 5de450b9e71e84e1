import { spawnSync } from "node:child_process";
import fs, {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { InvalidInputError, type MiroError } from "../errors.js";
import { about, message, option } from "../message.js";
import { writeFileAtomic } from "./whole-files.js";
import { replaceFolder } from "./whole-folders.js";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "miro-whole-folders-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(root, { recursive: true, force: true });
});

const OWN = fileURLToPath(import.meta.url);

const fill = (text: string) => (folder: string) => {
  writeFileAtomic(join(folder, "below", "text"), text);
};
const textIn = (folder: string) => readFileSync(join(folder, "below", "text"), "utf8");

it("a folder is replaced as a whole, and nothing stays beside it", async () => {
  const path = join(root, "a", "release");
  await replaceFolder(path, fill("one"));
  writeFileSync(join(path, "own"), "");
  await replaceFolder(path, (folder) => {
    expect(textIn(path)).toBe("one");
    fill("two")(folder);
  });
  expect([textIn(path), readdirSync(path), readdirSync(join(root, "a"))]).toEqual(["two", ["below"], ["release"]]);
});

it("a folder that has appeared meanwhile is only replaced where that was asked for", async () => {
  const path = join(root, "release");
  const fillBeside = async (folder: string) => {
    await replaceFolder(path, fill("other"));
    fill("one")(folder);
  };
  mkdirSync(path); // an empty one is in nobody's way
  await expect(replaceFolder(path, fillBeside, { overwrite: false })).rejects.toThrow(/release: exists already; /);
  expect([textIn(path), readdirSync(root)]).toEqual(["other", ["release"]]);
  rmSync(path, { recursive: true });
  mkdirSync(path);
  await replaceFolder(path, fill("one"), { overwrite: false });
  await replaceFolder(path, fillBeside);
  expect([textIn(path), readdirSync(root)]).toEqual(["one", ["release"]]);
});

it("a folder behind a link is replaced where it is", async () => {
  mkdirSync(join(root, "far"));
  symlinkSync("far", join(root, "link"));
  await replaceFolder(join(root, "link"), fill("one"));
  expect([readlinkSync(join(root, "link")), textIn(join(root, "far"))]).toEqual(["far", "one"]);
});

it("what fails leaves the folder as it was, and speaks of the folder that was meant", async () => {
  const path = join(root, "release");
  const failures: [(folder: string) => void, string | RegExp][] = [
    [
      (folder) => fill("x")(join(folder, "below", "text")),
      /^\S+release\/below\/text\/below\/text: cannot be written: /,
    ],
    [(folder) => readFileSync(join(folder, "none")), `ENOENT: no such file or directory, open '${path}/none'`],
    [(folder) => copyFileSync(OWN, join(folder, "below")), `copyfile '${OWN}' -> '${path}/below'`],
    [
      (folder) => {
        throw new InvalidInputError(message`${about("model")}: ${folder} is empty; ${option("overwrite", true)}`);
      },
      `model: ${path} is empty; \`overwrite: true\``,
    ],
  ];
  for (const round of ["new", "there"]) {
    for (const [fails, text] of failures) {
      const failed = replaceFolder(path, (folder) => {
        fill("half")(folder);
        fails(folder);
      });
      const error = (await failed.catch((reason: unknown) => reason)) as NodeJS.ErrnoException &
        Partial<MiroError> & { dest?: string };
      expect(error.message).toMatch(text);
      expect(`${error.path} ${error.dest} ${error.wording}`).not.toContain(".tmp");
    }
    expect(readdirSync(root)).toEqual(round === "new" ? [] : ["release"]);
    if (round === "new") await replaceFolder(path, fill("one"));
    expect(textIn(path)).toBe("one");
  }
  await expect(
    replaceFolder(join(root, "b", "c"), () => {
      throw new Error("no");
    }),
  ).rejects.toThrow("no");
  expect(existsSync(join(root, "b"))).toBe(false);
});

it("the reason of a signal, which cannot be changed, is what fails", async () => {
  for (const reason of [new DOMException("late", "TimeoutError"), new DOMException("no", "AbortError"), "enough"]) {
    const failed = replaceFolder(join(root, "release"), () => AbortSignal.abort(reason).throwIfAborted());
    expect(await failed.catch((error: unknown) => error)).toBe(reason);
  }
});

it("of two that replace a folder at once, one does it behind the other", async () => {
  const path = join(root, "release");
  await replaceFolder(path, fill("old"));
  const rename = fs.renameSync;
  let isFirst = true;
  const renamed = vi.spyOn(fs, "renameSync").mockImplementation((from, to) => {
    rename(from, to);
    if (from !== path || !isFirst) return;
    isFirst = false;
    fill("another one's")(path);
  });
  await replaceFolder(path, fill("ours"));
  expect([textIn(path), readdirSync(root), renamed.mock.calls.filter(([from]) => from === path).length]).toEqual([
    "ours",
    ["release"],
    2,
  ]);
});

it("the old folder comes back when the new one cannot take its place", async () => {
  const path = join(root, "release");
  await replaceFolder(path, fill("one"));
  const rename = fs.renameSync;
  vi.spyOn(fs, "renameSync").mockImplementation((from, to) => {
    if (to === path && existsSync(join(String(from), "new")))
      throw Object.assign(new Error("EIO: i/o error"), { code: "EIO", syscall: "rename" });
    rename(from, to);
  });
  await expect(replaceFolder(path, (folder) => writeFileSync(join(folder, "new"), ""))).rejects.toThrow("EIO");
  expect([textIn(path), readdirSync(root)]).toEqual(["one", ["release"]]);
});

it("a mount point is refused before anything is done, and keeps what it holds", async (context) => {
  const mount = join(root, "a volume");
  mkdirSync(mount);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]).status !== 0)
    return context.skip("mounting needs privileges");
  try {
    writeFileSync(join(mount, "config.json"), "{}");
    const filled = vi.fn();
    await expect(replaceFolder(mount, filled)).rejects.toThrow(/a volume: is a mount point, .* name a folder in it/);
    expect([filled.mock.calls.length, readdirSync(mount)]).toEqual([0, ["config.json"]]);
    await replaceFolder(join(mount, "release"), fill("one"));
    expect(textIn(join(mount, "release"))).toBe("one");
  } finally {
    spawnSync("umount", ["-l", mount]);
  }
});
