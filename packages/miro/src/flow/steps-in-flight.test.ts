import { Tensor, zeros } from "@miro-t2i/torch";
import { expect, test } from "vitest";
import { StepsInFlight } from "./steps-in-flight.js";

/** A device that has done the steps up to `done`, and what became of the events. */
class FakeDevice {
  done = -1;
  recorded = 0;
  disposed: number[] = [];

  record = () => {
    const step = this.recorded++;
    const isDone = () => this.done >= step;
    return {
      get isDone() {
        return isDone();
      },
      dispose: () => void this.disposed.push(step),
    };
  };
}

/** Anything that says it lies on a GPU. */
const onGpu = Object.create(Tensor.prototype, { device: { value: "cuda:0" } }) as Tensor;

/** Whether a promise is still pending when the event loop has gone round many times. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let pending = true;
  void promise.then(
    () => (pending = false),
    () => (pending = false),
  );
  for (let i = 0; i < 100; i++) await new Promise((resolve) => setImmediate(resolve));
  return pending;
}

test("a third step waits for the first, a fourth for the second, and the event loop goes on meanwhile", async () => {
  const device = new FakeDevice();
  using steps = new StepsInFlight(device.record);
  for (let step = 0; step < 2; step++) {
    await steps.untilFree(undefined);
    steps.queued(onGpu);
  }
  for (let step = 2; step < 5; step++) {
    const free = steps.untilFree(undefined);
    expect(await isPending(free)).toBe(true);
    device.done = step - 2;
    await free;
    steps.queued(onGpu);
  }
  const end = steps.done(undefined);
  device.done = 3;
  expect(await isPending(end)).toBe(true);
  device.done = 4;
  await end;
  expect(device.disposed).toEqual([0, 1, 2, 3, 4]);
});

test("an abort ends the waiting while the device is still at work, and no event is left", async () => {
  const device = new FakeDevice();
  const abort = new AbortController();
  const stopped = async () => {
    using steps = new StepsInFlight(device.record);
    for (;;) {
      await steps.untilFree(abort.signal);
      steps.queued(onGpu);
    }
  };
  const run = stopped();
  expect(await isPending(run)).toBe(true);
  abort.abort();
  await expect(run).rejects.toBe(abort.signal.reason);
  expect([device.recorded, device.disposed]).toEqual([2, [0, 1]]);
});

test("on a CPU no event is made and nothing is waited for", async () => {
  const device = new FakeDevice();
  using steps = new StepsInFlight(device.record);
  using x = zeros([1]);
  for (let step = 0; step < 3; step++) {
    await steps.untilFree(undefined);
    steps.queued(x);
  }
  await steps.done(undefined);
  expect(device.recorded).toBe(0);
});
