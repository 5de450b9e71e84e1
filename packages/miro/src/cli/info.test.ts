import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TarWriter } from "../data/shards/tar-writer.js";
import { readBytes } from "../files/whole-files.js";
import { encodePng, readPng } from "../pictures/png.js";
import { type Captured, runCaptured } from "./testing/run-captured.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-info-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function info(...args: string[]): Promise<Captured> {
  return runCaptured("info", ...args);
}

describe("miro info", () => {
  it("describes a checkpoint", async () => {
    const { code, stdout } = await info(`${tiny}/checkpoint`, "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      rewards: ["clip_score", "aesthetic_score", "image_reward_score"],
      latents: "4 x 8 x 8",
      network: { latentsDim: 64, coherenceDropout: 0 },
      tensors: 202,
      "tensors by module": { network: 194, preconditioning: 4, data_preprocessing: 2, postprocessing: 2 },
      parameters: 601904,
    });
    expect((await info(`${tiny}/checkpoint`)).stdout).toContain("parameters: 601904 (0.6M)\n");
  });

  it("describes text encoders, tensor files and arrays", async () => {
    expect((await info(`${tiny}/text_encoder`)).stdout).toMatch(/d_model: 48\n[\s\S]*tensors: \d+/);
    expect((await info(`${tiny}/vae/diffusion_pytorch_model.safetensors`)).stdout).toMatch(
      /tensors by module:\n[\s\S]*decoder: \d+/,
    );
    expect((await info(`${tiny}/checkpoint/uncond_embedding.npy`)).stdout).toContain("shape: 1, 48\n");
  });

  it("says that a picture of another program holds nothing", async () => {
    const path = join(folder, "a.png");
    writeFileSync(path, encodePng(new Uint8Array(3), 1, 1));
    expect((await info(path)).stdout).toMatch(/\nsettings: none\ntexts: none\n$/);
  });

  it("shows what other programs stored, without sending control characters to the terminal", async () => {
    const path = join(folder, "a.png");
    writeFileSync(
      path,
      encodePng(new Uint8Array(3), 1, 1, [{ keyword: "parameters", text: "a fox\u009b31m \u001b[2Jred\nSteps: 3" }]),
    );
    const { stdout } = await info(path);
    expect(stdout).toContain("parameters: a fox\\x9b31m \\x1b[2Jred\n    Steps: 3");
  });

  it("tells what shards hold, in words and pictures, and draws nothing where there are none", async () => {
    const writer = await TarWriter.create(join(folder, "a.tar"));
    for (const i of [0, 1, 2]) {
      await writer.addSample(`00${i}`, {
        png: encodePng(new Uint8Array(12), 2, 2),
        txt: Buffer.from("a fox"),
        json: Buffer.from(JSON.stringify({ clip_score: i / 2 })),
      });
    }
    await writer.finish();
    const [plot, svg, sheet] = ["plot.png", "plot.svg", "sheet.png"].map((name) => join(folder, name));
    const report = JSON.parse((await info(folder, "--json", "--plot", plot!, "--sheet", sheet!)).stdout);
    expect(report).toMatchObject({ shards: 1, samples: 3, members: { txt: { count: 3, bytes: 15 } } });
    expect(report.fields.clip_score).toMatchObject({ min: 0, max: 1, mean: 0.5 });
    for (const file of [plot!, sheet!]) expect(readPng(readBytes(file), file).width).toBeGreaterThan(100);
    const text = await info(join(folder, "a.tar"), "--plot", svg!);
    expect(text.stdout).toMatch(/3 samples in 1 shard[\s\S]*\n {2}png +3 /);
    expect(readBytes(svg!).toString()).toContain(">clip_score</text>");
    const wrong = await info(`${tiny}/checkpoint`, "--plot", plot!);
    expect(wrong).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: --plot applies to shards only.*\n$/),
    });
  });

  it("refuses in one line what it cannot read", async () => {
    const cut = join(folder, "cut.png");
    writeFileSync(cut, encodePng(new Uint8Array(300), 10, 10));
    truncateSync(cut, 50);
    expect(await info(cut)).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^error: .*cut\.png: not a valid PNG: .* at byte 33\n$/),
    });
    expect(await info(join(folder, "none"))).toEqual({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/^error: .*none: no such file or directory\n$/),
    });
    expect(await info(folder)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/holds no config\.json.*; miro info reads .*shards/),
    });
    writeFileSync(join(folder, "x.txt"), "hello");
    expect(await info(join(folder, "x.txt"))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /x\.txt: expected a PNG, WebP or JPEG picture; miro info reads pictures, checkpoints/,
      ),
    });
  });
});
