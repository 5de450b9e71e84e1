// Threads, devices, and what the engine was built against.
import { dirname } from "node:path";
import { cudaOf } from "./named-libtorch.js";
import { addonPath, type BuildInfo, native } from "./native.js";

export type { BuildInfo } from "./native.js";

/** Threads that one operation of the calling thread uses. PyTorch: `torch.get_num_threads`. */
export function getNumThreads(): number {
  return native.getNumThreads();
}
/**
 * Sets the number of threads (at least 1) that one operation of the calling thread uses. PyTorch:
 * `torch.set_num_threads`.
 */
export function setNumThreads(n: number): void {
  native.setNumThreads(n);
}

let build: BuildInfo | undefined;

/** What the engine was built against, and what the processor can do. */
export function buildInfo(): BuildInfo {
  build ??= { ...native.buildInfo(), addonPath: addonPath() }; // a millisecond; pictures are described with it
  return { ...build };
}

/** Every schema that libtorch's dispatcher knows, as text. */
export function schemas(): string[] {
  return native.schemas();
}

/** A GPU as NVIDIA's driver describes it. */
export interface CudaDevice {
  /** Such as `NVIDIA H100 80GB HBM3`. */
  name: string;
  /** All of its memory, in bytes. */
  memoryBytes: number;
  /** Compute capability: `[8, 0]` for an A100, `[9, 0]` for an H100. */
  capability: readonly [major: number, minor: number];
}

/** GPUs, as `torch.cuda`. Without CUDA nothing is available and `deviceCount` is 0. */
export const cuda = {
  /** Whether libtorch was built with CUDA and finds a GPU. PyTorch: `torch.cuda.is_available`. */
  isAvailable(): boolean {
    return native.cudaAvailable();
  },
  /** The CUDA that libtorch was built with, such as `13.0`; null without CUDA. PyTorch: `torch.version.cuda`. */
  version(): string | null {
    const { cuda, libraryPath } = native.buildInfo();
    return cuda ? cudaOf(dirname(dirname(libraryPath))) : null;
  },
  /** Number of GPUs that libtorch can use. PyTorch: `torch.cuda.device_count`. */
  deviceCount(): number {
    return native.cudaDeviceCount();
  },
  /** Waits for everything queued on a device (the current one by default). */
  synchronize(device?: number): void {
    if (device === undefined) native.cudaSynchronize();
    else native.cudaSynchronize(device);
  },
  /**
   * The GPUs that this process may use, in the order of their indices. The driver is asked, so they are named with a
   * libtorch without CUDA too, and nothing is allocated on them.
   */
  devices(): CudaDevice[] {
    const flat = native.cudaDevices();
    return Array.from({ length: flat.length / 4 }, (_, i) => {
      const [name, memoryBytes, major, minor] = flat.slice(4 * i) as [string, number, number, number];
      return { name, memoryBytes, capability: [major, minor] as const };
    });
  },
  /**
   * Whether float32 matrix products and cuDNN's convolutions may round their factors to TF32 (10 bits of mantissa),
   * which is several times faster. Both are off until asked for: float32 is float32. What is left out stays as it is.
   *
   * @returns how both stand now
   */
  allowTf32({ matmul, cudnn }: { matmul?: boolean | undefined; cudnn?: boolean | undefined } = {}): {
    matmul: boolean;
    cudnn: boolean;
  } {
    const [matmulBefore, cudnnBefore] = native.cudaAllowTf32();
    const after = { matmul: matmul ?? matmulBefore, cudnn: cudnn ?? cudnnBefore };
    native.cudaAllowTf32(after.matmul, after.cudnn);
    return after;
  },
  /**
   * Why norms and SwiGLU are left to ATen's kernels, which are slower: those of this package are compiled where they
   * are first used, and compared with ATen's. Null where they are used, or none has been needed yet.
   */
  kernelFailure(): string | null {
    return native.gpuProgramFailure() || null;
  },
  /** Bytes of the device's caching allocator; zeros while nothing has been allocated on it. */
  memory(device = 0): { allocatedBytes: number; reservedBytes: number; peakBytes: number } {
    const [allocatedBytes, reservedBytes, peakBytes] = native.cudaMemory(device);
    return { allocatedBytes, reservedBytes, peakBytes };
  },
};
