import { memory, noGrad, ones, rand, randn, scope, type Tensor } from "@miro-t2i/torch";
import { expect, test } from "vitest";
import { type Conditioning, narrowConditioning } from "../networks/conditioning.js";
import { parsePrecondConfig } from "../networks/config.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { tinyConfig } from "../networks/testing/tiny-config.js";
import { guidedVelocity, type Predict } from "./guidance.js";
import type { Capture } from "./recording.js";
import { release } from "./release.js";
import { ReplayedPredict } from "./replay.js";
import { samplerMethod, samplerNames, withOptionsOf } from "./samplers/index.js";
import { sample } from "./sampling.js";
import { LinearSchedule } from "./schedule.js";
import { rerun } from "./testing/rerun.js";

const KEYS = ["a", "b"];

let captures = 0;
const counted: Capture = (body) => {
  captures++;
  return rerun(body);
};

function network() {
  const rin = new Rin(tinyConfig({ coherence_keys: KEYS, num_blocks: 1 }));
  const precond = new FlowPrecond(parsePrecondConfig({ num_latents: 12, latents_dim: 64 }));
  for (const module of [rin, precond]) module.requiresGrad_(false).eval();
  const predict: Predict<Conditioning> = (y, gamma, conditioning, previousLatents) =>
    precond.apply(rin, { y, gamma, conditioning, previousLatents });
  const condition = (rows: number, tokens: number) =>
    rin.condition({
      textEmbeddings: randn([rows, tokens, 24]),
      textMask: ones([rows, tokens], { dtype: "bool" }),
      rewards: Object.fromEntries(KEYS.map((key) => [key, rand([rows])])),
    });
  return { predict, condition, dispose: () => [rin, precond].forEach((module) => void module.dispose()) };
}

async function draw(predict: Predict<Conditioning>, both: Conditioning, x: Tensor, sampler: string) {
  const conditional = scope(() => narrowConditioning(both, 0, 1));
  const guidance = { scale: 3, type: "constant", start: 0, end: 2 } as const;
  const model = guidedVelocity({ predict, guidance, both, conditional });
  const result = await sample(samplerMethod(sampler), model, x, new LinearSchedule().grid(4), {
    options: withOptionsOf(sampler, { eta: 0 }) ?? {},
  });
  const bytes = Buffer.from((result.data() as Float32Array).buffer);
  release([result, conditional]);
  return bytes;
}

test("recorded evaluations give the bytes of ordinary ones, for every sampler, window and conditioning", async () => {
  const { predict, condition, dispose } = network();
  const replayed = new ReplayedPredict(predict, counted);
  const inputs = noGrad(() =>
    scope(() => [
      { both: condition(2, 5), x: randn([1, 4, 8, 8]) },
      { both: condition(2, 5), x: randn([1, 4, 8, 8]) },
      { both: condition(2, 3), x: randn([1, 4, 8, 8]) },
    ]),
  );
  for (const sampler of samplerNames()) {
    for (const { both, x } of inputs) {
      const recorded = await draw(replayed.predict, both, x, sampler);
      expect(recorded.equals(await draw(predict, both, x, sampler)), sampler).toBe(true);
    }
  }
  replayed.dispose();
  for (const { both, x } of inputs) release([both, x]);
  dispose();
});

test("a recording is made once for each shape, the first evaluation's included; nothing stays behind", async () => {
  const { predict, condition, dispose } = network();
  // Everything is given back by hand here, so that the count does not depend on what a collection finds.
  const live = memory.stats().liveTensors;
  const replayed = new ReplayedPredict(predict, counted);
  const run = async (tokens: number) => {
    const { both, x } = noGrad(() => scope(() => ({ both: condition(2, tokens), x: randn([1, 4, 8, 8]) })));
    await draw(replayed.predict, both, x, "euler");
    release([both, x]);
  };
  captures = 0;
  await run(5);
  expect(captures).toBe(3); // the first evaluation, guided steps, and those after the window
  await run(5);
  expect(captures).toBe(3);
  await run(4);
  expect(captures).toBe(6);
  await run(5);
  expect(captures).toBe(6); // the earlier ones are kept
  for (const tokens of [6, 7, 8, 9]) await run(tokens);
  expect(captures).toBe(18);
  await run(9);
  expect(captures).toBe(18);
  await run(4); // 16 are kept: two of its three had to go, and the third goes for the first of them
  expect(captures).toBe(21);
  replayed.dispose();
  expect(memory.stats().liveTensors).toBe(live);
  dispose();
});

test("where recording fails the picture is drawn all the same, and the reason is kept; a lack of memory is an error", async () => {
  const { predict, condition, dispose } = network();
  const { both, x } = noGrad(() => scope(() => ({ both: condition(2, 5), x: randn([1, 4, 8, 8]) })));
  captures = 0;
  const failing = (message: string) =>
    new ReplayedPredict(predict, () => {
      captures++;
      throw new Error(message);
    });
  const refused = failing("operation not permitted when stream is capturing");
  expect(refused.failure).toBeNull();
  const drawn = await draw(refused.predict, both, x, "euler");
  expect(drawn.equals(await draw(predict, both, x, "euler"))).toBe(true);
  expect(refused.failure?.message).toContain("capturing");
  expect(captures).toBe(1); // not tried again
  const full = failing("CUDA out of memory. Tried to allocate 2.00 GiB");
  await expect(draw(full.predict, both, x, "euler")).rejects.toThrow("out of memory");
  expect(full.failure).toBeNull();
  dispose();
});
