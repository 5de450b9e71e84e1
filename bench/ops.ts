/**
 * `npm run bench -- ops`: what one operation costs on the host, where the arithmetic is nothing: tensors of four
 * elements, one thread. Medians of many batches of calls, this engine and Python in the same run.
 */
import { memory, randn, scope, setNumThreads, type Tensor } from "@miro-t2i/torch";
import { type BenchOptions, columns, runReference, type Spread, spread, store } from "./harness.js";

const CALLS = 2000;
const BATCHES = 60;

interface Row {
  name: string;
  nanoseconds: Spread;
}

/** Nanoseconds of one call: batches of `CALLS`, each inside a scope that frees what they made. */
function measure(name: string, call: () => unknown): Row {
  const times: number[] = [];
  for (let i = 0; i < BATCHES + 10; i++) {
    const start = performance.now();
    scope(() => {
      for (let k = 0; k < CALLS; k++) call();
    });
    if (i >= 10) times.push(((performance.now() - start) * 1e6) / CALLS);
  }
  return { name, nanoseconds: spread(times) };
}

export function ops(options: BenchOptions): void {
  setNumThreads(1);
  const held = scope(() => [randn([4]), randn([4]), randn([4]).requiresGrad_()].map((t) => t.keep())) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const [x, y, w] = held;
  const rows = [
    measure("x.add(y), freed by the scope", () => x.add(y)),
    measure("x.add(y), disposed at once", () => x.add(y).dispose()),
    measure("x.add_(y)", () => x.add_(y)),
    measure("x.add(1)", () => x.add(1)),
    measure("w.add(y), recording gradients", () => w.add(y)),
    measure("x.view(2, 2)", () => x.view(2, 2)),
  ];
  const python = options.python
    ? runReference<{ rows: Row[]; versions: Record<string, string> }>(options.python, "ops.py", [])
    : null;
  for (const t of held) t.dispose();
  const all = [...rows, ...(python?.rows ?? [])];
  console.log(
    columns([
      ["one operation on 4 elements, 1 thread", "ns", "min", "max"],
      ...all.map(({ name, nanoseconds: ns }) => [name, ns.median.toFixed(0), ns.min.toFixed(0), ns.max.toFixed(0)]),
    ]),
  );
  console.log(`live tensors afterwards: ${memory.stats().liveTensors}`);
  console.log(
    `written: ${store(options, { elements: 4, threads: 1, calls: CALLS, batches: BATCHES }, { rows: all }, python?.versions)}`,
  );
}
