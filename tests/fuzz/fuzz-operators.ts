/**
 * Calls the typed operators of `aten` with random arguments, many of them wrong. A process of its own, run by main.ts:
 * `node tests/dist/fuzz/fuzz-operators.js REPORT SEED TRIES OPERATOR…`.
 *
 * Before each call the call is written to the file REPORT, so that whoever finds this process dead knows what killed
 * it. The last line of standard output is a JSON object: how many calls returned, how many were refused, and what else
 * was thrown.
 */
import { openSync, writeSync } from "node:fs";
import { aten, Generator, ones, randn, scope, setNumThreads, Tensor, TorchError, tensor, zeros } from "@miro-t2i/torch";
import { hash, randomNumbers } from "./random.js";
import { type OperatorParameter, typedOperators } from "./typed-operators.js";

/** Bytes of REPORT: one call, padded. */
const RECORD_BYTES = 512;

function argumentsOf(random: () => number) {
  const pick = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)]!;
  const tensorValue = (): Tensor =>
    pick([
      () => ones([2, 3]),
      () => randn([3, 3]),
      () => randn([3, 3]).t(),
      () => randn([1, 2, 4, 4]),
      () => randn([2, 3, 4]),
      () => tensor([1n, 0n]),
      () => tensor([[5n, -3n, 2n]]),
      () => tensor([true, false]),
      () => zeros([0, 2]),
      () => ones([]),
      () => ones([3, 3], { dtype: "bfloat16" }),
      () => ones([2, 3], { dtype: "float64" }),
      () => ones([4], { dtype: "uint8" }),
      () => randn([3, 3]).requiresGrad_(),
    ])();
  const integer = (): unknown =>
    pick<unknown>([0, 1, -1, 2, 3, 4, -2, 99, 65536, -(2 ** 40), 2n ** 62n, -(2n ** 63n), 2n ** 63n, Number.NaN, 0.5]);
  const real = (): unknown => pick<unknown>([0, 1, -1, 0.5, 1e300, Number.NaN, Number.POSITIVE_INFINITY, 5n]);
  const list = (item: () => unknown): unknown[] => Array.from({ length: pick([0, 1, 2, 2, 3, 4, 7]) }, item);
  const stranger = (): unknown =>
    pick<() => unknown>([
      () => ({}),
      () => undefined,
      () => null,
      () => "x",
      () => Symbol("s"),
      () => [],
      () => ["a", null],
      () => 1.5,
      () => 12345,
      () => new Generator(),
      () => ones([1]),
      () => new Float32Array(3),
    ])();
  const single = (base: string): unknown => {
    switch (base) {
      case "Tensor":
        return tensorValue();
      case "int":
      case "SymInt":
      case "DeviceIndex":
        return integer();
      case "float":
      case "SymFloat":
        return real();
      case "bool":
      case "SymBool":
        return random() < 0.5;
      case "str":
        return pick(["", "x", "mean", "sum", "reflect", "floor", "none", "valid", "right", "cpu"]);
      case "Scalar":
        return pick([real, integer])();
      case "ScalarType":
        return pick<unknown>(["float32", "int64", "bfloat16", "bool", "complex64", -1, 99, 45, 12, "float31"]);
      case "Layout":
        return pick<unknown>(["strided", 0, -1, 1, 99, "sparse"]);
      case "Device":
        return pick<unknown>(["cpu", "cpu", "cuda", "cuda:-1", "cuda:256", "cpu:7", "xla", "mkldnn", 0]);
      case "MemoryFormat":
        return pick<unknown>(["contiguous_format", "channels_last", "preserve_format", -1, 4, 99, "x"]);
      case "Generator":
        return new Generator();
      default:
        throw new Error(`no arguments of type ${base}`);
    }
  };
  return ({ base, list: many, optional }: OperatorParameter): unknown => {
    if (random() < 0.06) return stranger();
    if (optional && random() < 0.5) return pick([null, undefined]);
    return many ? list(() => (random() < 0.03 ? null : single(base))) : single(base);
  };
}

/** A call as a person would write it. */
function written(name: string, args: readonly unknown[]): string {
  const one = (value: unknown): string => {
    if (value instanceof Tensor) return `${value.dtype}[${value.shape.join(", ")}]`;
    if (value instanceof Generator) return "Generator";
    if (typeof value === "bigint") return `${value}n`;
    if (Array.isArray(value)) return `[${value.map(one).join(", ")}]`;
    return typeof value === "string" ? JSON.stringify(value) : String(value);
  };
  return `aten.${name}(${args.map(one).join(", ")})`;
}

function main(report: string, seed: number, tries: number, names: readonly string[]): void {
  setNumThreads(1);
  const file = openSync(report, "w");
  const operators = typedOperators();
  const endings = { returned: 0, refused: 0, others: [] as string[] };
  for (const name of names) {
    const random = randomNumbers(seed ^ hash(name));
    const argument = argumentsOf(random);
    const parameters = operators.get(name)!;
    for (let i = 0; i < tries; i++) {
      scope(() => {
        const args = parameters.map(argument);
        const text = `${name}\n${i}\n${written(name, args)}`;
        writeSync(file, Buffer.alloc(RECORD_BYTES, text.padEnd(RECORD_BYTES)), 0, RECORD_BYTES, 0);
        try {
          (aten as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!(...args);
          endings.returned++;
        } catch (error) {
          if (error instanceof TorchError) endings.refused++;
          else endings.others.push(`${written(name, args)}: ${error}`);
        }
      });
    }
  }
  console.log(JSON.stringify(endings));
}

const [report, seed, tries, ...names] = process.argv.slice(2);
main(report!, Number(seed), Number(tries), names);
