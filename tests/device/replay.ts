/** CUDA graphs: what is replayed is what the same operators compute one by one. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import {
  captureGraph,
  cuda,
  GraphPool,
  hasCudaGraphs,
  memory,
  rand,
  randn,
  scope,
  type Tensor,
  zeros,
} from "@miro-t2i/torch";
import { type Checks, must, relativeDifference, within } from "./checks.js";
import { tinyPipeline } from "./tiny-pipeline.js";

/** The same kernels run; libraries may choose others for another workspace. */
const BOUNDS = { float32: 1e-5, bfloat16: 2e-2 } as const;

export async function replay(checks: Checks): Promise<void> {
  const { device, gpu } = checks;
  if (!checks.onGpu) {
    checks.doesNotApply("graph replay against eager", "a CPU has no graphs; operators are called one by one");
    return;
  }
  await checks.check("graphs can be made", () => {
    must(hasCudaGraphs(gpu), "hasCudaGraphs() is false: were CUDA's headers there when the addon was built?");
    return undefined;
  });
  await checks.check("a graph gives new results for new values, whatever is allocated between", () => {
    using x = zeros([256, 256], { device }).keep();
    const graph = captureGraph(() => ({ y: x.matmul(x).add(1) }), { device: gpu });
    for (const value of [1, 2, 3]) {
      scope(() => void randn([1024, 1024], { device }).matmul(randn([1024, 1024], { device })));
      x.fill_(value);
      graph.replay();
      const found = scope(() => graph.outputs.y.amax([0, 1]).item() as number);
      must(found === 256 * value ** 2 + 1, `${found} for ${value}, expected ${256 * value ** 2 + 1}`);
    }
    graph.dispose();
    return undefined;
  });
  await checks.check("random numbers differ from replay to replay", () => {
    const graph = captureGraph(() => ({ y: rand([4], { device }) }), { device: gpu });
    const draw = () => {
      graph.replay();
      return scope(() => String(graph.outputs.y.cpu().toList()));
    };
    const first = draw();
    must(first !== draw(), "the same numbers twice");
    graph.dispose();
    return undefined;
  });
  await checks.check("a pool serves new graphs after all of its graphs were disposed of", () => {
    using x = zeros([256], { device }).keep();
    const pool = new GraphPool();
    for (const value of [1, 2, 3]) {
      const graph = captureGraph(() => ({ y: x.add(value) }), { device: gpu, pool });
      graph.replay();
      const found = scope(() => graph.outputs.y.amax().item());
      must(found === value, `${found}, expected ${value}`);
      graph.dispose();
      if (value === 2) memory.emptyCache();
    }
    return undefined;
  });
  await checks.check("graphs that share a pool need no more memory than the largest", () => {
    using x = zeros([2 ** 22], { device }).keep(); // 16 MiB
    const pool = new GraphPool();
    const capture = () => captureGraph(() => ({ y: x.add(1).mul(x.sub(1)).sum() }), { device: gpu, pool });
    const reserved = () => {
      memory.emptyCache();
      return cuda.memory(gpu).reservedBytes;
    };
    const graphs = [capture()];
    const one = reserved();
    for (let i = 0; i < 3; i++) graphs.push(capture());
    const more = (reserved() - one) / 2 ** 20;
    for (const graph of graphs) {
      graph.replay();
      const found = scope(() => graph.outputs.y.item());
      must(found === -(2 ** 22), `${found}, expected ${-(2 ** 22)}`);
    }
    for (const graph of graphs) graph.dispose();
    must(more <= 4, `three more graphs took ${more} MiB, at most 4 are allowed`);
    return `three more graphs took ${more} MiB, at most 4`;
  });
  await checks.check("a graph's products hold after another graph of the device was disposed of", () => {
    using x = zeros([1024, 1024], { device, dtype: "bfloat16" }).keep();
    x.fill_(1);
    const capture = () => captureGraph(() => ({ y: x.matmul(x) }), { device: gpu });
    const [kept, other] = [capture(), capture()];
    other.dispose();
    memory.emptyCache();
    scope(() => void zeros([2 ** 24], { device }));
    kept.replay();
    const found = scope(() => kept.outputs.y.float().mean().item());
    must(found === 1024, `${found}, expected 1024`);
    kept.dispose();
    return undefined;
  });
  await checks.check("a body that captures another graph is refused", () => {
    let said = "";
    try {
      captureGraph(() => captureGraph(() => ({ y: zeros([1], { device }) }), { device: gpu }), {
        device: gpu,
      }).dispose();
    } catch (error) {
      said = (error as Error).message;
    }
    must(/captured already/.test(said), `"${said}" was thrown`);
    return undefined;
  });
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [what, options] of [
      ["one picture", {}],
      ["four pictures, guided in the middle only", { imagesPerPrompt: 4, guidanceWindow: [3, 8] as [number, number] }],
    ] as const)
      await checks.check(`sampling in ${dtype}, ${what}: replayed against eager`, async () => {
        const replayed = await sample(device, dtype, options);
        process.env.MIRO_CUDA_GRAPHS = "0";
        const eager = await sample(device, dtype, options).finally(() => delete process.env.MIRO_CUDA_GRAPHS);
        const error = relativeDifference(replayed.latents, eager.latents);
        for (const { latents } of [replayed, eager]) latents.dispose();
        return `${within(error, BOUNDS[dtype])}; ${replayed.ms.toFixed(0)} ms replayed, ${eager.ms.toFixed(0)} ms eager`;
      });
  await checks.check("what looks at a value cannot be captured; random numbers and graphs work afterwards", () => {
    using x = zeros([4], { device }).keep();
    const pool = new GraphPool();
    const refused = () => {
      let said = "";
      const body = () => {
        const y = x.add(rand([4], { device }));
        y.sum().item();
        return { y };
      };
      try {
        captureGraph(body, { device: gpu, pool }).dispose();
      } catch (error) {
        said = (error as Error).message.split("\n")[0]!;
      }
      must(said !== "", "no error");
      return said;
    };
    const said = refused();
    must(scope(() => rand([4], { device }).amax().item() as number) < 1, "wrong random numbers afterwards");
    const again = captureGraph(() => ({ y: x.add(2) }), { device: gpu, pool });
    refused(); // beside a graph that has the same memory
    again.replay();
    must(scope(() => again.outputs.y.amax().item()) === 2, "a wrong value afterwards");
    again.dispose();
    return said;
  });
  await checks.check("a thread that waits for the device meanwhile does so after the capture", () =>
    beside(checks, "cuda.synchronize(gpu)"),
  );
  await checks.check("a thread that empties the cache meanwhile does so after the capture", () =>
    beside(
      checks,
      `zeros([2 ** 24], { device: "cuda:" + gpu }).dispose();
      const reserved = () => cuda.memory(gpu).reservedBytes;
      const before = reserved();
      memory.emptyCache();
      if (before - reserved() < 2 ** 25) throw new Error("nothing was given back")`,
    ),
  );
  await checks.check("a body that throws is no capture that goes on", () => {
    using x = zeros([4], { device }).keep();
    let runs = 0;
    const body = () => {
      if (++runs === 3) throw new Error("out of the body");
      return { y: x.add(rand([4], { device })) };
    };
    let said = "";
    try {
      captureGraph(body, { device: gpu });
    } catch (error) {
      said = (error as Error).message;
    }
    must(said === "out of the body", `"${said}" was thrown`);
    must(scope(() => rand([4], { device }).amax().item() as number) < 1, "wrong random numbers afterwards");
    return undefined;
  });
}

/** For so long a capture goes on, in which another thread would have done its work if nothing held it back. */
const HELD_MS = 300;

/** Captures a graph while a thread does something. */
async function beside({ device, gpu }: Checks, work: string): Promise<undefined> {
  const thread = `
    const { parentPort, workerData: { engine, gpu, turn } } = require("node:worker_threads");
    import(engine).then(({ cuda, memory, zeros }) => {
      zeros([1], { device: "cuda:" + gpu }).dispose();
      parentPort.postMessage("ready");
      Atomics.wait(turn, 0, 0);
      let said = "";
      try {
        ${work};
      } catch (error) {
        said = error.message;
      }
      Atomics.store(turn, 0, 2);
      Atomics.notify(turn, 0);
      parentPort.postMessage(said);
    });`;
  const turn = new Int32Array(new SharedArrayBuffer(4));
  const workerData = { engine: import.meta.resolve("@miro-t2i/torch"), gpu, turn };
  const worker = new Worker(thread, { eval: true, workerData });
  try {
    await once(worker, "message");
    const answer = once(worker, "message");
    using x = zeros([4], { device }).keep();
    let runs = 0;
    const graph = captureGraph(
      () => {
        if (++runs === 3) {
          Atomics.store(turn, 0, 1);
          Atomics.notify(turn, 0);
          Atomics.wait(turn, 0, 1, HELD_MS);
        }
        return { y: x.add(1) };
      },
      { device: gpu },
    );
    const [said] = await answer;
    must(said === "", `the thread failed: ${said}`);
    graph.replay();
    must(scope(() => graph.outputs.y.amax().item()) === 1, "the graph computes something else");
    graph.dispose();
    return undefined;
  } finally {
    await worker.terminate();
  }
}

/** The second of two calls: the first has made the recordings. */
async function sample(
  device: string,
  dtype: keyof typeof BOUNDS,
  options: { imagesPerPrompt?: number; guidanceWindow?: [number, number] },
): Promise<{ latents: Tensor; ms: number }> {
  await using pipe = await tinyPipeline(device, dtype);
  const draw = () => pipe.generate("a red apple", { steps: 12, seed: 4, keepLatents: true, ...options });
  (await draw()).latents.dispose();
  const start = performance.now();
  const { latents, warnings } = await draw();
  must(warnings.length === 0, warnings.join("; "));
  return { latents, ms: performance.now() - start };
}
