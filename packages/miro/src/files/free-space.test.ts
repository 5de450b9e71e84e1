import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { freeBytes } from "./free-space.js";

it("is that of the disk on which a folder will be made", () => {
  expect(freeBytes(join(tmpdir(), "not", "yet", "there"))).toBeGreaterThan(0);
});

it.skipIf(!existsSync("/proc/self"))("is not known of a file system that has no size: that is not a full one", () => {
  expect(freeBytes("/proc")).toBeNull();
});
