import { once } from "node:events";
import { MessageChannel, Worker } from "node:worker_threads";
import { arange, full, getNumThreads, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import type { Predict } from "../flow/guidance.js";
import type { Conditioning } from "../networks/conditioning.js";
import { inHalves, type Partner, PartnerThread } from "./halves.js";

const rowsOf = (count: number) => arange(count * 2, { dtype: "float32" }).view(count, 2);

/** A conditioning of some rows, each with its number. */
const conditioningOf = (rows: number): Conditioning => ({
  tokens: null,
  keyValues: [{ keys: rowsOf(rows), values: rowsOf(rows).add(1) }],
  mask: full([rows, 1, 1, 3], true, { dtype: "bool" }),
});

/** What tells every argument apart. */
const predict: Predict<Conditioning> = (y, gamma, { keyValues }, previous) => ({
  D: y.mul(gamma.unsqueeze(1)).add(keyValues[0]!.keys),
  z: previous ? previous.add(keyValues[0]!.values) : y.mul(3),
});

/** A partner in this thread. */
function partnerHere({ wait = 0 } = {}): Partner & { asked: number } {
  return {
    asked: 0,
    begin({ y, gamma, conditioning, previousLatents }) {
      this.asked++;
      const first = conditioning.keyValues[0]!.keys.size(0) - y.size(0);
      const cut = (t: Tensor) => t.narrow(0, first, y.size(0));
      const keyValues = conditioning.keyValues.map(({ keys, values }) => ({ keys: cut(keys), values: cut(values) }));
      return () => {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, wait);
        return predict(y, gamma, { tokens: null, keyValues, mask: null }, previousLatents);
      };
    },
  };
}

it("halves of an evaluation are what the whole is, with and without latents of an earlier one", () => {
  noGrad(() =>
    scope(() => {
      const [y, gamma, conditioning] = [rowsOf(4), arange(4, { dtype: "float32" }), conditioningOf(4)];
      const partner = partnerHere();
      for (const previous of [null, rowsOf(4).mul(7)]) {
        const [whole, halves] = [predict, inHalves(predict, partner)].map((one) =>
          one(y, gamma, conditioning, previous),
        );
        expect(halves!.D.toList()).toEqual(whole!.D.toList());
        expect(halves!.z!.toList()).toEqual(whole!.z!.toList());
      }
      expect(partner.asked).toBe(2);
      const odd = inHalves(predict, partner)(rowsOf(3), arange(3, { dtype: "float32" }), conditioningOf(3), null);
      expect(odd.D.size(0)).toBe(3);
      expect(partner.asked).toBe(2);
    }),
  );
});

it("a partner that has other work to do is asked no more in this run, and an error leaves no answer behind", () => {
  noGrad(() =>
    scope(() => {
      const slow = partnerHere({ wait: 150 });
      const evaluate = inHalves(predict, slow);
      const once = (by = evaluate) => by(rowsOf(2), arange(2, { dtype: "float32" }), conditioningOf(2), null);
      for (let i = 0; i < 5; i++) once();
      expect(slow.asked).toBe(2);
      const threads = getNumThreads();
      let ended = 0;
      const other: Partner = {
        begin: (half) => () => {
          ended++;
          return partnerHere().begin(half)();
        },
      };
      const failing = inHalves(() => {
        throw new Error("full");
      }, other);
      expect(() => once(failing)).toThrow("full");
      expect(ended).toBe(1);
      expect(getNumThreads()).toBe(threads);
    }),
  );
});

it("a partner in another thread gets every argument, and its errors come back", async () => {
  const { port1, port2 } = new MessageChannel();
  const answered = new Int32Array(new SharedArrayBuffer(4));
  const halves = new URL("../../dist/pipeline/halves.js", import.meta.url).href;
  const program = `
    import(${JSON.stringify(halves)}).then(({ serveHalves }) => {
      const { parentPort, workerData } = require("node:worker_threads");
      serveHalves(workerData, (y, gamma, { keyValues: [{ keys, values }], mask }, previous) => {
        if (y.size(1) !== 2) throw new RangeError("two columns");
        if (mask.dtype !== "bool") throw new RangeError("a mask");
        return { D: y.mul(gamma.unsqueeze(1)).add(keys), z: previous ? previous.add(values) : y.mul(3) };
      });
      parentPort.postMessage("serves");
      parentPort.on("message", () => {});
    });`;
  const worker = new Worker(program, {
    ...{ eval: true, execArgv: [], workerData: { port: port1, answered }, transferList: [port1] },
  });
  try {
    await once(worker, "message");
    const partner = new PartnerThread({ port: port2, answered });
    noGrad(() =>
      scope(() => {
        const [y, gamma] = [rowsOf(4), arange(4, { dtype: "float32" })];
        for (const conditioning of [conditioningOf(4), conditioningOf(4)])
          for (const previous of [null, rowsOf(4).mul(7)]) {
            const half = (t: Tensor) => t.narrow(0, 2, 2);
            const whole = predict(y, gamma, conditioning, previous);
            const given = { y: half(y), gamma: half(gamma), previousLatents: previous && half(previous) };
            const { D, z } = partner.begin({ ...given, conditioning })();
            expect(D.toList()).toEqual(half(whole.D).toList());
            expect(z!.toList()).toEqual(half(whole.z!).toList());
          }
        const wrong = { y: full([2, 3], 1), gamma, previousLatents: null, conditioning: conditioningOf(4) };
        expect(() => partner.begin(wrong)()).toThrow("two columns");
      }),
    );
  } finally {
    port2.close();
    await worker.terminate();
  }
});
