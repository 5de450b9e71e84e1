/**
 * Event files against a recording by TensorBoard's own writer, byte for byte. `MIRO_TENSORBOARD_PYTHON=python3` names a
 * Python that has TensorBoard: then the real reader opens ours as well.
 */
import { spawnSync } from "node:child_process";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { crc32c, EventWriter, frameRecord } from "./tensorboard.js";

const folder = mkdtempSync(join(tmpdir(), "miro-events-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Two pixels, red and blue; from `tests/reference/record_events.py`. */
const PNG = Buffer.from(
  "89504e470d0a1a0a0000000d49484452000000020000000108020000007b40e8dd00000012494441547801010700f8ff00ff00000000ff070001ff5536bac70000000049454e44ae426082",
  "hex",
);
const now = () => 1_700_000_000.25;

function writeReference(folder: string): EventWriter {
  const writer = new EventWriter({ folder, firstStep: 300, now });
  writer.scalars(300, { "train/loss": 0.4123, grad_norm: 1e-3, warning: "not a number", logvar: null });
  writer.scalars(5_000_000_000, { Größe: -2.5 });
  writer.image(301, "samples/a cat", { width: 2, height: 1, encoded: PNG });
  writer.close();
  return writer;
}

describe("event files", () => {
  it("are those of TensorBoard's own writer, byte for byte", () => {
    const { path } = writeReference(join(folder, "a"));
    const recorded = readFileSync(new URL("../fixtures/reference.tfevents", import.meta.url));
    expect(readFileSync(path).equals(recorded)).toBe(true);
  });

  it("of two starts in the same second have different names, in their order", () => {
    const paths = [0, 1].map(() => new EventWriter({ folder: join(folder, "b"), firstStep: 0, now }).path);
    expect(paths[0]! < paths[1]!).toBe(true);
  });

  it("are refused by name where no folder can be made", () => {
    const writer = new EventWriter({ folder: join(folder, "c"), firstStep: 0, now });
    expect(() => new EventWriter({ folder: join(writer.path, "x"), firstStep: 0, now })).toThrow(
      /events\.out\.tfevents.*cannot be created: .*folder/,
    );
    writer.close();
  });

  const python = process.env.MIRO_TENSORBOARD_PYTHON;
  it.runIf(python)(
    "are opened by the real TensorBoard, with a cut file and a later start",
    { timeout: 120_000 },
    () => {
      const runFolder = join(folder, "real");
      const first = new EventWriter({ folder: runFolder, firstStep: 0, now });
      for (let step = 1; step <= 4; step++) first.scalars(step, { "train/loss": step });
      first.close();
      appendFileSync(first.path, frameRecord(Buffer.from("never finished")).subarray(0, 14));
      const second = new EventWriter({ folder: runFolder, firstStep: 3, now: () => now() + 10 });
      second.scalars(3, { "train/loss": 30 });
      second.image(3, "samples/a cat", { width: 2, height: 1, encoded: PNG });
      second.close();
      const program = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], purge_orphaned_data=True)
events.Reload()
image = events.Images("samples/a cat")[0]
print(json.dumps({"loss": [[s.step, s.value] for s in events.Scalars("train/loss")], "image": [image.step, image.width, image.height, image.encoded_image_string.hex()]}))
`;
      const { stdout, stderr, status } = spawnSync(python!, ["-c", program, runFolder], { encoding: "utf8" });
      expect(status, stderr).toBe(0);
      expect(JSON.parse(stdout)).toEqual({
        loss: [
          [1, 1],
          [2, 2],
          [3, 30],
        ],
        image: [3, 2, 1, PNG.toString("hex")],
      });
    },
  );
});

describe("CRC-32C", () => {
  it("has the values of RFC 3720, B.4", () => {
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
    expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i)))).toBe(0x46dd794e);
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
  });
});
