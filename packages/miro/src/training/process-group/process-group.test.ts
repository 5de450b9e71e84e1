import { expect, it, vi } from "vitest";
import { DataParallelGroup } from "./process-group.js";

it("what the first process has opened is closed where the others do not come", async () => {
  const group = DataParallelGroup.alone();
  const close = vi.fn(async () => {});
  const open = async () => ({ close });
  await group.firstRankFirst("opening the data", open);
  expect(close).not.toHaveBeenCalled();
  vi.spyOn(group, "barrier").mockRejectedValue(new Error("rank 1 has ended"));
  await expect(group.firstRankFirst("opening the data", open)).rejects.toThrow("rank 1 has ended");
  expect(close).toHaveBeenCalledTimes(1);
});
