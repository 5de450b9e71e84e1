import { buildInfo, cuda } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { availableDevices, checkDevice, cudaIndex, gpuDType, resolveDType, SMALL_NETWORK } from "./device.js";

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
  it("on a GPU is the fastest that its compute capability has and the network stands", () => {
    expect(gpuDType([9, 0])).toBe("bfloat16");
    expect(gpuDType([8, 0])).toBe("bfloat16");
    expect(gpuDType([7, 5])).toBe("float16");
    expect(gpuDType([7, 0])).toBe("float16");
    expect(gpuDType([6, 1])).toBe("float32");
    expect(gpuDType(undefined)).toBe("bfloat16");
    for (const gpu of availableDevices().filter((device) => device.startsWith("cuda")))
      expect(resolveDType("auto", gpu, 1)).toBe(gpuDType(cuda.devices()[cudaIndex(gpu)!]!.capability));
  });

  it("asks for the right GPU", () => {
    expect(["cuda", "cuda:0", "cuda:3", "cpu", "cuda:", "cuda:x"].map(cudaIndex)).toEqual([0, 0, 3, null, null, null]);
  });

  it("is what is fast here, float32 for small networks on a CPU, and never overrides a choice", () => {
    expect(resolveDType("auto", "cpu", SMALL_NETWORK - 1)).toBe("float32");
    expect(resolveDType("auto", "cpu", SMALL_NETWORK)).toBe(buildInfo().fastBfloat16 ? "bfloat16" : "float32");
    expect(resolveDType("bfloat16", "cpu", 1)).toBe("bfloat16");
  });
});
