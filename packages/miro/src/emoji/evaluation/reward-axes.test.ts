import { expect, it } from "vitest";
import { rewardAxis, rewardChart } from "./reward-axes.js";

it("says whether a measure rises, and how far it falls on the way", () => {
  expect(rewardAxis("sharpness", [1, 2, 2, 3, 5])).toMatchObject({ rises: true, monotone: true, largestFall: 0 });
  const dented = rewardAxis("sharpness", [1, 4, 3, 5, 4]);
  expect(dented).toMatchObject({ rises: true, monotone: false });
  expect(dented.largestFall).toBeCloseTo(1 / 4, 12);
  expect(rewardAxis("sharpness", [2, 2, 2, 2, 2])).toMatchObject({ rises: false, monotone: true, largestFall: 0 });
});

it("draws a panel for each reward, with its measure and targets in words", async () => {
  const axes = {
    sharpness: rewardAxis("sharpness", [1, 2, 3, 4, 5]),
    clip_score: rewardAxis("clip_score", [0, 0, 0, 0, 0]),
  };
  const chart = rewardChart(axes);
  const svg = chart.toSvg();
  for (const words of ["sharpness", "Laplacian energy", "clip_score", "0.75"]) expect(svg).toContain(words);
  expect(svg).not.toContain("NaN");
  const image = await chart.toImage();
  expect([image.width, image.height]).toEqual([chart.width, chart.height]);
});
