/**
 * The kernels for GPUs of native/src/row_kernels.cu.hpp, run on the CPU, where each of their threads is a thread: their
 * values against ATen's operators, and that they write nowhere else. Whether a GPU gives the same is for
 * `npm run check:device`.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DType, manualSeed, nn, randn, scope, type Tensor, tensor } from "../index.js";

const F = nn.functional;
const native = fileURLToPath(new URL("../../native/", import.meta.url));
const THREADS = 64;
const BLOCKS = 3;
const EPS = 1e-6;
const CODES = { float32: 0, bfloat16: 1, float16: 2 } as const;
type Code = keyof typeof CODES;
/** Of what a rounding to the dtype changes at most. */
const TOLERANCE = { float32: 2e-6, bfloat16: 1e-2, float16: 2e-3 } as const;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "miro-row-kernels-"));
  const [, ...lines] = readFileSync(path.join(native, "src", "row_kernels.cu.hpp"), "utf8").split("\n");
  writeFileSync(path.join(folder, "kernels.hpp"), lines.slice(0, lines.lastIndexOf(')CUDA"')).join("\n"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Compiles the kernels for these macros and runs them; `tensors` and what they give as bytes, by name. */
function run(
  name: string,
  macros: Record<string, number>,
  numbers: readonly number[],
  tensors: Record<string, Uint8Array>,
): (name: string) => Uint8Array {
  const own = path.join(folder, name);
  mkdirSync(own);
  const defines = Object.entries({ THREADS, ...macros }).map(([macro, value]) => `-D${macro}=${value}`);
  const kernels = `-DKERNELS="${path.join(folder, "kernels.hpp")}"`;
  const source = fileURLToPath(new URL("../testing/run_row_kernels.cpp", import.meta.url));
  const program = path.join(own, "run");
  execFileSync("c++", ["-std=gnu++20", "-O1", "-pthread", "-w", ...defines, kernels, source, "-o", program]);
  writeFileSync(path.join(own, "arguments"), numbers.join(" "));
  for (const [tensor, bytes] of Object.entries(tensors)) writeFileSync(path.join(own, tensor), bytes);
  execFileSync(program, [own]);
  return (made) => readFileSync(path.join(own, made));
}

const bytesOf = (t: Tensor) => t.detach().contiguous().viewDtype("uint8").data() as Uint8Array;
const tensorOf = (bytes: Uint8Array, dtype: DType, shape: number[]) =>
  tensor(new Uint8Array(bytes)).viewDtype(dtype).view(shape);

/** The largest difference, of the largest magnitude that is wanted. */
function difference(got: Tensor, want: Tensor): number {
  const wide = want.detach().double();
  return got.double().sub(wide).abs().max().item() / Math.max(1, wide.abs().max().item());
}

describe.each<{ input: Code; output: Code; weights: Code; width: number; centered: boolean }>([
  { input: "bfloat16", output: "bfloat16", weights: "bfloat16", width: 32, centered: true },
  { input: "float16", output: "float16", weights: "float32", width: 64, centered: true },
  { input: "float32", output: "float32", weights: "float32", width: 8, centered: true },
  { input: "float32", output: "bfloat16", weights: "float32", width: 512, centered: false },
])("the norm of $input rows of $width to $output, weights in $weights, centered: $centered", (one) => {
  const { input, output, weights, width, centered } = one;
  test("gives ATen's values and gradients, from rows that do not lie side by side", () => {
    scope(() => {
      manualSeed(5);
      // As queries lie in the product that gives queries, keys and values; their gradient comes by heads.
      const [B, Q, H] = [3, 7, 5];
      const packed = randn([B, Q, 3, H, width]).mul(3).add(2).to(input);
      const byHead = randn([B, H, Q, width]).to(output);
      const [weight, bias] = [randn([width]).to(weights), randn([width]).to(weights)];
      const x = packed.select(2, 1);
      const gradient = byHead.transpose(1, 2);

      const lanes = Math.min(32, width / 8);
      const rowsOf = ([b, q, h]: readonly number[]) => [b!, q!, h!, Q, H];
      const made = run(
        `norm-${input}-${width}`,
        {
          IN: CODES[input],
          OUT: CODES[output],
          LANES: lanes,
          CHUNKS: width / 8 / lanes,
          CENTERED: Number(centered),
          WEIGHT: CODES[weights],
        },
        [BLOCKS, B * Q * H, EPS, ...rowsOf(x.strides), ...rowsOf(gradient.strides)],
        {
          x: bytesOf(packed).subarray(bytesOf(packed.select(2, 0).select(0, 0).select(0, 0)).length),
          gradient: bytesOf(byHead),
          weight: bytesOf(weight),
          bias: bytesOf(bias),
        },
      );

      const leaves = [x, weight, bias].map((t) => t.double().requiresGrad_()) as [Tensor, Tensor, Tensor];
      const [x64, w64, b64] = leaves;
      const want = centered ? F.layerNorm(x64, [width], w64, b64, EPS) : F.rmsNorm(x64, [width], w64, EPS);
      want.backward(gradient.double());

      const shape = [B, Q, H, width];
      expect(difference(tensorOf(made("y"), output, shape), want)).toBeLessThan(TOLERANCE[output]);
      expect(difference(tensorOf(made("ofInput"), input, shape), x64.grad!)).toBeLessThan(TOLERANCE[input]);
      const sums = tensorOf(made("partial"), "float32", [BLOCKS, centered ? 2 : 1, width]).sum(0);
      expect(difference(sums.select(0, 0), w64.grad!)).toBeLessThan(1e-5);
      if (centered) expect(difference(sums.select(0, 1), b64.grad!)).toBeLessThan(1e-5);
    });
  });
});

test.each<Code>(["float32", "bfloat16", "float16"])(
  "SwiGLU in %s gives the values and gradients of ATen's operators, but for the last bit of the exponential",
  (dtype) => {
    scope(() => {
      manualSeed(6);
      const [rows, width] = [19, 24];
      const x = randn([rows, 2 * width])
        .mul(3)
        .to(dtype);
      const gradient = randn([rows, width]).to(dtype);
      const made = run(
        `gate-${dtype}`,
        { IN: CODES[dtype], OUT: CODES[dtype] },
        [BLOCKS, width / 8, (rows * width) / 8],
        { x: bytesOf(x), gradient: bytesOf(gradient) },
      );
      const leaf = x.clone().requiresGrad_();
      const want = F.swiGlu(leaf);
      want.backward(gradient);
      const y = tensorOf(made("y"), dtype, [rows, width]);
      expect(difference(y, want)).toBeLessThan(TOLERANCE[dtype] / 2);
      expect(difference(tensorOf(made("ofInput"), dtype, [rows, 2 * width]), leaf.grad!)).toBeLessThan(
        TOLERANCE[dtype] / 2,
      );
    });
  },
);
