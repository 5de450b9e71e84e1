import { full, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { maskHas } from "../detection.js";
import { instances } from "./instances.js";

const SQUARE = { height: 64, width: 64 };
const SIZES = { padded: SQUARE, resized: SQUARE, original: SQUARE };

/** (Q, classes + 1) whose softmax is as given; the rest of a row is "no object". */
function classLogits(rows: number[][]): Tensor {
  const logs = rows.map((row) => [...row, 1 - row.reduce((a, b) => a + b, 0)].map((p) => Math.log(Math.max(p, 1e-12))));
  return tensor(Float32Array.from(logs.flat())).view(rows.length, -1);
}

/** (Q, H, W): `inside` in each query's rectangle of cells of 4 pixels, −4 elsewhere. */
function maskLogits(boxes: number[][], inside: number, { height, width } = SQUARE): Tensor {
  const logits = full([boxes.length, height / 4, width / 4], -4);
  boxes.forEach(([x0, y0, x1, y1], q) => {
    if (x1! > x0!)
      logits
        .select(0, q)
        .narrow(0, y0!, y1! - y0!)
        .narrow(1, x0!, x1! - x0!)
        .fill_(inside);
  });
  return logits;
}

describe("detections of queries", () => {
  const probabilities = [
    [0.6, 0.3],
    [0.05, 0.9],
    [0.2, 0.1],
  ];
  const boxes = [
    [4, 4, 12, 8],
    [0, 0, 16, 16],
    [0, 0, 0, 0],
  ];
  const detect = (options = {}) =>
    scope(() =>
      instances({ classLogits: classLogits(probabilities), maskLogits: maskLogits(boxes, 4) }, SIZES, options),
    );

  it("are all pairs of query and class, best score first, each with the query's mask", () => {
    const found = detect();
    expect(found.map(({ query, classIndex }) => [query, classIndex])).toEqual([
      [1, 1],
      [0, 0],
      [0, 1],
      [1, 0],
      [2, 0],
      [2, 1],
    ]);
    expect(found[1]!.mask).toEqual(found[2]!.mask);
  });

  it("have the score of class probability times the mask's mean probability", () => {
    const whole = detect().find(({ query, classIndex }) => query === 1 && classIndex === 1)!;
    expect(whole.score).toBeCloseTo(0.9 / (1 + Math.exp(-4)), 6);
    expect(whole.box).toEqual([0, 0, 64, 64]);
  });

  it("have the box of the pixels whose logit is above zero, right and bottom one behind the last", () => {
    // Between a cell at 4 and one at −4 logits cross zero halfway, where the cells' edges are.
    const { box, mask } = detect().find(({ query }) => query === 0)!;
    expect(box).toEqual([16, 16, 48, 32]);
    const inside = (x: number, y: number) => maskHas(mask, x, y);
    expect([inside(16, 24), inside(47, 24), inside(32, 16), inside(32, 31)]).toEqual([true, true, true, true]);
    expect([inside(15, 24), inside(48, 24), inside(32, 15), inside(32, 32)]).toEqual([false, false, false, false]);
  });

  it("of an empty mask have score 0 and a box of zeros", () => {
    const empty = detect().filter(({ query }) => query === 2);
    expect(empty.map(({ score, box }) => [score, ...box])).toEqual([
      [0, 0, 0, 0, 0],
      [0, 0, 0, 0, 0],
    ]);
  });

  it("that do not matter are left out, and the others are the same", () => {
    const all = detect();
    expect(detect({ minScore: 0.3 })).toEqual(all.filter(({ score }) => score > 0.3));
    expect(detect({ classes: [1] })).toEqual(all.filter(({ classIndex }) => classIndex === 1));
    // A probability above the bound does not help when the mask brings the score below it.
    const { score, classScore } = all[0]!;
    expect(detect({ minScore: score })).toEqual([]);
    expect(score).toBeLessThan(classScore);
  });

  it("are brought back through padding and resizing to the size of the picture", () => {
    // 300 x 200 → 96 x 64, padded to 96 x 64: cells of 4 pixels are 12.5 of the picture.
    const sizes = {
      padded: { height: 64, width: 96 },
      resized: { height: 64, width: 96 },
      original: { height: 200, width: 300 },
    };
    const [found] = scope(() =>
      instances({ classLogits: classLogits([[0.9]]), maskLogits: maskLogits([[0, 0, 24, 8]], 4, sizes.padded) }, sizes),
    );
    expect(found!.box).toEqual([0, 0, 300, 100]);
    expect(found!.mask.bits.length).toBe(Math.ceil((200 * 300) / 8));
  });

  it("are at most 100, and of logits that are no numbers an error", () => {
    const rows = Array.from({ length: 30 }, () => Array.from({ length: 10 }, () => 0.05));
    const many = {
      classLogits: classLogits(rows),
      maskLogits: maskLogits(
        rows.map(() => [0, 0, 1, 1]),
        4,
      ),
    };
    expect(scope(() => instances(many, SIZES)).length).toBe(100);
    for (const key of ["classLogits", "maskLogits"] as const)
      expect(() => scope(() => instances({ ...many, [key]: many[key].mul(Number.NaN) }, SIZES))).toThrow(/not finite/);
  });
});
