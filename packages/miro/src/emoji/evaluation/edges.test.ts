import { describe, expect, it } from "vitest";
import type { RgbImage } from "../../pictures/rgb.js";
import { EdgeMeter } from "./edges.js";

const SIDE = 128;

/** A grey picture, from 0 to 1 by place. */
function picture(at: (x: number, y: number) => number): RgbImage {
  const data = new Uint8Array(3 * SIDE * SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) data.fill(255 * at(i % SIDE, Math.floor(i / SIDE)), 3 * i, 3 * i + 3);
  return { width: SIDE, height: SIDE, data };
}

function measured(...images: RgbImage[]) {
  const meter = new EdgeMeter();
  for (const image of images) meter.see(image);
  return meter.measures;
}

/** A disc with a soft edge, that touches no border of cells. */
const disc = (x: number, y: number) => Math.min(Math.max(44.5 - Math.hypot(x - 61.2, y - 65.7), 0), 1);
/** The same in squares of a colour. */
const inCells = (side: number) => (x: number, y: number) => {
  const middle = (v: number) => Math.floor(v / side) * side + side / 2;
  return disc(middle(x), middle(y));
};

describe("visible cells", () => {
  it("are what steps at their borders alone make, whatever their size", () => {
    const smooth = measured(picture(disc));
    for (const ratio of Object.values(smooth.borders)) expect(Math.abs(ratio - 1)).toBeLessThan(0.5);
    const ramp = measured(picture((x, y) => (x + y) / 256)).borders;
    for (const ratio of Object.values(ramp)) expect(Math.abs(ratio - 1)).toBeLessThan(0.05);
    // No step elsewhere.
    expect(measured(picture(inCells(8))).borders[8]).toBe(Number.POSITIVE_INFINITY);
    expect(measured(picture(inCells(16))).borders[16]).toBe(Number.POSITIVE_INFINITY);
    const mixed = measured(picture((x, y) => 0.5 * disc(x, y) + 0.5 * inCells(16)(x, y))).borders;
    expect(mixed[16]).toBeGreaterThan(5);
    expect(mixed[16]).toBeGreaterThan(mixed[8]);
    expect(mixed[16]).toBeGreaterThan(mixed[32]);
  });

  it("have outlines whose directions do not agree", () => {
    const [smooth, stairs] = [measured(picture(disc)), measured(picture(inCells(8)))];
    expect(smooth.coherence).toBeGreaterThan(0.9);
    expect(stairs.coherence).toBeLessThan(0.6);
    expect(stairs.sharpness).toBeGreaterThan(smooth.sharpness);
  });

  it("are measured over all pictures alike, and not at all where there is nothing to see", () => {
    const [one, two] = [picture(disc), picture(inCells(8))];
    const both = measured(one, two);
    expect(both.pictures).toBe(2);
    expect(both.coherence).toBeCloseTo(measured(two, one).coherence, 10);
    const flat = measured(picture(() => 0.5));
    expect([flat.coherence, flat.borders[8]]).toEqual([Number.NaN, Number.NaN]);
    expect(flat.sharpness).toBeLessThan(1e-9);
  });
});
