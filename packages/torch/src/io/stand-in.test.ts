import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readNpy } from "./npy.js";
import { readSafetensors } from "./safetensors.js";
import { TorchCheckpoint } from "./torch-checkpoint.js";

const POINTER = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 1442000000\n`;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-stand-in-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each([
  ["model.safetensors", (path: string) => readSafetensors(path)],
  ["uncond.npy", (path: string) => readNpy(path)],
  ["model.ckpt", (path: string) => TorchCheckpoint.open(path)],
])("in place of %s", (name, read) => {
  it.each([
    [POINTER, "a Git LFS pointer, not the file of 1442000000 bytes that it stands for; run `git lfs pull`"],
    [POINTER.replaceAll("\n", "\r\n"), "a Git LFS pointer, not the file"],
    [POINTER.slice(0, 50), "a Git LFS pointer, not the file that it stands for"],
    ["<!DOCTYPE html>\n<html>", "a web page, not the file"],
    ["\uFEFF\n  <HTML><head>", "a web page, not the file"],
    ['<?xml version="1.0"?><Error><Code>AccessDenied', "a web page, not the file"],
    ["Entry not found", "an error message of a server"],
    ['{"error":"Invalid credentials"}', "an error message of a server"],
  ])("%j is said in words", (text, words) => {
    const path = join(folder, name);
    writeFileSync(path, text);
    expect(() => read(path)).toThrow(`${path}, byte 0: ${words}`);
  });
});
