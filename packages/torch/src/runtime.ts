// Threads, devices, and what the engine was built against.
import { type BuildInfo, native } from "./native.js";

export type { BuildInfo } from "./native.js";

/** Threads that one operation of the calling thread uses. */
export function getNumThreads(): number {
  return native.getNumThreads();
}
export function setNumThreads(n: number): void {
  native.setNumThreads(n);
}

export function buildInfo(): BuildInfo {
  return native.buildInfo();
}

/** Every schema that libtorch's dispatcher knows, as text. */
export function schemas(): string[] {
  return native.schemas();
}

/** A GPU as NVIDIA's driver describes it. */
export interface CudaDevice {
  name: string;
  memoryBytes: number;
  /** Compute capability: `[8, 0]` for an A100, `[9, 0]` for an H100. */
  capability: readonly [major: number, minor: number];
}

export const cuda = {
  isAvailable(): boolean {
    return native.cudaAvailable();
  },
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
  allowTf32({ matmul, cudnn }: { matmul?: boolean; cudnn?: boolean } = {}): { matmul: boolean; cudnn: boolean } {
    const [matmulBefore, cudnnBefore] = native.cudaAllowTf32();
    const after = { matmul: matmul ?? matmulBefore, cudnn: cudnn ?? cudnnBefore };
    native.cudaAllowTf32(after.matmul, after.cudnn);
    return after;
  },
  /** Bytes of the device's caching allocator; zeros while nothing has been allocated on it. */
  memory(device = 0): { allocatedBytes: number; reservedBytes: number; peakBytes: number } {
    const [allocatedBytes, reservedBytes, peakBytes] = native.cudaMemory(device);
    return { allocatedBytes, reservedBytes, peakBytes };
  },
};
