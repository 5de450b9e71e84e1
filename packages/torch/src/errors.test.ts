import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { aten, call, memory, nn, ones, randn, scope, type Tensor, TorchError, tensor, zeros } from "./index.js";

/** The TorchError that a function throws. */
function failure(run: () => unknown): string {
  try {
    scope(() => void run());
  } catch (error) {
    expect(error).toBeInstanceOf(TorchError);
    expect((error as Error).name).toBe("TorchError");
    const { message } = error as Error;
    expect(message.split("\n").length, message).toBe(1);
    return message;
  }
  throw new Error("nothing was thrown");
}

describe("wrong arguments are refused before the call, by operator and argument", () => {
  const x = (): Tensor => ones([2, 2]);
  const cases: [string, () => unknown, string[]][] = [
    ["a string for a tensor", () => call("aten::add.Tensor", x(), "y"), ["aten::add.Tensor", "other"]],
    ["nothing for a tensor", () => call("aten::matmul", x(), null), ["aten::matmul", "other"]],
    ["a number for a tensor", () => aten.matmul(x(), 3 as unknown as Tensor), ["aten::matmul", "other"]],
    ["a missing argument", () => call("aten::matmul", x()), ["aten::matmul", "other"]],
    ["too many arguments", () => call("aten::relu", x(), 1, 2, 3), ["aten::relu"]],
    ["a fraction for an integer", () => call("aten::select.int", x(), 0.5, 0), ["aten::select.int", "dim"]],
    ["a string for a list of integers", () => call("aten::view", x(), "4"), ["aten::view", "size"]],
    ["a fraction in a list of integers", () => call("aten::view", x(), [1.5]), ["aten::view", "size"]],
    ["a tensor for a number", () => call("aten::layer_norm", x(), [2], null, null, x()), ["aten::layer_norm", "eps"]],
    ["an object for a flag", () => call("aten::sum.dim_IntList", x(), [0], {}), ["aten::sum.dim_IntList", "keepdim"]],
    ["a tensor inside a wrong list", () => call("aten::cat", [x(), 1], 0), ["aten::cat", "tensors"]],
    ["an unknown dtype", () => x().to("float31" as never), ["float31"]],
    ["an unknown device", () => zeros([1], { device: "gpu" }), ["gpu"]],
    [
      "a freed tensor",
      () => {
        const t = x();
        t.dispose();
        return x().add(t);
      },
      ["aten::add.Tensor", "other"],
    ],
    ["an operator that is not there", () => call("aten::no_such_operator", x()), ["no_such_operator"]],
    ["an overload that is not there", () => call("aten::add.Nothing", x()), ["add.Nothing"]],
  ];
  test.each(cases)("%s", (_, run, parts) => {
    const message = failure(run);
    for (const part of parts) expect(message).toContain(part);
  });
});

describe("libtorch's own errors name operator and shapes in one line", () => {
  const cases: [string, () => unknown, string[]][] = [
    ["matmul", () => ones([2, 3]).matmul(ones([4, 5])), ["matmul", "[2, 3]", "[4, 5]"]],
    ["add", () => ones([2, 3]).add(ones([4])), ["add", "[2, 3]", "[4]"]],
    ["view", () => ones([2, 3]).view(5), ["view", "[2, 3]"]],
    ["cat", () => call("aten::cat", [ones([2, 3]), ones([3, 2])], 0), ["cat", "[2, 3]", "[3, 2]"]],
    [
      "linear",
      () =>
        scope(() => {
          const l = new nn.Linear(3, 2);
          try {
            return l.forward(ones([1, 4]));
          } finally {
            l.dispose();
          }
        }),
      ["linear", "[1, 4]", "[2, 3]"],
    ],
    ["embedding", () => aten.embedding(ones([2, 3]), tensor([7n])), ["embedding", "[2, 3]"]],
    ["item of many", () => ones([2]).item(), ["item"]],
    ["in place on a leaf", () => ones([2]).requiresGrad_().add_(1), ["add_"]],
    ["mixed dtypes", () => ones([2, 2]).matmul(ones([2, 2], { dtype: "float64" })), ["matmul"]],
    ["more memory than there is", () => zeros([2 ** 40, 2 ** 10]), ["zeros"]],
    ["a size that overflows", () => zeros([2 ** 40, 2 ** 40]), ["zeros"]],
  ];
  test.each(cases)("%s", (_, run, parts) => {
    const message = failure(run);
    for (const part of parts) expect(message).toContain(part);
    expect(message).not.toMatch(/frame #|\.cpp:\d+|Exception raised from/);
  });
});

test("failing calls leak nothing", () => {
  const before = memory.stats();
  for (let i = 0; i < 200; i++) failure(() => randn([50, 50]).matmul(randn([40, 40])));
  const after = memory.stats();
  expect(after.liveTensors).toBe(before.liveTensors);
  expect(after.liveBytes).toBe(before.liveBytes);
});

test("an uncaught engine error ends a process as any JavaScript error does, not by a signal", () => {
  const program = `import { ones } from ${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)}; ones([2, 3]).matmul(ones([2, 3]));`;
  const { status, signal, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  expect([status, signal]).toEqual([1, null]);
  expect(stderr).toContain("TorchError: aten::matmul");
});

test("random arguments to every public operator end in a result or a TorchError", { timeout: 180_000 }, () => {
  const program = fileURLToPath(new URL("../dist/testing/fuzz-operators.js", import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program, "7", "4"], { encoding: "utf8" });
  expect([status, signal], stderr.slice(-2000)).toEqual([0, null]);
  const { returned, refused, others } = JSON.parse(stdout) as { returned: number; refused: number; others: string[] };
  expect(others).toEqual([]);
  expect(returned).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(1000);
});
