/** Tensors across worker threads. The workers run the built package: Node cannot load TypeScript into them. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test } from "vitest";
import {
  isGradEnabled,
  memory,
  noGrad,
  ones,
  receive,
  type SharedTensor,
  scope,
  share,
  TorchError,
  tensor,
} from "./index.js";

const workers: Worker[] = [];
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()));
});

/**
 * A thread that runs `body` with the engine as `torch`, each message as `message`, and answers with what it returns.
 */
function worker(body: string): Worker {
  const engine = JSON.stringify(new URL("../dist/index.js", import.meta.url).href);
  const made = new Worker(
    `const { parentPort } = require("node:worker_threads");
     import(${engine}).then((torch) => {
       parentPort.on("message", (message) => {
         let answer;
         try { answer = ((message) => { ${body} })(message); }
         catch (error) { answer = { name: error.name, message: error.message }; }
         parentPort.postMessage(answer);
       });
     });`,
    { eval: true },
  );
  workers.push(made);
  return made;
}

async function ask<Answer>(thread: Worker, message: unknown): Promise<Answer> {
  const answer = once(thread, "message");
  thread.postMessage(message);
  return (await answer)[0] as Answer;
}

describe("sharing", () => {
  test("passes the same memory there and back", async () => {
    const thread = worker(`
      const x = torch.receive(message);
      const sum = torch.scope(() => x.sum().item());
      x.add_(10);
      const y = torch.scope(() => x.mul(2).sum());
      const shared = torch.share(y);
      x.dispose(); y.dispose();
      return { sum, shared };`);
    const x = tensor([1, 2, 3]);
    const { sum, shared } = await ask<{ sum: number; shared: SharedTensor }>(thread, share(x));
    expect(sum).toBe(6);
    expect(x.toList()).toEqual([11, 12, 13]);
    const y = receive(shared);
    expect(y.item()).toBe(72);
    x.dispose();
    y.dispose();
  });

  test("keeps the memory alive when the sender forgets it", async () => {
    const thread = worker(
      "const x = torch.receive(message); const value = x.amin().item(); x.dispose(); return value;",
    );
    const x = ones([100_000]);
    const message = share(x);
    x.dispose();
    expect(await ask<number>(thread, message)).toBe(1);
  });

  test("a message is good once", () => {
    const message = share(tensor([1]));
    receive(message).dispose();
    expect(() => receive(message)).toThrow(TorchError);
    expect(() => receive({ sharedTensor: 123_456 })).toThrow(TorchError);
  });

  test("a graph does not cross: the received tensor takes part in the receiver's own", async () => {
    const thread = worker(`
      const w = torch.receive(message).detach().requiresGrad_();
      torch.scope(() => w.square().sum().backward());
      return torch.scope(() => w.grad.toList());`);
    expect(await ask<number[]>(thread, share(tensor([1, -2])))).toEqual([2, -4]);
  });
});

describe("state", () => {
  test("handles, scopes and modes belong to their thread", async () => {
    const thread = worker(
      "return torch.scope(() => torch.ones([2]).requiresGrad_().mul(2).requiresGrad && torch.isGradEnabled());",
    );
    const x = ones([2]);
    const before = memory.stats().liveTensors;
    const answer = once(thread, "message");
    noGrad(() => thread.postMessage(null));
    expect((await answer)[0]).toBe(true);
    expect(isGradEnabled()).toBe(true);
    expect(memory.stats().liveTensors).toBe(before);
    x.dispose();
  });

  test("errors stay errors", async () => {
    const thread = worker("return torch.ones([2, 3]).matmul(torch.ones([2, 3])).shape;");
    expect(await ask(thread, null)).toMatchObject({
      name: "TorchError",
      message: expect.stringContaining("aten::matmul"),
    });
  });

  test("a thread that ends frees what it held", async () => {
    const thread = worker("globalThis.held = torch.ones([2 ** 20]).keep(); return true;");
    const before = memory.stats().liveBytes;
    await ask(thread, null);
    expect(memory.stats().liveBytes - before).toBeGreaterThanOrEqual(4 * 2 ** 20);
    await thread.terminate();
    expect(memory.stats().liveBytes).toBe(before);
  });

  test("many threads at once compute what one does", async () => {
    const body = `
      torch.setNumThreads(1);
      const generator = new torch.Generator().manualSeed(message);
      let total = 0;
      for (let i = 0; i < 50; i++) total += torch.scope(() => torch.randn([16, 16], { generator }).matmul(torch.eye(16)).square().sum().item());
      return total;`;
    const threads = Array.from({ length: 4 }, () => worker(body));
    const totals = await Promise.all(threads.map((thread) => ask<number>(thread, 5)));
    expect(new Set(totals).size).toBe(1);
    expect(await ask<number>(threads[0]!, 6)).not.toBe(totals[0]);
  });
});

test("this thread stays responsive while another computes", async () => {
  const thread = worker(`
    torch.setNumThreads(1);
    const end = Date.now() + 300;
    let products = 0;
    torch.scope(() => { const x = torch.eye(256); while (Date.now() < end) { x.matmul(x).dispose(); products++; } });
    return products;`);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  const products = await ask<number>(thread, null);
  clearInterval(timer);
  expect(products).toBeGreaterThan(0);
  expect(ticks).toBeGreaterThan(5);
  expect(scope(() => ones([2]).sum().item())).toBe(2);
});
