import { fileURLToPath } from "node:url";
import { memory, scope } from "@miro-t2i/torch";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { release } from "../flow/release.js";
import { MiroPipeline } from "./pipeline.js";
import type { Plan } from "./plan.js";
import { type EncodedPrompt, encodePrompts, encodeTexts, promptsTogether } from "./texts.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));
const LONG = Array.from({ length: 200 }, (_, i) => `word${i}`).join(" ");
const PROMPTS = ["a cat", "a red apple on a light blue background beside a bell", "", LONG, "a fox"];

let pipe: MiroPipeline;
beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
    dtype: "float32",
    textEncoder: `${tiny}/text_encoder`,
    vae: `${tiny}/vae`,
  });
});
afterAll(() => pipe.dispose());

describe("prompts in one batch", () => {
  it.each([false, true])(
    "have the states, lengths and cut words that they have alone (padding attended: %s)",
    async (padded) => {
      const encoder = await pipe.textEncoder();
      const network = { ...pipe.config.network, concatCondTokenToLatents: padded };
      const parts = { config: { ...pipe.config, network } };
      // The encoder keeps its bias for each length that it has seen.
      for (const some of [PROMPTS, ...PROMPTS.map((prompt) => [prompt])]) release(encodePrompts(encoder, some, parts));
      const before = memory.stats().liveTensors;
      const together = encodePrompts(encoder, PROMPTS, parts);
      for (const [i, prompt] of PROMPTS.entries()) {
        const [alone] = encodePrompts(encoder, [prompt], parts);
        const { embeddings, ...rest } = together[i]!;
        expect(rest).toEqual({ length: alone!.length, cut: alone!.cut });
        expect(embeddings.shape).toEqual(alone!.embeddings.shape);
        expect(scope(() => embeddings.sub(alone!.embeddings).abs().max().item())).toBeLessThan(1e-5);
        release(alone);
      }
      expect(together[3]!.cut).not.toBe("");
      release(together);
      expect(memory.stats().liveTensors).toBe(before);
    },
  );
});

describe("the texts of a call", () => {
  /** What was encoded at once, with states of one token each. */
  async function encoded(plan: Partial<Plan>, together: number): Promise<{ calls: string[][]; warnings: string[] }> {
    const encoder = await pipe.textEncoder();
    const [calls, warnings]: [string[][], string[]] = [[], []];
    const encode = async (texts: readonly string[]): Promise<EncodedPrompt[]> => {
      calls.push([...texts]);
      return encodePrompts(encoder, texts, { config: pipe.config });
    };
    const rows = [0, 1, 2, 3, 4];
    const every = { promptOf: (row: number) => row, promptEmbeddings: null, negativePrompts: null };
    const texts = await encodeTexts({ ...every, ...plan } as unknown as Plan, rows, {
      load: async () => {},
      encode,
      together,
      limit: pipe.config.settings.max_text_len,
      device: "cpu",
      warn: (warning) => void warnings.push(warning),
    });
    for (const row of rows) expect(texts.wanted.get(row)!.embeddings.size(0)).toBeGreaterThan(0);
    release(texts);
    return { calls, warnings };
  }

  it("are encoded once each, so many at once as the device takes, negative prompts among them", async () => {
    const prompts = ["a", "b", "a", LONG, "c"];
    const negativePrompts = ["", "", "b", "", "d"];
    const { calls, warnings } = await encoded({ prompts, negativePrompts }, 4);
    expect(calls).toEqual([
      ["a", "b", LONG, "c"],
      ["", "d"],
    ]);
    expect(warnings).toEqual([expect.stringMatching(/^the prompt "word0 word1 .* is longer than \d+ tokens/)]);
    expect((await encoded({ prompts, negativePrompts }, 1)).calls.flat()).toEqual(calls.flat());
  });

  it("are one at a time on a CPU, and where a picture must not depend on the others of its call", () => {
    expect(promptsTogether("cpu", false)).toBe(1);
    expect(promptsTogether("cuda:0", true)).toBe(1);
    expect(promptsTogether("cuda:0", false)).toBe(32);
  });
});
