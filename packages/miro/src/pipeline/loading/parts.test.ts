import { fileURLToPath } from "node:url";
import { memory } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { MiroPipeline } from "../pipeline.js";
import type { FromPretrainedOptions } from "./load-options.js";

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
