import { getNumThreads, setNumThreads } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import { withThreads } from "./with-threads.js";

it("gives the process its threads back, also after a failure", async () => {
  const before = getNumThreads();
  try {
    setNumThreads(3);
    expect(await withThreads(2, async () => getNumThreads())).toBe(2);
    expect(getNumThreads()).toBe(3);
    await expect(withThreads(1, () => Promise.reject(new Error("failed")))).rejects.toThrow("failed");
    expect(getNumThreads()).toBe(3);
    for (const none of [0, undefined]) expect(await withThreads(none, async () => getNumThreads())).toBe(3);
  } finally {
    setNumThreads(before);
  }
});
