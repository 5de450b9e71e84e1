/**
 * The operator table: every line of tests/reference/ops.table.jsonl on every device and dtype against values recorded
 * from PyTorch, its gradient against finite differences, and the Tensor methods and functional layers against the same
 * values.
 *
 * To add an operator, add a line to the table and run `python tests/reference/record_ops.py`.
 */
import { describe, expect, test } from "vitest";
import {
  aten,
  cat,
  cuda,
  type DType,
  einsum,
  F,
  outer,
  scope,
  setNumThreads,
  stack,
  type Tensor,
  tensor,
  where,
} from "./index.js";
import { gradientMismatches, mismatch, outputsOf, valueMismatch } from "./testing/op-conformance.js";
import { type Case, DTYPES, makeArguments, type Recorded, recorded, table } from "./testing/op-table.js";

function expectClose(got: Tensor[], want: Recorded["outputs"], dtype: DType): void {
  expect(mismatch(got, want, dtype)).toBeNull();
}

// Tiny tensors: waking a second thread costs more than the work.
setNumThreads(1);

const devices = ["cpu", ...(cuda.isAvailable() ? ["cuda"] : [])];

test("the recorded values belong to the table", () => {
  expect(recorded.map((entry) => entry.case)).toEqual(table);
});

describe.each(devices)("on %s", (device) => {
  describe.each(table.map((line, i) => [`${i + 1}: ${line}`, JSON.parse(line) as Case, i] as const))(
    "%s",
    (_, spec, i) => {
      test.each(DTYPES[spec.dtypes ?? "float"]!)("values in %s", (dtype) => {
        expect(valueMismatch(spec, recorded[i]!, dtype, device)).toBeNull();
      });

      if (spec.grad !== 0) {
        test("gradient against finite differences", () => expect(gradientMismatches(spec, device)).toEqual([]));
      }
    },
  );
});

/**
 * Methods and functions over the same operators: line of the table (by operator and position among its lines) → call.
 */
const METHODS: Record<string, (...t: Tensor[]) => Tensor | Tensor[]> = {
  "aten::add.Tensor 1": (a, b) => a!.add(b!),
  "aten::add.Tensor 2": (a, b) => a!.add(b!, 0.5),
  "aten::add.Scalar 1": (a) => a!.add(1.5),
  "aten::sub.Tensor 1": (a, b) => a!.sub(b!),
  "aten::mul.Tensor 1": (a, b) => a!.mul(b!),
  "aten::div.Tensor 1": (a, b) => a!.div(b!),
  "aten::pow.Tensor_Scalar 1": (a) => a!.pow(3),
  "aten::pow.Tensor_Scalar 2": (a) => a!.pow(1.5),
  "aten::pow.Tensor_Tensor 1": (a, b) => a!.pow(b!),
  "aten::remainder.Scalar 1": (a) => a!.remainder(0.75),
  "aten::maximum 1": (a, b) => a!.maximum(b!),
  "aten::minimum 1": (a, b) => a!.minimum(b!),
  "aten::neg 1": (a) => a!.neg(),
  "aten::abs 1": (a) => a!.abs(),
  "aten::sign 1": (a) => a!.sign(),
  "aten::square 1": (a) => a!.square(),
  "aten::sqrt 1": (a) => a!.sqrt(),
  "aten::rsqrt 1": (a) => a!.rsqrt(),
  "aten::reciprocal 1": (a) => a!.reciprocal(),
  "aten::exp 1": (a) => a!.exp(),
  "aten::expm1 1": (a) => a!.expm1(),
  "aten::log 1": (a) => a!.log(),
  "aten::log1p 1": (a) => a!.log1p(),
  "aten::sin 1": (a) => a!.sin(),
  "aten::cos 1": (a) => a!.cos(),
  "aten::tanh 1": (a) => a!.tanh(),
  "aten::erf 1": (a) => a!.erf(),
  "aten::sigmoid 1": (a) => a!.sigmoid(),
  "aten::floor 1": (a) => a!.floor(),
  "aten::ceil 1": (a) => a!.ceil(),
  "aten::round 1": (a) => a!.round(),
  "aten::clamp 1": (a) => a!.clamp(-0.5, 0.75),
  "aten::clamp 2": (a) => a!.clamp(null, 0),
  "aten::lerp.Scalar 1": (a, b) => a!.lerp(b!, 0.25),
  "aten::lerp.Tensor 1": (a, b, c) => a!.lerp(b!, c!),
  "aten::eq.Tensor 1": (a, b) => a!.eq(b!),
  "aten::ne.Scalar 1": (a) => a!.ne(0),
  "aten::lt.Tensor 1": (a, b) => a!.lt(b!),
  "aten::le.Scalar 1": (a) => a!.le(0.25),
  "aten::gt.Tensor 1": (a, b) => a!.gt(b!),
  "aten::ge.Scalar 1": (a) => a!.ge(0),
  "aten::logical_and 1": (a, b) => a!.logicalAnd(b!),
  "aten::logical_or 1": (a, b) => a!.logicalOr(b!),
  "aten::logical_not 1": (a) => a!.logicalNot(),
  "aten::where.self 1": (a, b, c) => where(a!, b!, c!),
  "aten::masked_fill.Scalar 1": (a, b) => a!.maskedFill(b!, -2.5),
  "aten::addcmul 1": (a, b, c) => a!.clone().addcmul_(b!, c!, 0.5),
  "aten::addcdiv 1": (a, b, c) => a!.clone().addcdiv_(b!, c!, 0.5),
  "aten::sum 1": (a) => a!.sum(),
  "aten::sum.dim_IntList 1": (a) => a!.sum(1, true),
  "aten::sum.dim_IntList 2": (a) => a!.sum([0, 2]),
  "aten::mean 1": (a) => a!.mean(),
  "aten::mean.dim 1": (a) => a!.mean(-1),
  "aten::var.correction 1": (a) => a!.var(1),
  "aten::var.correction 2": (a) => a!.var(2, { correction: 0, keepdim: true }),
  "aten::std.correction 1": (a) => a!.std(1),
  "aten::amax 1": (a) => a!.amax(1),
  "aten::amin 1": (a) => a!.amin(2, true),
  "aten::prod 1": (a) => a!.prod(),
  "aten::argmax 1": (a) => a!.argmax(1),
  "aten::argmin 1": (a) => a!.argmin(),
  "aten::max 1": (a) => a!.max(),
  "aten::min 1": (a) => a!.min(),
  "aten::any 1": (a) => a!.any(),
  "aten::all.dim 1": (a) => a!.all(1),
  "aten::topk 1": (a) => Object.values(a!.topk(3, 1)),
  "aten::sort 1": (a) => Object.values(a!.sort(1, true)),
  "aten::cumsum 1": (a) => a!.cumsum(1),
  "aten::linalg_vector_norm 1": (a) => a!.norm(1, true),
  "aten::matmul 1": (a, b) => a!.matmul(b!),
  "aten::mm 1": (a, b) => a!.mm(b!),
  "aten::bmm 1": (a, b) => a!.bmm(b!),
  "aten::einsum 1": (a, b) => einsum("bhid,bhjd->bhij", [a!, b!]),
  "aten::outer 1": (a, b) => outer(a!, b!),
  "aten::linear 1": (a, b, c) => F.linear(a!, b!, c!),
  "aten::embedding 1": (a, b) => F.embedding(b!, a!),
  "aten::layer_norm 1": (a, b, c) => F.layerNorm(a!, [6], b!, c!),
  "aten::layer_norm 2": (a) => F.layerNorm(a!, [2, 3], null, null, 1e-6),
  "aten::rms_norm 1": (a, b) => F.rmsNorm(a!, [6], b!, 1e-6),
  "aten::group_norm 1": (a, b, c) => F.groupNorm(a!, 2, b!, c!),
  "aten::conv2d 1": (a, b, c) => F.conv2d(a!, b!, c!, { padding: 1 }),
  "aten::conv2d 2": (a, b) => F.conv2d(a!, b!, null, { stride: 2, padding: [0, 1], groups: 2 }),
  "aten::conv_transpose2d.input 1": (a, b, c) => F.convTranspose2d(a!, b!, c!, { stride: 2 }),
  "aten::relu 1": (a) => a!.relu(),
  "aten::silu 1": (a) => a!.silu(),
  "aten::gelu 1": (a) => a!.gelu(),
  "aten::gelu 2": (a) => a!.gelu({ approximate: "tanh" }),
  "aten::softmax.int 1": (a) => a!.softmax(1),
  "aten::log_softmax.int 1": (a) => a!.logSoftmax(-1),
  "aten::scaled_dot_product_attention 1": (q, k, v) => F.scaledDotProductAttention(q!, k!, v!),
  "aten::scaled_dot_product_attention 2": (q, k, v, mask) =>
    F.scaledDotProductAttention(q!, k!, v!, { mask: mask!, scale: 0.3 }),
  "aten::scaled_dot_product_attention 3": (q, k, v) => F.scaledDotProductAttention(q!, k!, v!, { isCausal: true }),
  "aten::mse_loss 1": (a, b) => F.mseLoss(a!, b!),
  "aten::l1_loss 1": (a, b) => F.l1Loss(a!, b!, { reduction: "sum" }),
  "aten::cross_entropy_loss 1": (a, b) => F.crossEntropy(a!, b!),
  "aten::cross_entropy_loss 2": (a, b) => F.crossEntropy(a!, b!, { labelSmoothing: 0.1 }),
  "aten::view 1": (a) => a!.view(3, -1),
  "aten::reshape 1": (a) => a!.reshape([4, 3]),
  "aten::permute 1": (a) => a!.permute(2, 0, 1),
  "aten::transpose.int 1": (a) => a!.transpose(0, -1),
  "aten::unsqueeze 1": (a) => a!.unsqueeze(1),
  "aten::squeeze.dim 1": (a) => a!.squeeze(1),
  "aten::flatten.using_ints 1": (a) => a!.flatten(1),
  "aten::expand 1": (a) => a!.expand(2, 4, 3),
  "aten::repeat 1": (a) => a!.repeat(2, 2),
  "aten::repeat_interleave.self_int 1": (a) => a!.repeatInterleave(2, 1),
  "aten::narrow 1": (a) => a!.narrow(1, 2, 3),
  "aten::select.int 1": (a) => a!.select(1, -2),
  "aten::slice.Tensor 1": (a) => a!.slice(1, 1, 6, 2),
  "aten::index_select 1": (a, i) => a!.indexSelect(0, i!),
  "aten::gather 1": (a, i) => a!.gather(1, i!),
  "aten::index_add 1": (a, i, b) => a!.clone().indexAdd_(0, i!, b!),
  "aten::roll 1": (a) => a!.roll(2, 1),
  "aten::flip 1": (a) => a!.flip(1),
  "aten::tril 1": (a) => a!.tril(),
  "aten::triu 1": (a) => a!.triu(1),
  "aten::cat 1": (a, b) => cat([a!, b!], 1),
  "aten::stack 1": (a, b) => stack([a!, b!], 1),
  "aten::chunk 1": (a) => a!.chunk(3, 1),
  "aten::split.Tensor 1": (a) => a!.split(3, 1),
  "aten::split_with_sizes 1": (a) => a!.split([3, 4], 1),
  "aten::unbind.int 1": (a) => a!.unbind(),
  "aten::pad 1": (a) => F.pad(a!, [1, 2, 0, 1], { value: 0.5 }),
  "aten::pad 2": (a) => F.pad(a!, [1, 1, 1, 1], { mode: "reflect" }),
  "aten::avg_pool2d 1": (a) => F.avgPool2d(a!, 2),
  "aten::max_pool2d 1": (a) => F.maxPool2d(a!, 2),
  "aten::pixel_shuffle 1": (a) => F.pixelShuffle(a!, 2),
  "aten::pixel_unshuffle 1": (a) => F.pixelUnshuffle(a!, 2),
  "aten::upsample_nearest2d.vec 1": (a) => F.interpolate(a!, { scaleFactor: 2 }),
  "aten::upsample_bilinear2d.vec 1": (a) => F.interpolate(a!, { size: [5, 7], mode: "bilinear" }),
  "aten::_upsample_bilinear2d_aa.vec 1": (a) => F.interpolate(a!, { size: [3, 4], mode: "bilinear", antialias: true }),
  "aten::_upsample_bicubic2d_aa.vec 1": (a) => F.interpolate(a!, { size: 4, mode: "bicubic", antialias: true }),
  "aten::nan_to_num 1": (a) => a!.nanToNum(0),
};

describe("methods and functional layers", () => {
  const seen = new Map<string, number>();
  const indexOf = new Map<string, number>(
    table.map((line, i) => {
      const { op } = JSON.parse(line) as Case;
      seen.set(op, (seen.get(op) ?? 0) + 1);
      return [`${op} ${seen.get(op)}`, i] as const;
    }),
  );
  test.each(Object.entries(METHODS))("%s", (name, run) => {
    scope(() => {
      const i = indexOf.get(name)!;
      const spec = JSON.parse(table[i]!) as Case;
      const { all } = makeArguments(spec, "float64", "cpu");
      expectClose(outputsOf(run(...all)), recorded[i]!.outputs, "float64");
    });
  });

  test("the generated wrappers call the same operators", () => {
    scope(() => {
      const x = tensor([[1, -2, 3]], { dtype: "float64" });
      expect(aten.add_Tensor(x, x, 2).toList()).toEqual(x.add(x, 2).toList());
      expect(aten.sum_dim_IntList(x, [1], true).toList()).toEqual([[2]]);
      expect(aten.clamp(x, 0, null).toList()).toEqual([[1, 0, 3]]);
    });
  });
});
