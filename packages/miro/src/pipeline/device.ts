/** Devices and dtypes: what a name means on this machine. */
import { buildInfo, cuda, type DType } from "@miro-t2i/torch";
import { InvalidInputError } from "../errors.js";

/** What a pipeline may compute in. */
export const COMPUTE_DTYPES = ["auto", "float32", "bfloat16", "float16"] as const;
export type ComputeDType = (typeof COMPUTE_DTYPES)[number];

/** The devices that this machine and this build of libtorch offer. */
export function availableDevices(): string[] {
  const count = cuda.isAvailable() ? cuda.deviceCount() : 0;
  return ["cpu", ...(count > 0 ? ["cuda"] : []), ...Array.from({ length: count }, (_, i) => `cuda:${i}`)];
}

/** Checks a device's name. @throws InvalidInputError naming the devices that there are */
export function checkDevice(device: string, parameter = "device"): string {
  const available = availableDevices();
  if (available.includes(device)) return device;
  const why =
    device.startsWith("cuda") && available.length === 1 ? " (no CUDA device, or a libtorch without CUDA)" : "";
  throw new InvalidInputError(
    `${parameter}: ${JSON.stringify(device)} is not available${why}; available: ${available.join(", ")}`,
  );
}

/**
 * Networks with fewer parameters stay in float32 on a CPU, and so do decoders and text encoders everywhere: the rounding
 * between operators costs them as much as the faster products save, and the picture keeps its last bits.
 */
export const SMALL_NETWORK = 64e6;

/**
 * `auto` is bfloat16 on CUDA, and on processors whose bfloat16 products are faster than float32 ones for networks that are
 * not small; else float32.
 */
export function resolveDType(
  dtype: ComputeDType,
  device: string,
  parameters = Number.POSITIVE_INFINITY,
): Exclude<ComputeDType, "auto"> & DType {
  if (dtype !== "auto") return dtype;
  return device !== "cpu" || (buildInfo().fastBfloat16 && parameters >= SMALL_NETWORK) ? "bfloat16" : "float32";
}
