/**
 * Python's clients of OpenAI and of the web UI, unchanged, against a studio of small random weights.
 * MIRO_CLIENTS_PYTHON names a Python that has the packages `openai` and `webuiapi`; without one the tests say so and
 * are left out.
 */
import { execFile, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Studio } from "../../packages/miro/src/studio/server/studio.js";

const python = process.env.MIRO_CLIENTS_PYTHON ?? "python3";
const has = (name: string) => spawnSync(python, ["-c", `import ${name}`]).status === 0;
const tiny = fileURLToPath(new URL("../reference/fixtures/tiny", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "miro-clients-"));
const models = ["one", "two"].map((name) => join(folder, name));
let studio: Studio;

const missing = ["openai", "webuiapi"].filter((name) => !has(name));
if (missing.length > 0)
  console.warn(`left out: ${python} has no ${missing.join(", ")}; MIRO_CLIENTS_PYTHON names one that has`);

beforeAll(async () => {
  for (const model of models) {
    cpSync(`${tiny}/checkpoint`, model, { recursive: true });
    for (const part of ["text_encoder", "vae"]) cpSync(`${tiny}/${part}`, join(model, part), { recursive: true });
  }
  studio = await Studio.start({ models, port: 0, output: join(folder, "pictures"), dtype: "float32" });
});
afterAll(async () => {
  await studio.close();
  rmSync(folder, { recursive: true, force: true });
});

async function run(script: string, ...args: string[]): Promise<any> {
  const file = fileURLToPath(new URL(script, import.meta.url));
  const { stdout } = await promisify(execFile)(python, [file, ...args], { timeout: 60_000 });
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

describe("Python's clients", () => {
  it.skipIf(missing.includes("openai"))("openai draws, streams, edits and is refused by name", async () => {
    const [side] = studio.engine.card(undefined)!.size;
    const seen = await run("openai_images.py", studio.url, `${side}`);
    expect(seen).toMatchObject({ models, seeds: [3, 4], pictures: Array(3).fill("89504e47") });
    expect(seen.total[0]).toBe(seen.total[1]);
    expect(seen.types).toEqual([
      ...["image_generation.partial_image", "image_generation.partial_image"],
      "image_generation.completed",
    ]);
    expect(seen.refused).toEqual([400, "size", "invalid_request_error"]);
  });

  it.skipIf(missing.includes("webuiapi"))("webuiapi draws, edits, sees progress, interrupts and chooses", async () => {
    const [side] = studio.engine.card(undefined)!.size;
    const seen = await run("webui.py", new URL(studio.url).port, `${side}`, models[1]!);
    expect(seen).toMatchObject({ seeds: [3, 4], denoising_strength: 0.5, interrupted: true, model: models[1] });
    expect(seen.sizes).toEqual(Array(4).fill([side, side]));
    expect(seen.png_info).toBe(seen.infotext);
    expect(seen.samplers).toContain("Euler");
    expect(seen.schedulers).toContain("automatic");
    expect(seen.progress).toBeGreaterThan(0);
  });
});
