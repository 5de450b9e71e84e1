import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zeros } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, describe, expect, it } from "vitest";
import { availableMemory, checkMemory, scorerBytes } from "./memory.js";
import { scorerSpec } from "./registry.js";

const root = mkdtempSync(join(tmpdir(), "miro-memory-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A file system with control groups. */
function system(name: string, files: Record<string, string>): string {
  const home = join(root, name);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(home, path, ".."), { recursive: true });
    writeFileSync(join(home, path), text);
  }
  return home;
}

describe("available memory", () => {
  it("is what the machine has free where no control group limits it", () => {
    expect(availableMemory(join(root, "nowhere"), 7e9)).toBe(7e9);
    const unlimited = system("unlimited", {
      "proc/self/cgroup": "0::/a\n",
      "sys/fs/cgroup/a/memory.max": "max\n",
      "sys/fs/cgroup/a/memory.current": "123\n",
    });
    expect(availableMemory(unlimited, 7e9)).toBe(7e9);
    expect(availableMemory()).toBeGreaterThan(1e6);
  });

  it("is what the tightest control group leaves, file pages counted as free", () => {
    const second = system("second", {
      "proc/self/cgroup": "0::/job/step\n",
      "sys/fs/cgroup/job/memory.max": "4000000000\n",
      "sys/fs/cgroup/job/memory.current": "3500000000\n",
      "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 1000000000\nactive_file 500000000\n",
      "sys/fs/cgroup/job/step/memory.max": "max\n",
      "sys/fs/cgroup/job/step/memory.current": "1\n",
    });
    expect(availableMemory(second, 9e9)).toBe(2e9);
    expect(availableMemory(second, 1e9)).toBe(1e9);
    const first = system("first", {
      "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/box\n0::/\n",
      "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "3000000000\n",
      "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "2000000000\n",
      "sys/fs/cgroup/memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 500000000\ntotal_active_file 0\n",
    });
    expect(availableMemory(first, 9e9)).toBe(1.5e9);
  });
});

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
    const home = system("weights", { "config.json": "{}" });
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
