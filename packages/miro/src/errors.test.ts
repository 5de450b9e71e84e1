/** What is refused is told in words, by the system or by this package. */
import { mkdtempSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { zeros } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import { invalid, isOutOfMemory, systemReason } from "./errors.js";
import { message } from "./message.js";

const folder = mkdtempSync(join(tmpdir(), "miro-errors-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return systemReason(error);
  }
  throw new Error("nothing was refused");
}

it("names, links and folders that cannot be opened", () => {
  const file = join(folder, "file");
  const circle = join(folder, "circle");
  writeFileSync(file, "");
  symlinkSync(circle, circle);
  expect(refusal(() => readFileSync(join(folder, "none")))).toBe("no such file or directory");
  expect(refusal(() => readFileSync(folder))).toBe("it is a folder");
  expect(refusal(() => readFileSync(join(file, "a")))).toBe("a part of its path is not a folder");
  expect(refusal(() => readFileSync(join(folder, "n".repeat(300))))).toBe("the name is too long");
  expect(refusal(() => readFileSync(circle))).toBe("a symbolic link in its path leads in a circle");
});

it("a folder that was removed under the command", () => {
  const before = process.cwd();
  const gone = mkdtempSync(join(folder, "gone-"));
  process.chdir(gone);
  rmdirSync(gone);
  try {
    expect(refusal(() => process.cwd())).toMatch(/^the folder that the command was started in is gone/);
  } finally {
    process.chdir(before);
  }
});

it("a refused value is quoted as it came, what describes one is not", () => {
  expect(invalid("mask", "a file", "none")).toMatchObject({ message: 'mask: expected a file, received "none"' });
  const described = invalid("mask", "an image with it", message`none`);
  expect(described).toMatchObject({ message: "mask: expected an image with it, received none", received: "none" });
});

describe("missing memory", () => {
  it("is what a CPU says when it has not enough", () => {
    let said: Error | null = null;
    try {
      zeros([2 ** 46]).dispose();
    } catch (error) {
      said = error as Error;
    }
    expect(said).toSatisfy(isOutOfMemory);
  });

  it.each([
    [true, "aten::add.Tensor: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.2 GiB"],
    [true, "aten::mm: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"],
    [true, "aten::conv2d: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"],
    [false, "aten::add.Tensor: CUDA error: an illegal memory access was encountered"],
    [false, "aten::mm: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"],
  ])("%s for a GPU's: %s", (expected, said) => {
    expect(isOutOfMemory(new Error(said))).toBe(expected);
  });
});

it("what Node and loggers print of an error has its message once", () => {
  const error = invalid("steps", "an integer", "many");
  expect(error.wording.parameter).toBe("steps");
  expect(Object.keys(error)).toEqual(expect.arrayContaining(["exitCode", "parameter", "expected", "received"]));
  expect(Object.keys(error)).not.toContain("wording");
  expect(inspect(error)).not.toContain("parts");
});
