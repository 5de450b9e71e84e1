/**
 * How many operations a second a GPU does by its vendor's data sheet: what model FLOPs utilisation (MFU; Chowdhery et
 * al. 2022, appendix B) is a share of. Products of dense matrices; float32 without TF32.
 */

/** 10¹² operations a second. */
interface Peak {
  float32: number;
  /** bfloat16 and float16, on tensor cores. */
  half: number;
}

/** By the names that CUDA gives. Where the forms of a GPU differ in clocks, each has its own name. */
const PEAKS: [name: RegExp, peak: Peak][] = [
  [/^NVIDIA A100[ -]/, { float32: 19.5, half: 312 }],
  [/^NVIDIA L40S$/, { float32: 91.6, half: 362 }],
  [/^NVIDIA H100 PCIe$/, { float32: 51, half: 756 }],
  [/^NVIDIA H[12]00 NVL$/, { float32: 60, half: 835 }],
  [/^NVIDIA (H100 80GB HBM3|H200|GH200 .*)$/, { float32: 67, half: 989 }],
  [/^NVIDIA B200$/, { float32: 75, half: 2250 }],
];

/** 10¹² operations a second of a device with this name; null where they are not known, as of a part of a GPU (MIG). */
export function dataSheetTflops(name: string, dtype: "float32" | "bfloat16" | "float16"): number | null {
  if (/\bMIG\b/.test(name)) return null;
  const peak = PEAKS.find(([pattern]) => pattern.test(name))?.[1];
  return peak?.[dtype === "float32" ? "float32" : "half"] ?? null;
}
