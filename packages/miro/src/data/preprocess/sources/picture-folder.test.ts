import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { findPictures } from "./picture-folder.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-pictures-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const write = (path: string) => {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), "");
};
const link = (target: string, path: string) => {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  symlinkSync(target, join(folder, path));
};
const find = (root = "in") => {
  const { pictures, leftOut } = findPictures(join(folder, root), (name) => name.endsWith(".jpg"));
  return { pictures: pictures.sort(), leftOut: leftOut.map(({ path, reason }) => `${reason} ${path}`).sort() };
};

it("links to files and folders are followed, and each folder is read once", () => {
  write("out/a.jpg");
  write("out/deep/b.jpg");
  write("in/sub/c.jpg");
  link("../out/a.jpg", "in/a.jpg");
  link("../out", "in/linked");
  link("../out", "in/linked-again");
  link("sub", "in/before-sub");
  expect(find()).toEqual({ pictures: ["a.jpg", "linked/a.jpg", "linked/deep/b.jpg", "sub/c.jpg"], leftOut: [] });
});

it("links that lead in a circle end, and those that lead nowhere are named", () => {
  write("in/a.jpg");
  write("out/b.jpg");
  link("..", "in/sub/up");
  link(".", "in/self");
  link("../in", "out/back");
  link("../out", "in/out");
  link("loop.jpg", "in/loop.jpg");
  link("nothing.jpg", "in/broken.jpg");
  expect(find()).toEqual({
    pictures: ["a.jpg", "out/b.jpg"],
    leftOut: ["unreadable broken.jpg", "unreadable loop.jpg"],
  });
});

it("hidden and system files and folders are left out and named, below links too", () => {
  write("in/a.jpg");
  write("in/b.jpg/c.jpg");
  const hidden = [
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "._a.jpg",
    "sub/@eaDir/a.jpg",
    "__MACOSX/x/a.jpg",
    "$RECYCLE.BIN/a.jpg",
  ];
  for (const path of hidden) write(`in/${path}`);
  write("in/.git/config");
  write("out/d.jpg");
  link("../out", "in/.link");
  expect(find()).toEqual({
    pictures: ["a.jpg", "b.jpg/c.jpg"],
    leftOut: [...hidden, ".link/d.jpg"].map((path) => `hidden ${path}`).sort(),
  });
});

it("a name that is not UTF-8 is named, and does not stop the others", () => {
  write("in/a.jpg");
  writeFileSync(Buffer.concat([Buffer.from(join(folder, "in/caf")), Buffer.from([0xe9]), Buffer.from(".jpg")]), "");
  expect(find()).toEqual({ pictures: ["a.jpg"], leftOut: ["bad-name caf\ufffd.jpg"] });
});

it("a folder that is hidden itself is read, since it was named", () => {
  write(".in/a.jpg");
  expect(find(".in").pictures).toEqual(["a.jpg"]);
});
