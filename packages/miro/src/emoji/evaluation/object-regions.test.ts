import { describe, expect, it } from "vitest";
import type { RgbImage } from "../../pictures/rgb.js";
import { centre, cropOf, divisions, halves, longerEdge, segment } from "./object-regions.js";

const SIDE = 128;
type Rgb = readonly [number, number, number];

/** Discs on a vertical gradient. */
function discs(
  list: readonly { x: number; y: number; radius: number; colour: Rgb }[],
  top: Rgb,
  bottom: Rgb,
): RgbImage {
  const data = new Uint8Array(3 * SIDE * SIDE);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const disc = list.find((d) => Math.hypot(x + 0.5 - d.x, y + 0.5 - d.y) < d.radius);
      for (let c = 0; c < 3; c++)
        data[3 * (y * SIDE + x) + c] = disc?.colour[c] ?? top[c]! + ((bottom[c]! - top[c]!) * (y + 0.5)) / SIDE;
    }
  }
  return { width: SIDE, height: SIDE, data };
}

const RED: Rgb = [220, 40, 40];
const BLUE: Rgb = [40, 60, 220];
const triangle = [
  { x: 64, y: 34, radius: 22, colour: RED },
  { x: 34, y: 94, radius: 22, colour: RED },
  { x: 94, y: 94, radius: 22, colour: RED },
];

describe("segment", () => {
  it("takes a gradient for the background, and what stands out for the foreground", () => {
    const { background, mask } = segment(discs(triangle, [200, 230, 255], [90, 200, 120]));
    expect(Math.abs(background[0]! - 200)).toBeLessThan(2);
    expect(Math.abs(background[3 * (SIDE - 1)]! - 90)).toBeLessThan(2);
    const area = 3 * Math.PI * 22 ** 2;
    expect(mask.reduce((sum, value) => sum + value, 0) / area).toBeCloseTo(1, 1);
  });

  it("is not misled by what touches an edge", () => {
    const image = discs([{ x: 0, y: 64, radius: 6, colour: RED }], [255, 255, 255], [255, 255, 255]);
    expect([...segment(image).background]).toEqual(new Array(3 * SIDE).fill(255));
  });
});

describe("divisions", () => {
  it("parts what is apart", () => {
    const [finest] = divisions(segment(discs(triangle, [255, 255, 255], [255, 255, 255])));
    expect(finest!.regions.map((region) => centre(region).map(Math.round))).toEqual(
      expect.arrayContaining(triangle.map(({ x, y }) => [x, y])),
    );
    expect(finest!.regions).toHaveLength(3);
    for (const region of finest!.regions) expect(Math.abs(longerEdge(region) - 44)).toBeLessThan(2);
  });

  it("has one division for things that touch and one for pieces of a thing", () => {
    const touching = [
      { x: 42, y: 64, radius: 21.8, colour: RED },
      { x: 86, y: 64, radius: 21.8, colour: RED },
    ];
    const numbers = divisions(segment(discs(touching, [255, 255, 255], [240, 240, 240]))).map((d) => d.regions.length);
    expect(numbers).toContain(2);
    expect(numbers).toContain(1);
    const pieces = [
      { x: 50, y: 64, radius: 12, colour: RED },
      { x: 77, y: 64, radius: 12, colour: BLUE },
    ];
    const joined = divisions(segment(discs(pieces, [255, 255, 255], [255, 255, 255]))).at(-1)!;
    expect(joined.regions).toEqual([{ left: 38, top: 52, right: 89, bottom: 76 }]);
  });

  it("has none for an empty picture", () => {
    expect(divisions(segment(discs([], [0, 90, 0], [255, 90, 0])))).toEqual([]);
  });
});

describe("halves and crops", () => {
  it("cut where the least is in the way, and show one object on its background", () => {
    const image = discs(
      [
        { x: 40, y: 64, radius: 24, colour: RED },
        { x: 96, y: 64, radius: 24, colour: BLUE },
      ],
      [255, 255, 255],
      [255, 255, 255],
    );
    const segmented = segment(image);
    const across = halves(segmented, "x")!;
    expect(across.regions.map((region) => Math.round(centre(region)[0]))).toEqual([40, 96]);
    const crop = cropOf(segmented, across, 0, 0.5);
    expect(crop.width).toBe(96);
    const colours = new Set<string>();
    for (let at = 0; at < crop.data.length; at += 3) colours.add([...crop.data.subarray(at, at + 3)].join(" "));
    expect(colours).toEqual(new Set(["255 255 255", RED.join(" ")]));
    expect(halves(segment(discs([], [255, 255, 255], [255, 255, 255])), "y")).toBeNull();
  });
});
