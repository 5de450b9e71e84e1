import { describe, expect, it } from "vitest";
import "../../emoji/register.js";
import { fileURLToPath } from "node:url";
import { registerScorer } from "../../rewards/registry.js";
import { SampleScores } from "./sample-scores.js";

let loaded = 0;
registerScorer({
  key: "length_score",
  name: "length",
  description: "of the caption",
  stage: "rewards",
  usesText: true,
  load: async () => {
    loaded++;
    return {
      name: "length",
      batchSize: 2,
      dispose: () => void loaded--,
      score: (_, texts) => texts.map((text) => (text === "none" ? Number.NaN : text.length)),
    };
  },
});

const image = { width: 2, height: 1, data: Uint8Array.of(255, 0, 0, 0, 0, 255) };
const samples = (...captions: string[]) => ({ images: captions.map(() => image), captions });
const open = (scorers: string[], scorerWeights: string[] = []) => new SampleScores({ scorers, scorerWeights }, {});
const published = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny/vae", import.meta.url));
const models = fileURLToPath(new URL("../../../../../models/miro-emoji", import.meta.url));

describe("scores of samples", () => {
  it("are the means of each scorer over the pictures that have one, and nothing stays loaded", async () => {
    const scores = open(["length_score", "sharpness", "length_score"]);
    expect(await scores.measure(samples("a", "none", "abc"))).toEqual({
      "samples/length_score": 2,
      "samples/sharpness": expect.any(Number),
    });
    expect(await scores.measure(samples("none"))).toEqual({ "samples/sharpness": expect.any(Number) });
    expect(loaded).toBe(0);
    expect(await open([]).measure(samples("a"))).toEqual({});
  });

  it("are refused before a run begins: unknown scorers and weights, and scorers that cannot judge", () => {
    expect(() => open(["beauty"])).toThrow(/^samples\.scorers: "beauty" is not known/);
    expect(() => open(["sharpness"], ["beauty=models/x"])).toThrow(/^weights: "beauty" is not known/);
    const clip = open(["emoji_clip_score"]);
    clip.checkFor("emoji", `${models}/vae`);
    expect(() => clip.checkFor("photos", published)).toThrow(
      /^samples\.scorers: emoji_clip_score .* cannot judge .*photos/,
    );
    open(["sharpness"]).checkFor("photos", published);
  });
});
