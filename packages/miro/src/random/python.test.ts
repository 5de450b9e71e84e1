import { describe, expect, it } from "vitest";
import { PythonRandom } from "./python.js";

// Recorded from CPython 3.11: shuffle(list(range(12))), sample(range(1000), 5), sample(range(30), 8),
// sample(range(10**6), 7), random()
const RECORDED = [
  [0, [1, 9, 8, 5, 10, 2, 3, 7, 4, 0, 11, 6], [516, 142, 288, 143, 773], [3, 19, 25, 8, 17, 22, 28, 4], [325213, 103560, 765284, 77324, 942500, 891786, 717209], 0.33019721859799855],
  [42, [7, 5, 2, 8, 9, 6, 11, 3, 4, 0, 1, 10], [32, 30, 95, 223, 238], [16, 19, 0, 17, 6, 22, 20, 24], [571412, 439898, 231148, 471029, 617889, 291704, 848749], 0.869300320792934],
  [1289738273, [11, 2, 8, 7, 1, 10, 4, 9, 0, 3, 6, 5], [10, 90, 385, 971, 49], [12, 0, 16, 21, 9, 27, 18, 25], [196244, 153326, 589510, 398501, 851849, 657281, 706923], 0.9005416259401605],
  [9028171318, [4, 5, 2, 3, 6, 9, 11, 7, 8, 0, 10, 1], [175, 456, 246, 524, 121], [24, 21, 22, 3, 13, 8, 4, 7], [825997, 274505, 971915, 419705, 935864, 198897, 153111], 0.773306707144912],
  [2 ** 40 + 5, [3, 5, 2, 9, 6, 7, 1, 10, 0, 4, 11, 8], [253, 671, 829, 389, 751], [3, 25, 17, 7, 14, 1, 29, 13], [46530, 345914, 934746, 818957, 460589, 299010, 136987], 0.7078769884640737],
] as const; // biome-ignore format: one seed a line

describe("Python's random numbers", () => {
  it.each(RECORDED)("of seed %d are the recorded ones", (seed, shuffled, thousand, thirty, million, last) => {
    const random = new PythonRandom(seed);
    expect(random.shuffle(Array.from({ length: 12 }, (_, i) => i))).toEqual(shuffled);
    expect(random.sample(1000, 5)).toEqual(thousand);
    expect(random.sample(30, 8)).toEqual(thirty);
    expect(random.sample(1_000_000, 7)).toEqual(million);
    expect(random.random()).toBe(last);
  });

  it("begin with the words that the generator's authors publish for their key", () => {
    // mt19937ar.out of the reference code: init_by_array({0x123, 0x234, 0x345, 0x456})
    const key = 0x123n + (0x234n << 32n) + (0x345n << 64n) + (0x456n << 96n);
    const random = new PythonRandom(key);
    expect([random.uint32(), random.uint32(), random.uint32()]).toEqual([1067595299, 955945823, 477289528]);
  });
});
