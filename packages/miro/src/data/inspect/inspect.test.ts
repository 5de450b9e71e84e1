import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, tensor } from "@miro-t2i/torch";
import { writeNpy } from "@miro-t2i/torch/io";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readBytes } from "../../files/whole-files.js";
import { TarWriter } from "../shards/tar-writer.js";
import { histogramChart, histogramLine } from "./histogram-chart.js";
import { reportShards } from "./shard-report.js";
import { shardSheet } from "./shard-sheet.js";

const folder = mkdtempSync(join(tmpdir(), "miro-inspect-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SCORES = [0, 0.25, 0.5, 0.5, 1, Number.NaN];

beforeAll(async () => {
  for (const [shard, name] of ["a.tar", "b.tar"].entries()) {
    const writer = await TarWriter.create(join(folder, name));
    for (let i = 0; i < 3; i++) {
      const index = 3 * shard + i;
      const shade = { r: 40 * index, g: 20, b: 90 };
      const jpg = await sharp({ create: { width: 32, height: 24, channels: 3, background: shade } })
        .jpeg()
        .toBuffer();
      const npy = join(folder, "t.npy");
      scope(() => writeNpy(npy, tensor(new Float32Array((index + 1) * 4), { shape: [index + 1, 4] })));
      const score = SCORES[index]!;
      await writer.addSample(`00${index}`, {
        jpg,
        txt: Buffer.from(`caption ${index} <b>`),
        json: Buffer.from(JSON.stringify({ width: 32, ...(Number.isNaN(score) ? {} : { clip_score: score }) })),
        "text.npy": readBytes(npy),
      });
    }
    await writer.finish();
  }
});

describe("reportShards", () => {
  it("counts what a tar program counts, with shapes, extremes and histograms", async () => {
    const report = await reportShards([join(folder, "a.tar"), join(folder, "b.tar")], { bins: 4 });
    expect(report).toMatchObject({ shards: 2, samples: 6, problemCount: 0 });
    expect(Object.fromEntries(Object.entries(report.members).map(([name, { count }]) => [name, count]))).toEqual({
      jpg: 6,
      json: 6,
      "text.npy": 6,
      txt: 6,
    });
    expect(report.members["text.npy"]!.arrays).toEqual({
      dtype: "float32",
      shape: "n x 4",
      lengths: { min: 1, mean: 3.5, max: 6 },
    });
    expect(report.fields.clip_score).toMatchObject({ count: 5, missing: 1, min: 0, max: 1, mean: 0.45 });
    expect(report.fields.clip_score!.histogram).toEqual([1, 1, 2, 1]);
    expect(report.fields.width!.histogram.reduce((sum, n) => sum + n, 0)).toBe(6);
  });

  it("reports a damaged shard and goes on with the others", async () => {
    const damaged = join(folder, "damaged.tar");
    writeFileSync(damaged, readBytes(join(folder, "a.tar")));
    truncateSync(damaged, 1000);
    const report = await reportShards([damaged, join(folder, "b.tar")]);
    expect(report.problemCount).toBeGreaterThan(0);
    expect(report.problems[0]).toContain("damaged.tar");
    expect(report.members.txt!.count).toBeGreaterThanOrEqual(3);
  });
});

describe("pictures of shards", () => {
  it("marks the fullest bin of a histogram with a full block and empty bins with none", () => {
    expect(histogramLine([0, 1, 4, 8])).toBe(" ▁▄█");
  });

  it("draws a panel for each field, the bars as high as their counts", async () => {
    const { fields } = await reportShards(join(folder, "a.tar"), { bins: 4 });
    const image = await histogramChart(fields).toImage();
    const bars = image.data.filter((value, i) => i % 3 === 0 && value === 0x4a && image.data[i + 2] === 0xd0).length;
    expect(bars).toBeGreaterThan(1000);
    const one = await histogramChart({ clip_score: fields.clip_score! }).toImage();
    expect(image.width).toBe(2 * one.width);
  });

  it("names the scores of every scorer below the pictures of a sheet, and no other number", async () => {
    const jpg = await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
      .jpeg()
      .toBuffer();
    const heightWith = async (name: string, metadata: object) => {
      const writer = await TarWriter.create(join(folder, name));
      const json = Buffer.from(JSON.stringify(metadata));
      await writer.addSample("0", { jpg, txt: Buffer.from("a caption"), json });
      await writer.finish();
      return (await shardSheet(join(folder, name), { columns: 1 })).height;
    };
    const none = await heightWith("none.tar", {});
    expect(await heightWith("width.tar", { width: 8 })).toBe(none);
    expect(await heightWith("clip.tar", { clip_openai: 0.3 })).toBeGreaterThan(none);
    expect(await heightWith("own.tar", { watermark_score: 0.3 })).toBeGreaterThan(none);
  });

  it("puts samples from all shards on a sheet, in order", async () => {
    const sheet = await shardSheet([join(folder, "a.tar"), join(folder, "b.tar")], {
      count: 6,
      columns: 6,
      cellSize: 64,
    });
    // The red of the pictures, which rises by 40, along their middle.
    const found: number[] = [];
    for (let x = 0; x < sheet.width; x++) {
      for (let y = 0; y < sheet.height; y++) {
        const at = 3 * (y * sheet.width + x);
        const [r, g, b] = [sheet.data[at]!, sheet.data[at + 1]!, sheet.data[at + 2]!];
        if (Math.abs(g - 20) < 4 && Math.abs(b - 90) < 4) found.push(Math.round(r / 40));
      }
    }
    expect([...new Set(found)]).toEqual([0, 1, 2, 3, 4, 5]);
    await expect(shardSheet(join(folder, "a.tar"), { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
  });
});
