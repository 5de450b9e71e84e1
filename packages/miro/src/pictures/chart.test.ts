import { describe, expect, it } from "vitest";
import { Chart, ticks } from "./chart.js";

describe("Chart", () => {
  it("has the same shapes in its SVG and in its pixels", async () => {
    const drawing = new Chart(60, 40);
    drawing.rectangle(10, 5, 20, 30, "#ff0000");
    drawing.line(
      [
        [0, 38],
        [60, 38],
      ],
      "#0000ff",
      2,
    );
    const { data, width, height } = await drawing.toImage();
    expect([width, height]).toEqual([60, 40]);
    const pixel = (x: number, y: number) => [...data.subarray(3 * (y * 60 + x), 3 * (y * 60 + x) + 3)];
    expect([pixel(9, 20), pixel(10, 20), pixel(29, 20), pixel(30, 20)]).toEqual([
      [255, 255, 255],
      [255, 0, 0],
      [255, 0, 0],
      [255, 255, 255],
    ]);
    expect(pixel(50, 38)).toEqual([0, 0, 255]);
    expect(drawing.toSvg()).toContain('<rect x="10" y="5" width="20" height="30" fill="#ff0000"/>');
  });

  it("breaks lines where there is no value", () => {
    const drawing = new Chart(10, 10);
    drawing.line(
      [
        [0, 0],
        [1, 1],
        [2, Number.NaN],
        [3, 3],
        [4, 4],
      ],
      "#000000",
    );
    expect(drawing.toSvg()).toContain('d="M0 0 L1 1 M3 3 L4 4"');
  });

  it("takes words as words, in the SVG as in the picture", async () => {
    const drawing = new Chart(80, 20);
    drawing.words("a<b>&c", 40, 10, { size: 12, align: "centre" });
    expect(drawing.toSvg()).toContain("a&lt;b&gt;&amp;c");
    const { data } = await drawing.toImage();
    expect(data.some((value) => value < 100)).toBe(true);
  });
});

describe("ticks", () => {
  it("gives round numbers inside the range, about as many as asked for", () => {
    expect(ticks(0, 1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticks(-3, 12, 3)).toEqual([0, 5, 10]);
    expect(ticks(0.31, 0.38, 4)).toEqual([0.32, 0.34, 0.36, 0.38]);
    expect(ticks(5, 5, 4)).toEqual([5]);
    expect(ticks(0.001, 0.001 + 2 ** -62, 4)).toEqual([0.001]); // differ by rounding alone
  });
});
