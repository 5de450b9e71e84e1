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
  /** Bytes of the device's caching allocator. */
  memory(device = 0): { allocatedBytes: number; reservedBytes: number; peakBytes: number } {
    const [allocatedBytes, reservedBytes, peakBytes] = native.cudaMemory(device);
    return { allocatedBytes, reservedBytes, peakBytes };
  },
};
