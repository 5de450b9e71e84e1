/**
 * Counter-based random numbers: what is drawn for a sample depends on (seed, epoch, sample, purpose) and on nothing
 * that was drawn before, so that any process can draw it at any time.
 *
 * Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
import { SAMPLE_DRAWS, type SampleDraw } from "./streams.js";

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;

/** Upper 32 bits of the product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const [al, ah, bl, bh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = ah * bl + ((al * bl) >>> 16);
  return (ah * bh + Math.floor(middle / 65536) + (al * bh + (middle & 0xffff)) / 65536) >>> 0;
}

/**
 * One block of four unsigned 32-bit numbers.
 * @param counter four and @param key two integers, of which the lower 32 bits count
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((word) => word >>> 0) as [number, number, number, number];
  let [k0, k1] = key.map((word) => word >>> 0) as [number, number];
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = [multiplyHigh(MULTIPLIERS[0], c0), Math.imul(MULTIPLIERS[0], c0) >>> 0];
    const [high1, low1] = [multiplyHigh(MULTIPLIERS[1], c2), Math.imul(MULTIPLIERS[1], c2) >>> 0];
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + WEYL[0]) >>> 0;
    k1 = (k1 + WEYL[1]) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * Where a draw belongs: seed, epoch and sample are non-negative integers, seed and sample up to 2⁵³, epoch up to 2³².
 */
export interface DrawKey {
  seed: number;
  epoch: number;
  sample: number;
  purpose: SampleDraw;
}

/** Four unsigned 32-bit numbers that belong to the key. */
function drawAt({ seed, epoch, sample, purpose }: DrawKey): [number, number, number, number] {
  const counter = [sample, Math.floor(sample / 2 ** 32), epoch, SAMPLE_DRAWS[purpose]] as const;
  return philox4x32(counter, [seed, Math.floor(seed / 2 ** 32)]);
}

/** Uniform in [0, 1), a multiple of 2⁻⁵³. */
export function uniformAt(key: DrawKey): number {
  const [high, low] = drawAt(key);
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}

/** A seed for a generator of tensors, below 2⁵³. */
export function seedAt(key: DrawKey): number {
  const [high, low] = drawAt(key);
  return (high >>> 11) * 2 ** 32 + low;
}
