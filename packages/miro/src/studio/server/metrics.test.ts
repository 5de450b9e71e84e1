/** Servers that come and go in one process. */
import { PerformanceObserver } from "node:perf_hooks";
import { expect, it, vi } from "vitest";
import { Metrics } from "./metrics.js";

it("each server has its own figures; the process is watched once, however many servers there have been", async () => {
  const observe = vi.spyOn(PerformanceObserver.prototype, "observe");
  const servers = [1, 2, 3].map((waiting) => new Metrics(() => ({ waiting, running: 0 })));
  expect(observe).toHaveBeenCalledTimes(1);
  for (const [i, { registry }] of servers.entries()) {
    const text = await registry.metrics();
    expect(text).toContain(`miro_queue_jobs{state="waiting"} ${i + 1}\n`);
    expect(text).toMatch(/^process_resident_memory_bytes \d+$/m);
  }
});
