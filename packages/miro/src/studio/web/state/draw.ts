/** What the buttons do: draw what the form says. */
import { signal } from "@preact/signals";
import { ApiError, messageOf } from "./api.js";
import { form, lastSeed, randomSeed, requestOf, source } from "./form.js";
import { submit } from "./jobs.js";

/** What went wrong with the last request, and the field that it is about. */
export const formError = signal<{ message: string; field?: string | undefined } | null>(null);
export const sending = signal(false);

/** @param others ids of models that draw the same, side by side */
export async function draw(models: readonly (string | undefined)[] = [undefined]): Promise<void> {
  const { prompt, images, seed, randomSeed: random, bestOf, scorer, strength, variation } = form.value;
  if (prompt.trim() === "") {
    formError.value = { message: "Please enter a prompt.", field: "prompt" };
    return;
  }
  const from = source.value;
  const first = random ? randomSeed() : seed;
  sending.value = true;
  try {
    for (const model of models) {
      await submit(
        {
          ...requestOf(),
          ...(model !== undefined && { model }),
          ...{ imagesPerPrompt: images, seed: first },
          ...(bestOf > 1 && scorer !== "" && { bestOf: { n: bestOf, by: scorer } }),
          ...(from !== null && { strength }),
          ...(from?.kind === "picture" && { image: { picture: from.id } }),
          ...(variation > 0 && !random && { variationSeed: randomSeed(), variationStrength: variation }),
        },
        images,
        { kind: "draw" },
        from?.kind === "file" ? { image: from.file } : {},
      );
    }
    lastSeed.value = first;
    formError.value = null;
  } catch (error) {
    formError.value = { message: messageOf(error), ...(error instanceof ApiError && { field: error.field }) };
  } finally {
    sending.value = false;
  }
}
