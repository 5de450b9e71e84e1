import { buildInfo, cuda } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { availableDevices, checkDevice, resolveDType, SMALL_NETWORK } from "./device.js";

describe("devices", () => {
  it("are those that answer; others are refused with a list", () => {
    expect(availableDevices()[0]).toBe("cpu");
    expect(checkDevice("cpu")).toBe("cpu");
    expect(() => checkDevice("cuda:99", "--device")).toThrow(
      `--device: "cuda:99" is not available`.concat(
        cuda.isAvailable() ? "" : " (no CUDA device, or a libtorch without CUDA); available: cpu",
      ),
    );
  });
});

describe("dtype auto", () => {
  it("is what is fast here, float32 for small networks on a CPU, and never overrides a choice", () => {
    expect(resolveDType("auto", "cuda", 1)).toBe("bfloat16");
    expect(resolveDType("auto", "cpu", SMALL_NETWORK - 1)).toBe("float32");
    expect(resolveDType("auto", "cpu", SMALL_NETWORK)).toBe(buildInfo().fastBfloat16 ? "bfloat16" : "float32");
    expect(resolveDType("bfloat16", "cpu", 1)).toBe("bfloat16");
  });
});
