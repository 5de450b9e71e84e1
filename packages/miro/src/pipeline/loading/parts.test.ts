import { fileURLToPath } from "node:url";
import { memory } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { MiroPipeline } from "../pipeline.js";
import type { FromPretrainedOptions } from "./load-options.js";
import { countedSignal } from "./testing/counted-signal.js";

const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
const load = (options: FromPretrainedOptions = {}) =>
  MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
    dtype: "float32",
    textEncoder: `${tiny}/text_encoder`,
    vae: `${tiny}/vae`,
    ...options,
  });

async function pictures(pipe: MiroPipeline, prompts = ["a cat", "a dog"]): Promise<string[]> {
  const { images } = await pipe.generate(prompts, { steps: 2, seed: 3 });
  return images.map(({ data }) => Buffer.from(data).toString("hex"));
}

describe("with lowMemory", () => {
  it("draws the same pictures, and holds no part between calls", async () => {
    const [usual, low] = [await load(), await load({ lowMemory: true })];
    const expected = await pictures(usual);
    await usual.dispose();
    const idle = memory.stats();
    // Two calls at once take turns.
    expect(await Promise.all([pictures(low), pictures(low)])).toEqual([expected, expected]);
    expect(memory.stats().liveTensors).toBe(idle.liveTensors);
    expect(memory.stats().liveBytes).toBeLessThanOrEqual(idle.liveBytes);
    await low.dispose();
  });

  it("frees the parts when a call fails or is stopped", async () => {
    const pipe = await load({ lowMemory: true });
    const idle = memory.stats().liveTensors;
    const stop = new AbortController();
    const call = pipe.generate("a cat", { steps: 5, signal: stop.signal, onStep: () => stop.abort() });
    await expect(call).rejects.toThrow(/abort/i);
    expect(memory.stats().liveTensors).toBe(idle);
    await pipe.dispose();
  });

  it("reads a part when it is asked for by name", async () => {
    const pipe = await load({ lowMemory: true });
    expect(pipe.network.latents.shape).toEqual([pipe.config.network.numLatents, pipe.config.network.latentsDim]);
    expect(pipe.autoencoder.latentChannels).toBe(4);
    await pipe.dispose();
  });

  it("refuses a wrong autoencoder before drawing", async () => {
    await expect(load({ lowMemory: true, vae: `${tiny}/text_encoder` })).rejects.toThrow(
      /_class_name: expected one of/,
    );
  });
});

describe("the text encoder", () => {
  it("is freed on request, also while texts are encoded, and comes back", async () => {
    const pipe = await load();
    const before = memory.stats().liveTensors;
    const expected = await pictures(pipe);
    await pipe.freeTextEncoder();
    expect(memory.stats().liveTensors).toBe(before);
    const [again] = await Promise.all([pictures(pipe), pipe.freeTextEncoder()]);
    expect(again).toEqual(expected);
    await pipe.dispose();
  });

  it("has the dtype that is asked for, float32 where it is small", async () => {
    const dtypes = await Promise.all(
      (["auto", "float32", "bfloat16"] as const).map(async (textEncoderDtype) => {
        const pipe = await load({ textEncoderDtype, dtype: "auto" });
        const { encoder } = await pipe.textEncoder();
        const { dtype } = encoder.stateDict().get("shared.weight")!;
        await pipe.dispose();
        return dtype;
      }),
    );
    expect(dtypes).toEqual(["float32", "float32", "bfloat16"]);
    await expect(load({ textEncoderDtype: "float16" as "auto" })).rejects.toThrow(
      'textEncoderDtype: expected one of auto, float32, bfloat16, received "float16"',
    );
  });
});

describe("loading", () => {
  it.each([{}, { dtype: "bfloat16" }, { lowMemory: true }, { quantization: "int8" }] as const)(
    "of %j can be given up between any tensors, and leaves nothing behind",
    async (options) => {
      const before = memory.stats().liveTensors;
      const whole = countedSignal(Number.POSITIVE_INFINITY);
      await (await load({ ...options, signal: whole.signal })).dispose();
      expect(whole.looks()).toBeGreaterThan(100);
      for (const part of [0.01, 0.3, 0.6, 1]) {
        const { signal } = countedSignal(Math.ceil(part * whole.looks()));
        await expect(load({ ...options, signal })).rejects.toThrow("enough");
        expect(memory.stats().liveTensors).toBe(before);
      }
    },
  );

  it("lets other work run", async () => {
    let turns = 0;
    const turn = () => void turns++;
    const immediate = setImmediate(turn);
    const pipe = await load();
    clearImmediate(immediate);
    expect(turns).toBe(1);
    await pipe.dispose();
  });

  it("of the text encoder ends with the pipeline, for whoever waits too", async () => {
    const before = memory.stats().liveTensors;
    const pipe = await load();
    const call = pipe.generate("a cat", { steps: 1 });
    const encoder = pipe.textEncoder();
    const [called, loaded] = [expect(call), expect(encoder)].map((one) => one.rejects.toThrow(/was disposed of/));
    await pipe.dispose();
    await Promise.all([called, loaded]);
    expect(memory.stats().liveTensors).toBe(before);
  });

  it.each([1, 2, 3, 4])(
    "of the text encoder goes on for who waits beside a call that ends after %i turns",
    async (turns) => {
      const pipe = await load({ lowMemory: true });
      const stop = new AbortController();
      const encoder = pipe.textEncoder();
      const stopped = expect(pipe.generate("a cat", { steps: 10_000, signal: stop.signal })).rejects.toThrow(/aborted/);
      for (let i = 0; i < turns; i++) await new Promise(setImmediate);
      stop.abort();
      expect((await encoder).tokenizer.encode("a fox").length).toBeGreaterThan(1);
      await stopped;
      await pipe.dispose();
    },
  );

  it("of a part whose turn has come ends with its call, and the next one loads it again", async () => {
    const pipe = await load({ lowMemory: true });
    const whole = countedSignal(Number.POSITIVE_INFINITY);
    const draw = (signal: AbortSignal) => pipe.generate("a cat", { steps: 1, signal });
    await draw(whole.signal);
    const idle = memory.stats().liveTensors;
    for (const part of [0.2, 0.5, 0.9]) {
      await expect(draw(countedSignal(Math.ceil(part * whole.looks())).signal)).rejects.toThrow("enough");
      expect(memory.stats().liveTensors).toBe(idle);
    }
    expect((await draw(new AbortController().signal)).images).toHaveLength(1);
    await pipe.dispose();
  });
});
