import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { decodeImage } from "../../pictures/decode.js";
import { buildBundledModel } from "./build.js";
import { readFigures } from "./figures.js";

const models = fileURLToPath(new URL("../../../../../models", import.meta.url));
const bundled = join(models, "miro-emoji");
const folder = mkdtempSync(join(tmpdir(), "miro-bundled-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const options = {
  network: bundled,
  before: bundled,
  classifier: join(models, "emoji-classifier"),
  measurements: bundled,
  template: join(models, "miro-emoji.template.md"),
  overwrite: false,
};
const filesOf = (path: string) =>
  readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => statSync(join(path, name)).isFile())
    .sort();

test("the bundled model is what the command makes of it and of its evaluation, its card included", async () => {
  const output = join(folder, "model");
  await buildBundledModel({ ...options, output });
  expect(filesOf(output)).toEqual(filesOf(bundled));
  for (const name of filesOf(bundled))
    expect(readFileSync(join(output, name)).equals(readFileSync(join(bundled, name))), name).toBe(true);
});

test("the curve of the loss is of the logs that are named, whatever they call it", async () => {
  for (const key of ["raw_loss", "train/raw_loss"]) {
    const run = join(folder, key.replace("/", "-"));
    mkdirSync(run);
    writeFileSync(
      join(run, "log.jsonl"),
      [1, 2, 3].map((step) => `${JSON.stringify({ step, [key]: 1 / step })}\n`).join(""),
    );
    const output = join(folder, `with-${key.replace("/", "-")}`);
    await buildBundledModel({ ...options, logs: [run], output });
    const { width } = await decodeImage(readFileSync(join(output, "loss.png")));
    expect(width).toBeGreaterThan(300);
    expect(readFileSync(join(output, "loss.png")).equals(readFileSync(join(bundled, "loss.png")))).toBe(false);
  }
});

test("a card that names a figure that there is not is refused, and nothing is written", async () => {
  const template = join(folder, "card.md");
  writeFileSync(template, "{{plain.top1}} {{plain.top2}}\n");
  const output = join(folder, "none");
  await expect(buildBundledModel({ ...options, template, output })).rejects.toThrow("{{plain.top2}}");
  expect(readdirSync(folder).filter((name) => name.includes("none"))).toEqual([]);
});

test("figures that are none are refused by file and field", () => {
  const text = readFileSync(join(bundled, "evaluation.json"), "utf8");
  writeFileSync(join(folder, "evaluation.json"), text.replace('"top1": 0.', '"top1": 3.'));
  expect(() => readFigures(folder)).toThrow(/evaluation\.json: .*top1/);
});
