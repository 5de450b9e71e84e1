/** What control groups leave of a machine, on file systems made up for it; and what the engine makes of it. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { availableMemory, cpuCacheBytes, memoryLimit, processors } from "./limits.js";
import { addonPath } from "./native.js";

const root = mkdtempSync(join(tmpdir(), "miro-limits-"));
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

const nowhere = join(root, "nowhere");
const unlimited = system("unlimited", {
  "proc/self/cgroup": "0::/a\n",
  "sys/fs/cgroup/a/memory.max": "max\n",
  "sys/fs/cgroup/a/memory.current": "123\n",
});
const second = system("second", {
  "proc/self/cgroup": "0::/job/step\n",
  "sys/fs/cgroup/job/memory.max": "4000000000\n",
  "sys/fs/cgroup/job/memory.current": "3500000000\n",
  "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 1000000000\nactive_file 500000000\n",
  "sys/fs/cgroup/job/cpu.max": "250000 100000\n",
  "sys/fs/cgroup/job/step/memory.max": "max\n",
  "sys/fs/cgroup/job/step/memory.current": "1\n",
  "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
});
const first = system("first", {
  "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/box\n0::/\n",
  "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "20000\n",
  "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "50000\n",
  "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
  "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
  "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "3000000000\n",
  "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "2000000000\n",
  "sys/fs/cgroup/memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 500000000\ntotal_active_file 0\n",
  "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
  "sys/fs/cgroup/memory/memory.usage_in_bytes": "2000000000\n",
});
// A container sees its own group at the top, whatever path the machine knows it by.
const container = system("container", {
  "proc/self/cgroup": "4:memory:/docker/0123\n",
  "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000\n",
  "sys/fs/cgroup/memory/memory.usage_in_bytes": "400000000\n",
});

describe("available memory", () => {
  it("is what the machine has free where no control group limits it", () => {
    expect(availableMemory(nowhere, 7e9)).toBe(7e9);
    expect(availableMemory(unlimited, 7e9)).toBe(7e9);
    expect(availableMemory()).toBeGreaterThan(1e6);
  });

  it("is what the tightest control group leaves, file pages counted as free", () => {
    expect(availableMemory(second, 9e9)).toBe(2e9);
    expect(availableMemory(second, 1e9)).toBe(1e9);
    expect(availableMemory(first, 9e9)).toBe(1.5e9);
    expect(availableMemory(container, 9e9)).toBe(6e8);
  });
});

it("the memory of a process is that of the machine within its control groups", () => {
  expect([nowhere, unlimited, second, first, container].map((system) => memoryLimit(system, 8e9))).toEqual([
    8e9, 8e9, 4e9, 3e9, 1e9,
  ]);
  expect(memoryLimit(second, 2e9)).toBe(2e9);
  expect(memoryLimit()).toBeLessThanOrEqual(totalmem());
});

it("the processors of a process are those whose time its control groups give, rounded up", () => {
  expect([nowhere, unlimited, second, first, container].map((system) => processors(system, 8))).toEqual([
    8, 8, 3, 1, 8,
  ]);
  expect(processors(second, 2)).toBe(2);
  expect(processors()).toBeGreaterThanOrEqual(1);
});

it("an operation uses no more threads than there are processors, unless OMP_NUM_THREADS says how many", () => {
  const printed = (source: string, OMP_NUM_THREADS: string) => {
    const options = { env: { ...process.env, OMP_NUM_THREADS }, cwd: import.meta.dirname, encoding: "utf8" } as const;
    return spawnSync(process.execPath, ["--input-type=module", "-e", source], options).stdout;
  };
  const numThreads = `
    import { getNumThreads } from "@miro-t2i/torch";
    console.log(getNumThreads());`;
  expect(Number(printed(numThreads, ""))).toBeLessThanOrEqual(processors());
  expect(Number(printed(numThreads, "1"))).toBe(1);
  const addon = `
    import { createRequire } from "node:module";
    const { setup, getNumThreads, setNumThreads } = createRequire(import.meta.url)(${JSON.stringify(addonPath())});
    setup(Error, new Int32Array(4), 0, 1); // by who comes first
    const own = getNumThreads();
    setNumThreads(2);
    setup(Error, new Int32Array(4), 0, 1);
    console.log(own, getNumThreads());`;
  expect(printed(addon, "")).toBe("1 2\n");
});

describe("freed memory of tensors", () => {
  it("is kept up to a quarter of what the process can have, or as a variable says", () => {
    for (const MIRO_CPU_CACHE_BYTES of [undefined, ""])
      expect(cpuCacheBytes({ MIRO_CPU_CACHE_BYTES })).toBe(Math.floor(memoryLimit() / 4));
    expect(cpuCacheBytes({ MIRO_CPU_CACHE_BYTES: "1000000" })).toBe(1e6);
    for (const MIRO_CPU_CACHE_BYTES of ["1G", "-1", "0.5"])
      expect(() => cpuCacheBytes({ MIRO_CPU_CACHE_BYTES })).toThrow(
        `MIRO_CPU_CACHE_BYTES: expected a number of bytes, found "${MIRO_CPU_CACHE_BYTES}"`,
      );
  });

  it("is given back beyond that", () => {
    const program = `
      import { memory, zeros } from "@miro-t2i/torch";
      for (const bytes of [1e6, 2e6, 3e6, 4e6]) zeros([bytes / 4]).dispose();
      console.log(memory.stats().cachedBytes);`;
    const cached = (bytes: number) => {
      const env = { ...process.env, MIRO_CPU_CACHE_BYTES: String(bytes) };
      const cwd = import.meta.dirname;
      return Number(spawnSync(process.execPath, ["--input-type=module", "-e", program], { env, cwd }).stdout);
    };
    expect(cached(0)).toBe(0);
    expect(cached(5e6)).toBeGreaterThan(3e6);
    expect(cached(5e6)).toBeLessThanOrEqual(5e6);
    expect(cached(1e9)).toBeGreaterThan(1e7);
  });
});
