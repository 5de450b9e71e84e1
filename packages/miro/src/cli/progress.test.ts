import { describe, expect, it } from "vitest";
import { downloadText } from "./progress.js";

const progress = (allBytes: number, allTotalBytes: number) => ({
  repo: "a/b",
  file: "c",
  bytes: 0,
  totalBytes: 0,
  allBytes,
  allTotalBytes,
  fileNumber: 2,
  fileCount: 4,
});

describe("a download", () => {
  it("is told as amount, file, rate and time left", () => {
    expect(downloadText(progress(1.2e9, 9.4e9), 85e6)).toBe("1.2/9.4 GB, file 2 of 4, 85.0 MB/s, 1:36 left");
    expect(downloadText(progress(0, 9.4e9), 1e6)).toBe("0.0/9.4 GB, file 2 of 4, 1.0 MB/s, 2:36:40 left");
    expect(downloadText(progress(1e6, 2e6), 0)).toBe("1.0/2.0 MB, file 2 of 4");
  });
});
