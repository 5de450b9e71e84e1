import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zeros } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, describe, expect, it } from "vitest";
import { checkMemory, scorerBytes } from "./memory.js";
import { scorerSpec } from "./registry.js";

const root = mkdtempSync(join(tmpdir(), "miro-memory-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("scorers", () => {
  const [clip, aesthetic, pick] = ["clip_openai", "aesthetic_score", "pick_a_score_score"].map((key) =>
    scorerSpec(key),
  ) as [ReturnType<typeof scorerSpec>, ReturnType<typeof scorerSpec>, ReturnType<typeof scorerSpec>];
  const float32 = { dtype: "float32" } as const;

  it("take the size of their weights, shared towers once", () => {
    const alone = scorerBytes([clip], float32);
    expect(alone).toBeGreaterThan(4 * 427_616_513);
    expect(scorerBytes([clip, aesthetic], float32)).toBe(alone);
    expect(scorerBytes([clip, pick], float32) - alone).toBe(4 * 986_109_441);
    expect(alone - scorerBytes([clip], { dtype: "bfloat16" })).toBe(2 * 427_616_513);
  });

  it("are measured by the files of a folder that is given", () => {
    const home = mkdtempSync(join(root, "weights-"));
    writeFileSync(join(home, "config.json"), "{}");
    using stored = zeros([3, 5], { dtype: "float16" });
    writeSafetensors(join(home, "model.safetensors"), new Map([["a", stored]]));
    expect(scorerBytes([clip], { ...float32, weights: { clip_openai: home } })).toBe(60);
    expect(scorerBytes([clip, aesthetic], { ...float32, weights: { clip_openai: home } })).toBe(60);
  });

  it("that do not fit are refused with what is needed, what there is and what to do", () => {
    expect(() => checkMemory([pick], float32, 4.5e9)).not.toThrow();
    expect(() => checkMemory([pick], float32, 3e9)).toThrow(
      /^pick_a_score_score: 4\.3 GB of memory are needed, 3\.0 GB are free; take `dtype: "bfloat16"` \(2\.4 GB\)$/,
    );
    expect(() => checkMemory([pick, clip], float32, 1e9)).toThrow(
      /pick_a_score_score, clip_openai: 6\.1 GB .* 1\.0 GB are free; use fewer scorers at a time$/,
    );
    expect(() => checkMemory([pick], float32, 1e9)).toThrow(/free some, or use a machine with more$/);
    const streaming = { ...pick, memory: { ...pick.memory!, streams: true } };
    expect(() => checkMemory([streaming], float32, 1e9)).not.toThrow();
  });
});
