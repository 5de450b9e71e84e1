/** Devices and dtypes: what a name means on this machine. */
import { buildInfo, cuda, type DType } from "@miro-t2i/torch";
import { z } from "zod";
import { checkText } from "../../arguments.js";
import { InvalidInputError, invalid } from "../../errors.js";
import { about, message } from "../../message.js";

/** What a pipeline may compute in. */
export const COMPUTE_DTYPES = ["auto", "float32", "bfloat16", "float16"] as const;
/** One of `COMPUTE_DTYPES`. */
export type ComputeDType = (typeof COMPUTE_DTYPES)[number];

/** The name of a device, which this machine may have or not. */
export const deviceName = z.string().regex(/^(?:cpu|cuda(?::\d+)?)$/, "expected cpu, cuda or cuda:N");

/**
 * The devices that this machine and this build of libtorch offer.
 *
 * @example
 * ```ts
 * import { availableDevices, MiroPipeline } from "miro-t2i";
 *
 * const device = availableDevices().includes("cuda") ? "cuda" : "cpu";
 * await using pipe = await MiroPipeline.fromPretrained("miro-emoji", { device });
 * console.log(pipe.device, pipe.dtype);
 * ```
 */
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
    message`${about(parameter)}: ${JSON.stringify(device)} is not available${why}; available: ${available.join(", ")}`,
  );
}

/**
 * Networks with fewer parameters stay in float32 on a CPU, and so do decoders and text encoders everywhere: the
 * rounding between operators costs them as much as the faster products save, and the picture keeps its last bits.
 */
export const SMALL_NETWORK = 64e6;

/** The index of a CUDA device by its name (`cuda` is the first), null for other devices. */
export function cudaIndex(device: string): number | null {
  const match = /^cuda(?::(\d+))?$/.exec(device);
  return match && Number(match[1] ?? 0);
}

/**
 * What a GPU computes in fastest without losing what the network needs: bfloat16 from Ampere on (capability 8.0),
 * float16 where there are tensor cores for it alone (Volta and Turing, 7.x), float32 before. A GPU that is not
 * described is taken for a new one.
 */
export function gpuDType(capability: readonly [major: number, minor: number] | undefined) {
  const major = capability?.[0] ?? 8;
  return major >= 8 ? "bfloat16" : major === 7 ? "float16" : "float32";
}

/**
 * `auto` follows the capability of a GPU (`gpuDType`). On a CPU it is bfloat16 on processors whose bfloat16 products
 * are faster than float32 ones, for networks that are not small; else float32.
 */
export function resolveDType(
  dtype: ComputeDType,
  device: string,
  parameters = Number.POSITIVE_INFINITY,
): Exclude<ComputeDType, "auto"> & DType {
  if (dtype !== "auto") return dtype;
  checkText("device", device, "cpu, cuda or cuda:N");
  if (typeof parameters !== "number") throw invalid("parameters", "a number", parameters);
  const gpu = cudaIndex(device);
  if (gpu !== null) return gpuDType(cuda.devices()[gpu]?.capability);
  return buildInfo().fastBfloat16 && parameters >= SMALL_NETWORK ? "bfloat16" : "float32";
}
