import { full, type Tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import type { Predict } from "../flow/guidance.js";
import type { Conditioning } from "../networks/conditioning.js";
import { busyThreads } from "./busy-threads.js";
import type { Branches, TextStates } from "./conditioning.js";
import { Together } from "./together.js";

const SHAPE = [4, 8, 8];
const ROWS = [0, 1, 2, 3, 4, 5, 6, 7];

/** A network whose batches of more than `exact` rows round otherwise. */
function network(exact: number): { predict: Predict<Conditioning>; calls: number[] } {
  const calls: number[] = [];
  const predict: Predict<Conditioning> = (y) => {
    calls.push(y.size(0));
    return { D: y.size(0) > exact ? y.mul(1 + 1e-6) : y.mul(1), z: null };
  };
  return { predict, calls };
}

/** How many pictures go together, of texts of these lengths. */
async function leading(
  together: Together,
  { lengths = ROWS.map(() => 5), limit = 8 }: { lengths?: number[]; limit?: number } = {},
): Promise<number> {
  const embeddings = new Map<number, Tensor>(lengths.map((length) => [length, full([length, 2], 0)]));
  const condition = (): Branches => ({ both: {} as Conditioning, conditional: null });
  try {
    return await together.leading(ROWS.slice(0, lengths.length), {
      limit,
      textsOf: (row): TextStates[] => [{ embeddings: embeddings.get(lengths[row]!)! }],
      condition,
      signal: undefined,
    });
  } finally {
    for (const tensor of embeddings.values()) tensor.dispose();
  }
}

describe("pictures that are drawn together with deterministic", () => {
  it("are as many as equal, bit for bit, what each is alone", async () => {
    expect(await leading(new Together(network(100).predict, SHAPE))).toBe(8);
    // Both branches of guidance are rows: four pictures are eight.
    expect(await leading(new Together(network(8).predict, SHAPE))).toBe(4);
    expect(await leading(new Together(network(2).predict, SHAPE))).toBe(1);
  });

  it("have texts of one length, and are no more than asked for", async () => {
    const together = new Together(network(100).predict, SHAPE);
    expect(await leading(together, { lengths: [5, 5, 5, 6, 5] })).toBe(2);
    expect(await leading(together, { lengths: [5, 6] })).toBe(1);
    expect(await leading(together, { limit: 3 })).toBe(2);
  });

  it("are compared once for each shape", async () => {
    const { predict, calls } = network(100);
    const together = new Together(predict, SHAPE);
    await leading(together);
    const once = calls.length;
    await leading(together);
    expect(calls.length).toBe(once);
    await leading(together, { lengths: ROWS.map(() => 6) });
    expect(calls.length).toBe(2 * once);
  });
});

describe("threads of an evaluation", () => {
  it("are those that it keeps busy", () => {
    expect([0.8e9, 5e9, 6.3e9, 100e9].map((flops) => busyThreads(flops, 4))).toEqual([1, 1, 2, 4]);
    expect(busyThreads(100e9, 1)).toBe(1);
  });
});
