import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { aten, empty, ones, scope, type Tensor, TorchError } from "../index.js";
import { ROW_STATUS, readRows } from "./index.js";

let folder: string;
let path: string;
const content = Buffer.from(Uint8Array.from({ length: 100_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff));
const open: number[] = [];
beforeAll(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "rows-"));
  path = join(folder, "content");
  fs.writeFileSync(path, content);
});
afterAll(() => {
  for (const descriptor of open) fs.closeSync(descriptor);
  fs.rmSync(folder, { recursive: true, force: true });
});

function opened(file = path): { descriptor: number; sizeBytes: number; mtimeUs: number } {
  const descriptor = fs.openSync(file, "r");
  open.push(descriptor);
  const { size, mtimeMs } = fs.fstatSync(descriptor);
  return { descriptor, sizeBytes: size, mtimeUs: Math.round(mtimeMs * 1000) };
}
function read(target: Tensor, file: ReturnType<typeof opened>, rows: readonly (readonly [number, number])[], flag = 0) {
  return readRows(target, {
    descriptors: Int32Array.from(rows, () => file.descriptor),
    places: Float64Array.from(rows.flatMap(([offset, length]) => [offset, length, file.sizeBytes, file.mtimeUs])),
    cancelled: Int32Array.of(flag),
  });
}
const bytesOf = (t: Tensor): Buffer => scope(() => Buffer.from((t.view(-1).data() as Uint8Array).slice()));

describe("readRows", () => {
  test("puts each row's bytes in its place and zeros behind them", async () => {
    const file = opened();
    const row = fc.tuple(fc.nat(content.length - 5000), fc.nat(3000));
    await fc.assert(
      fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 12 }), async (rows) => {
        const target = ones([rows.length, 3000], { dtype: "uint8" });
        const status = await read(target, file, rows);
        expect([...status]).toEqual(rows.map(() => ROW_STATUS.read));
        const bytes = bytesOf(target);
        for (const [i, [offset, length]] of rows.entries()) {
          const row = bytes.subarray(i * 3000, (i + 1) * 3000);
          expect(row.subarray(0, length).equals(content.subarray(offset, offset + length))).toBe(true);
          expect(row.subarray(length).every((byte) => byte === 0)).toBe(true);
        }
        target.dispose();
      }),
      { numRuns: 50 },
    );
  });

  test("tells rows behind the end, files that cannot be read, and files that have changed; such rows are zero", async () => {
    const file = opened();
    const target = ones([2, 100], { dtype: "uint8" });
    expect([
      ...(await read(target, file, [
        [content.length - 50, 100],
        [0, 100],
      ])),
    ]).toEqual([ROW_STATUS.short, ROW_STATUS.read]);
    expect(
      bytesOf(target)
        .subarray(0, 100)
        .every((byte) => byte === 0),
    ).toBe(true);
    const stale = { ...file, mtimeUs: file.mtimeUs - 5 };
    expect([
      ...(await read(target, stale, [
        [0, 1],
        [0, 1],
      ])),
    ]).toEqual([ROW_STATUS.changed, ROW_STATUS.changed]);
    expect(bytesOf(target).every((byte) => byte === 0)).toBe(true);
    expect([
      ...(await read(target, { ...file, descriptor: -1 }, [
        [0, 1],
        [0, 1],
      ])),
    ]).toEqual([ROW_STATUS.failed, ROW_STATUS.failed]);
  });

  test("a file cut short or written to under our feet is noticed, and the process lives on", async () => {
    const changing = join(folder, "changing");
    fs.writeFileSync(changing, content);
    const file = opened(changing);
    const target = ones([1, 1000], { dtype: "uint8" });
    expect([...(await read(target, file, [[50_000, 1000]]))]).toEqual([ROW_STATUS.read]);
    fs.truncateSync(changing, 10_000);
    expect([...(await read(target, file, [[50_000, 1000]]))]).toEqual([ROW_STATUS.short]);
    expect([...(await read(target, file, [[0, 1000]]))]).toEqual([ROW_STATUS.changed]);
  });

  test("stops when cancelled", async () => {
    const target = ones([2, 10], { dtype: "uint8" });
    expect([
      ...(await read(
        target,
        opened(),
        [
          [0, 10],
          [0, 10],
        ],
        1,
      )),
    ]).toEqual([ROW_STATUS.skipped, ROW_STATUS.skipped]);
  });

  test("keeps the tensor's memory while it reads", async () => {
    const file = opened();
    const pending = Array.from({ length: 20 }, () => {
      const target = empty([50, 2000], { dtype: "uint8" });
      const result = read(
        target,
        file,
        Array.from({ length: 50 }, (_, i) => [i * 10, 2000] as const),
      );
      target.dispose();
      return result;
    });
    for (const status of await Promise.all(pending)) expect([...status].every((s) => s === ROW_STATUS.read)).toBe(true);
  });

  test("refuses arguments that do not fit", () => {
    const file = opened();
    const target = ones([2, 10], { dtype: "uint8" });
    expect(() => read(target, file, [[0, 1]])).toThrow(TorchError);
    const zero = scope(() => aten._efficientzerotensor([1, 10], "uint8"));
    expect(() => read(zero, file, [[0, 1]])).toThrow(/the target must be .* with memory of its own/);
    expect(() =>
      read(target, file, [
        [0, 11],
        [0, 1],
      ]),
    ).toThrow(/at most 10 bytes/);
    expect(() =>
      read(target, file, [
        [-1, 1],
        [0, 1],
      ]),
    ).toThrow(/offset/);
    expect(() =>
      read(target, file, [
        [Number.NaN, 1],
        [0, 1],
      ]),
    ).toThrow(/offset/);
    expect(() =>
      read(target.t(), file, [
        [0, 1],
        [0, 1],
      ]),
    ).toThrow(/contiguous/);
  });
});
