import { expect, test } from "vitest";
import { DeviceEvent, TorchError, zeros } from "./index.js";

test("what a CPU was given is done when it is asked, and a disposed event answers nothing", () => {
  using x = zeros([2]);
  const event = new DeviceEvent(x);
  expect(event.isDone).toBe(true);
  event.wait();
  event.dispose();
  event.dispose();
  expect(() => event.isDone).toThrow(TorchError);
  expect(() => event.wait()).toThrow(/^this event was disposed$/);
});
