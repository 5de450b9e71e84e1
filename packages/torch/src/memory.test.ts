/** Memory over time: steps inside scopes, loops that forget to free, and what the statistics say. */
import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { call, F, memory, nn, ones, randn, scope, setNumThreads, type Tensor, zeros } from "./index.js";
import { AdamW, clipGradNorm_ } from "./optim/index.js";

// Tiny tensors: waking a second thread costs more than the work.
setNumThreads(1);

test("live bytes and tensors stay constant over 10,000 training steps", { timeout: 240_000 }, () => {
  const model = scope(
    () =>
      new nn.Sequential(
        new nn.Linear(16, 32),
        new nn.LayerNorm(32),
        new nn.Lambda((x) => x.gelu()),
        new nn.Linear(32, 4),
      ),
  );
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 });
  const step = (): void =>
    scope(() => {
      const x = randn([8, 16]);
      const loss = F.mseLoss(model.forward(x), x.narrow(1, 0, 4));
      loss.backward();
      clipGradNorm_(model.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
    });
  for (let i = 0; i < 10; i++) step();
  const before = memory.stats();
  const seen = new Set<number>();
  for (let i = 0; i < 10_000; i++) {
    step();
    if (i % 1000 === 0) seen.add(memory.stats().liveBytes);
  }
  const after = memory.stats();
  expect([...seen]).toEqual([before.liveBytes]);
  expect(after.liveBytes).toBe(before.liveBytes);
  expect(after.liveTensors).toBe(before.liveTensors);
  optimizer.dispose();
  model.dispose();
});

const engine = JSON.stringify(new URL("../dist/index.js", import.meta.url).href);

describe("a synchronous loop that forgets what it makes stays below 1 GiB", () => {
  const loops: [string, string][] = [
    // One value a page is written: enough to make the memory resident.
    ["100,000 tensors of 1 MB", "for (let i = 0; i < 100_000; i++) empty([256, 1024]).select(1, 0).fill_(1);"],
    [
      "5,000 results of operations",
      "let x = ones([2 ** 18]); for (let i = 0; i < 5000; i++) x = x.add(1); if (x.amax().item() !== 5001) throw 1;",
    ],
    [
      "5,000 results of 1 MB that leave a scope",
      "for (let i = 0; i < 5000; i++) scope(() => empty([256, 1024]).select(1, 0).fill_(1));",
    ],
    [
      "2,000 layers of 1 MB made in scopes",
      "for (let i = 0; i < 2000; i++) scope(() => void new nn.Linear(512, 512));",
    ],
    ["500,000 generators", "for (let i = 0; i < 500_000; i++) new Generator().manualSeed(i);"],
    ["500,000 views of one tensor", "const x = ones([4]); for (let i = 0; i < 500_000; i++) x.narrow(0, 0, 2);"],
    [
      "3,000 graphs of 1 MB and their gradients",
      "const w = ones([2 ** 16]).requiresGrad_(); for (let i = 0; i < 3000; i++) { w.mul(2).exp().sum().backward(); w.grad = null; }",
    ],
  ];
  test.each(loops)("%s", { timeout: 180_000 }, (_, loop) => {
    const program = `
      import { empty, Generator, nn, ones, scope, setNumThreads } from ${engine};
      setNumThreads(1);
      ${loop}
      console.log(process.resourceUsage().maxRSS);`;
    const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      encoding: "utf8",
    });
    expect(status, stderr).toBe(0);
    expect(Number(stdout) / 2 ** 20).toBeLessThan(1);
  });
});

test("sizes of terabytes are refused or given, up to the last class of sizes", () => {
  const program = `import { empty } from ${engine};
    for (let eighth = 1; eighth <= 8; eighth++) {
      try { empty([2 ** 41 + eighth * 2 ** 38 - 1], { dtype: "uint8" }).dispose(); console.log("given"); }
      catch (error) { console.log(error.message); }
    }`;
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    timeout: 50_000, // it hung
  });
  expect([status, signal], stderr).toEqual([0, null]);
  const lines = stdout.trim().split("\n");
  expect(lines.length).toBe(8);
  for (const line of lines) expect(line).toMatch(/^given$|not enough memory: you tried to allocate/);
});

describe("statistics", () => {
  test("count bytes while they live, and the peak", () => {
    const before = memory.stats();
    const x = zeros([2 ** 20]);
    const during = memory.stats();
    // A power of two fits its size class: nothing but a header on top.
    expect(during.liveBytes - before.liveBytes).toBe(4 * 2 ** 20 + 64);
    expect(during.liveTensors - before.liveTensors).toBe(1);
    const view = x.narrow(0, 0, 1);
    expect(memory.stats().liveBytes).toBe(during.liveBytes);
    x.dispose();
    expect(memory.stats().liveBytes).toBe(during.liveBytes);
    view.dispose();
    const after = memory.stats();
    expect(after.liveBytes).toBe(before.liveBytes);
    expect(after.peakBytes).toBeGreaterThanOrEqual(during.liveBytes);
  });

  test("an empty cache holds nothing, and later allocations are still right", () => {
    for (let i = 1; i < 20; i++) ones([i * 10_000]).dispose();
    memory.emptyCache();
    expect(memory.stats().cachedBytes).toBe(0);
    expect(scope(() => ones([123_456]).sum().item())).toBe(123_456);
  });

  test("a reused block never shows what it held, and never has two owners", () => {
    scope(() => {
      const owners: Tensor[] = [];
      for (let i = 0; i < 200; i++) {
        const size = 1000 + ((i * 7919) % 5000);
        owners.push(zeros([size]).add_(i));
        if (i % 3 === 0) owners.splice(0, 1)[0]!.dispose();
      }
      for (const t of owners) expect(t.amin().item()).toBe(t.amax().item());
      expect(call("aten::zeros", [5000]).abs().sum().item()).toBe(0);
    });
  });
});
