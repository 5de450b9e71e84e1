import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import {
  arange,
  aten,
  autocast,
  backward,
  call,
  eye,
  F,
  Generator,
  grad,
  isAutocastEnabled,
  memory,
  nn,
  ones,
  randn,
  receive,
  scope,
  share,
  type Tensor,
  TorchError,
  tensor,
  zeros,
  zerosLike,
} from "./index.js";
import { native } from "./native.js";
import { AdamW, clipGradNorm_, GradScaler, Lamb } from "./optim/index.js";

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
    ["a number as it was written", () => zeros(3 as never), ["size", "the number 3"]],
    ["a number of many digits", () => zeros([1e300]), ["size", "the number 1e+300"]],
    ["no name of an operator", () => call(3 as never), ["call: expected an operator's name, got 3"]],
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

describe("a misspelt name is refused, not left out in silence", () => {
  const x = (): Tensor => ones([1, 1, 4, 4]);
  const w = (): Tensor => ones([2]).requiresGrad_();
  const cases: [string, (options: never) => unknown][] = [
    ["tensor", (o) => tensor([1], o)],
    ["zeros", (o) => zeros([1], o)],
    ["randn", (o) => randn([1], o)],
    ["arange", (o) => arange(3, o)],
    ["eye", (o) => eye(3, o)],
    ["zerosLike", (o) => zerosLike(x(), o)],
    ["to", (o) => x().to(o)],
    ["backward", (o) => w().sum().backward(undefined, o)],
    ["grad", (o) => grad([w().sum()], [w()], o)],
    ["autocast", (o) => autocast(o, () => 1)],
    ["conv2d", (o) => F.conv2d(x(), ones([1, 1, 2, 2]), null, o)],
    ["mseLoss", (o) => F.mseLoss(x(), x(), o)],
    ["interpolate", (o) => F.interpolate(x(), o)],
    ["Linear", (o) => new nn.Linear(2, 2, o)],
    ["Conv2d", (o) => new nn.Conv2d(1, 1, 2, o)],
    ["LayerNorm", (o) => new nn.LayerNorm(2, o)],
    ["truncNormal_", (o) => nn.init.truncNormal_(x(), o)],
    ["xavierUniform_", (o) => nn.init.xavierUniform_(x(), o)],
    ["kaimingNormal_", (o) => nn.init.kaimingNormal_(x(), o)],
    ["Embedding", (o) => new nn.Embedding(2, 2, o)],
    ["Linear.to", (o) => new nn.Linear(2, 2).to(o)],
    ["loadStateDict", (o) => new nn.Linear(2, 2).loadStateDict({}, o)],
    ["GradScaler", (o) => new GradScaler(o)],
    ["AdamW", (o) => new AdamW([w()], o)],
    ["AdamW", (o) => new AdamW([{ params: [w()], ...(o as object) }])],
    ["Lamb", (o) => new Lamb([w()], o)],
  ];
  test.each(cases)("%s", (name, run) => {
    expect(failure(() => run({ weight_decay: 1 } as never))).toMatch(
      new RegExp(`^${name}: there is no option 'weight_decay'; expected `),
    );
  });

  test("nor is what is no object taken for options, no Module for a layer, or no Tensor for a parameter", () => {
    expect(failure(() => new nn.Linear(2, 2).to("float16" as never))).toMatch(/^Linear\.to: expected an object with/);
    expect(failure(() => new nn.Sequential(F.relu as never))).toMatch(/^Sequential: 0 is no Module, .*new nn\.Lambda/);
    expect(failure(() => clipGradNorm_([5] as never, 1))).toMatch(/item 0 is none/);
    expect(failure(() => clipGradNorm_(new nn.Linear(2, 2) as never, 1))).toMatch(/such as model\.parameters\(\)/);
    expect(failure(() => grad(5 as never, w()))).toMatch(/^grad: expected a Tensor or a list of them, got 5$/);
    expect(failure(() => zeros([1], 3 as never))).toBe(
      "zeros: expected an object with dtype, device, requiresGrad, got 3",
    );
    expect(failure(() => new nn.Linear(2, 2, false as never))).toMatch(/^Linear: expected an object with .*got false$/);
  });

  test("and so are names of modes and kinds", () => {
    const any = (value: unknown): never => value as never;
    expect(failure(() => F.mseLoss(x(), x(), { reduction: any("avg") }))).toMatch(/none, mean, sum, got avg/);
    expect(failure(() => F.interpolate(x(), { size: 2, mode: any("linear") }))).toMatch(/no mode linear/);
    expect(failure(() => new nn.Conv2d(1, 1, any([3, 3, 3])))).toMatch(
      /^Conv2d: kernel: .*\[vertical, horizontal\], got \[3,3,3\]/,
    );
    expect(failure(() => x().to(any("cuda:1")))).toMatch(/expected \{ device: "cuda:1" \}/);
  });

  test("and so is what is no tensor, size, dimension or message, by the function that it was given to", () => {
    const any = (value: unknown): never => value as never;
    const cases: [string, () => unknown][] = [
      ["tensor: shape must be a list of sizes, got 4", () => tensor(new Uint8Array(4), { shape: any(4) })],
      ["tensor: shape must hold whole numbers from 0, got [-1,4]", () => tensor([1], { shape: [-1, 4] })],
      ["tensor: data must be numbers, bigints or booleans, got null", () => tensor(any([1, null]))],
      ["size(0.5): the tensor has 2 dimensions", () => w().view(1, 2).size(0.5)],
      [
        "backward: gradient: expected a Tensor or null, got an array",
        () =>
          w()
            .mul(2)
            .backward(any([1, 1])),
      ],
      ["backward: gradients: expected a Tensor or null, got 1", () => backward(w().mul(2), any(1))],
      ["grad: gradOutputs: expected a Tensor or null, got 1", () => grad(w().mul(2), w(), { gradOutputs: any([1]) })],
      [
        "grad: expected a Tensor or null, got undefined",
        () => {
          w().grad = any(undefined);
        },
      ],
      ["swiGlu: expected a Tensor, got 3", () => F.swiGlu(any(3))],
      ["fusedRmsNorm: expected a Tensor, got null", () => F.fusedRmsNorm(x(), any(null), 1)],
      ["interpolate: expected a Tensor, got an array", () => F.interpolate(any([1]), { size: 2 })],
      ["share: expected a Tensor, got an instance of Map", () => share(any(new Map()))],
      ["receive: expected a message of share, got null", () => receive(any(null))],
      ["scaledDotProductAttention: give isCausal or a mask, not both", () => attention(x())],
      ["GroupNorm: groups must divide 4 channels, got 3", () => new nn.GroupNorm(3, 4)],
    ];
    const attention = (q: Tensor) => F.scaledDotProductAttention(q, q, q, { mask: ones([4, 4]), isCausal: true });
    for (const [said, run] of cases) expect(failure(run)).toBe(said);
  });

  test("a tensor of a dtype that JavaScript has no arrays for says which one it is", () => {
    scope(() => {
      const spectrum = aten.fft_fft(ones([4]));
      expect(String(spectrum)).toBe("Tensor(complex64, [4])");
      expect(failure(() => spectrum.toList())).toMatch(/complex64; aten\.view_as_real gives both parts$/);
    });
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

describe("what stands for a member of an enumeration is checked before libtorch uses it as an index", () => {
  const x = (): Tensor => ones([2, 3]);
  const any = (value: unknown): never => value as never;
  const codes = [-1, 8, 12, 45, 99, 255, 256, 2 ** 31, 2 ** 40, -(2 ** 40), 0.5, Number.NaN, 5n];
  const cases: [string, (value: unknown) => unknown, readonly unknown[]][] = [
    ["dtype must be", (v) => aten.view_dtype(x(), any(v)), codes],
    ["argument 'dtype'", (v) => call("aten::view.dtype", x(), v), codes],
    ["dtype must be", (v) => aten.full_like(x(), 1, any(v)), codes],
    ["argument 'dtype'", (v) => call("aten::full_like", x(), 1, v), codes],
    ["argument 'dtype'", (v) => call("aten::zeros", [2], v), codes],
    ["argument 'dtype'", (v) => call("aten::to.dtype", x(), v), codes],
    ["argument 'dtype'", (v) => call("aten::sum", x(), v), ["float31", "", "Float32", "quint8", "bits8", ...codes]],
    ["argument 'layout'", (v) => aten.zeros([2], "float32", any(v)), ["sparse", "Strided", "", 1, 2, ...codes]],
    ["argument 'memory_format'", (v) => aten.clone(x(), any(v)), ["x", "", 4, ...codes]],
    [
      "argument 'memory_format'",
      (v) => aten.empty_memory_format([2], "float32", null, null, null, any(v)),
      ["", 4, ...codes],
    ],
    ["argument 'device'", (v) => aten.zeros([2], "float32", "strided", any(v)), [0, true, {}, []]],
    ["argument 'reduction'", (v) => aten.mse_loss(x(), x(), any(v)), [3, ...codes]],
    ["argument 'reduction'", (v) => aten.binary_cross_entropy(x(), x(), null, any(v)), [3, ...codes]],
    [
      "argument 'interpolation_mode'",
      (v) => aten.grid_sampler(ones([1, 1, 2, 2]), zeros([1, 2, 2, 2]), any(v), 0, false),
      [3, ...codes],
    ],
    [
      "argument 'padding_mode'",
      (v) => aten.grid_sampler(ones([1, 1, 2, 2]), zeros([1, 2, 2, 2]), 0, any(v), false),
      [3, ...codes],
    ],
    ["argument 'normalization'", (v) => aten._fft_r2c(x(), [0], any(v), true), [3, ...codes]],
  ];
  const flat = cases.flatMap(([said, run, values]) => values.map((value) => [said, run, value] as const));
  test.each(flat)("%s", (said, run, value) => {
    expect(
      failure(() => run(value)),
      String(value),
    ).toContain(said);
  });

  test.each([
    ..."xla,mkldnn,vulkan,privateuseone,cpu:1,cpu:-1,cuda:,cuda:-1,cuda:x,cuda:99,cuda:256,cuda:4294967296,cuda:0x0,CPU, ,".split(
      ",",
    ),
  ])("the device %j is refused by name", (device) => {
    expect(failure(() => zeros([2], { device }))).toContain(`'${device}' is no device`);
    expect(failure(() => new Generator(device))).toContain(`'${device}' is no device`);
  });

  test("what is in range works, by name and by number", () => {
    scope(() => {
      expect(call("aten::view.dtype", x(), 3).dtype).toBe("int32");
      expect(aten.full_like(x(), 1, "int64").dtype).toBe("int64");
      expect(aten.clone(ones([1, 2, 2, 2]), any(2)).isContiguous).toBe(false);
      expect(aten.zeros([2], "float32", any(0), "cpu").shape).toEqual([2]);
      expect([0, 1, 2].map((r) => aten.mse_loss(x(), zeros([2, 3]), r).shape)).toEqual([[2, 3], [], []]);
    });
  });

  test("autocast takes floating dtypes on the devices that have it", () => {
    const inside = (device: string, dtype: string) => () => autocast({ device, dtype: any(dtype) }, () => 1);
    expect(failure(inside("xla", "bfloat16"))).toContain("'xla'");
    expect(failure(inside("cpu", "int64"))).toContain("floating");
    expect(failure(inside("cpu", "float31"))).toContain("float31");
    expect(failure(() => autocast({ device: "cpu", dtype: "bfloat16", cache: any(1) }, () => 1))).toContain("cache");
    expect(isAutocastEnabled()).toBe(false);
    expect(inside("cpu", "bfloat16")()).toBe(1);
  });
});

describe("numbers are taken exactly or refused", () => {
  const x = (): Tensor => ones([2, 3]);
  const any = (value: unknown): never => value as never;
  test.each([Number.NaN, Number.POSITIVE_INFINITY, 0.5, 2 ** 60, 2n ** 63n, -(2n ** 63n) - 1n, "1", null, true])(
    "an integer: %s",
    (value) => {
      expect(failure(() => aten.select_int(x(), any(value), 0))).toContain("dim");
      expect(failure(() => aten.view(x(), any([value])))).toContain("size");
    },
  );

  test("bigints of 64 bits arrive whole", () => {
    scope(() => {
      const largest = 2n ** 63n - 1n;
      expect(aten.scalar_tensor(largest, "int64").data()).toEqual(BigInt64Array.of(largest));
      expect(aten.full([1], -(2n ** 63n), "int64").data()).toEqual(BigInt64Array.of(-(2n ** 63n)));
    });
    expect(failure(() => aten.full([1], 2n ** 63n, "int64"))).toContain("full");
  });

  test("a list that a signature fixes in length has that length; one value stands for all", () => {
    const gradient = (mask: unknown) =>
      aten.convolution_backward(
        ones([1, 1, 2, 2]),
        ones([1, 1, 3, 3]),
        ones([1, 1, 2, 2]),
        [1],
        [1, 1],
        [0, 0],
        [1, 1],
        false,
        [0, 0],
        1,
        any(mask),
      );
    for (const mask of [[], [true], [true, true, true, true]])
      expect(failure(() => gradient(mask))).toContain("argument 'output_mask'");
    scope(() => expect(gradient(true).length).toBe(3));
  });

  test("a number is never taken for a tensor, whatever its value", () => {
    scope(() => {
      const t = x();
      for (const value of [t.handle, t.handle + 0.5, t.handle + 2 ** 32, -1, 0])
        expect(
          failure(() => aten.relu(any(value))),
          String(value),
        ).toContain("self");
      for (const value of [t.handle + 0.5, t.handle * 2 ** 40, Number.NaN])
        expect(() => native.shape(value), String(value)).toThrow("a Tensor is expected");
      for (const value of [t.handle + 2 ** 32, t.handle + 2 ** 22, 2 ** 53, -(2 ** 53)])
        expect(() => native.shape(value), String(value)).toThrow("this tensor was freed");
      for (const value of [t.handle + 0.5, t.handle * 2 ** 40, Number.NaN])
        expect(() => native.backward([value], [], false, false), String(value)).toThrow("tensors must hold tensors");
    });
  });

  test("dtype codes of host data are checked", () => {
    for (const code of [-1, 8, 12, 99, 2 ** 31])
      expect(() => native.fromHost(new Uint8Array(4), [4], code)).toThrow(`no dtype of code ${code}`);
  });

  test("data that reading the shape takes away is not read any more", () => {
    const data = Float64Array.of(1, 2, 3, 4);
    const shape = Object.defineProperty([2, 2], 0, {
      get: () => {
        if (data.length > 0) structuredClone(data.buffer, { transfer: [data.buffer] });
        return 2;
      },
    });
    expect(() => native.fromHost(data, shape, 7)).toThrow("shape and dtype need 32 bytes, got 0");
  });

  test("gradients of nothing are refused", () => {
    expect(() => native.backward([0], [], false, false)).toThrow(TorchError);
    expect(() => native.grad([0], [0], [], false, false, true)).toThrow(TorchError);
    for (const nothing of [Float64Array.of(0), Float64Array.of(Number.NaN)])
      expect(() => native.clearGradients(nothing)).toThrow(TorchError);
  });

  test("an array takes no memory for items that it does not have", () => {
    const hollow: number[] = [];
    hollow.length = 2 ** 27; // a GiB as integers of 64 bits
    const before = process.resourceUsage().maxRSS;
    expect(() => native.fromHost(new Float32Array(1), hollow, 6)).toThrow("shape must be an integer");
    expect(() => native.backward(hollow, [], false, false)).toThrow("tensors must hold tensors");
    expect(process.resourceUsage().maxRSS - before).toBeLessThan(2 ** 19); // KiB
  });

  test("values that a tensor only promises are read as they are: negated, conjugated, zero without memory", () => {
    scope(() => {
      const t = tensor([1, -2, 3]);
      expect(Array.from(aten._neg_view(t).data() as Float32Array)).toEqual([-1, 2, -3]);
      expect(Array.from(aten._efficientzerotensor([3], "float32").data() as Float32Array)).toEqual([0, 0, 0]);
      const imaginary = aten.imag(aten.conj(aten.complex(t, t)));
      expect(Array.from(imaginary.data() as Float32Array)).toEqual([-1, 2, -3]);
    });
  });
});

describe("memory that there is not is an error that names the call", () => {
  const huge = 2 ** 50;
  test.each([
    ["tensor_split", () => aten.tensor_split_sections(ones([4]), huge)],
    ["zeros", () => zeros([huge])],
    ["repeat", () => aten.repeat(ones([2]), [huge])],
    ["fromHost", () => native.fromHost(new Uint8Array(4), [huge], 0)],
  ])("%s", (name, run) => {
    const message = failure(run);
    expect(message).toContain(name);
    expect(message).not.toContain("std::");
  });

  test("a process that runs out of address space says so and goes on", () => {
    const program = `
      import { aten, ones, scope, zeros } from ${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)};
      const messages = [];
      for (const run of [() => zeros([2 ** 31]), () => aten.tensor_split_sections(ones([4]), 2 ** 31), () => ones([2 ** 20, 2 ** 11])])
        try { scope(() => void run()); } catch (error) { messages.push(error.name + ": " + error.message); }
      console.log(JSON.stringify([...messages, ones([3]).sum().item()]));`;
    const command = `ulimit -v ${4 * 2 ** 20}; exec "$0" --input-type=module -e "$1"`;
    const { status, signal, stdout, stderr } = spawnSync("sh", ["-c", command, process.execPath, program], {
      encoding: "utf8",
      env: { ...process.env, OMP_NUM_THREADS: "1" },
    });
    expect([status, signal], stderr).toEqual([0, null]);
    const [zerosSaid, splitSaid, onesSaid, sum] = JSON.parse(stdout);
    expect(zerosSaid).toMatch(/^TorchError: aten::zeros: not enough memory/);
    expect(splitSaid).toMatch(/^TorchError: aten::tensor_split.sections: not enough memory/);
    expect(onesSaid).toMatch(/^TorchError: aten::ones: not enough memory/);
    expect(sum).toBe(3);
  });
});
