/** What the buttons do: draw what the form says. */
import { signal } from "@preact/signals";
import { ApiError, type Model, messageOf } from "./api.js";
import { form, lastSeed, model, newId, randomSeed, requestOf, source } from "./form.js";
import { submit } from "./jobs.js";
import { maskFile } from "./mask.js";

/** What went wrong with the last request, and the field that it is about. */
export const formError = signal<{ message: string; field?: string | undefined; isLost?: boolean } | null>(null);
export const sending = signal(false);

/** @param compared models that draw the same, side by side; none: the chosen model */
export async function draw(compared: readonly Model[] = []): Promise<void> {
  if (sending.value) return;
  const { prompt, images, seed, randomSeed: random, bestOf, scorer, strength, variation, variationSeed } = form.value;
  if (prompt.trim() === "") {
    formError.value = { message: "Please enter a prompt.", field: "prompt" };
    return;
  }
  const chosen = model.value;
  if (chosen === null) return;
  const from = source.value;
  const first = random ? randomSeed() : seed;
  sending.value = true;
  const group = compared.length > 0 ? newId() : null;
  try {
    const mask = from === null ? null : await maskFile();
    for (const one of group === null ? [chosen] : compared) {
      await submit(
        {
          ...requestOf(one),
          imagesPerPrompt: images,
          seed: first,
          ...(bestOf > 1 && scorer !== "" && { bestOf: { n: bestOf, by: scorer } }),
          ...(from !== null && { strength }),
          ...(from?.kind === "picture" && { image: { picture: from.id } }),
          ...(variation > 0 &&
            !random && { variationSeed: variationSeed ?? randomSeed(), variationStrength: variation }),
        },
        images,
        group === null ? { kind: "draw" } : { kind: "compare", group, model: one.name },
        { ...(from?.kind === "file" && { image: from.file }), ...(mask && { mask }) },
      );
    }
    lastSeed.value = first;
    formError.value = null;
  } catch (error) {
    const { field, status } = error instanceof ApiError ? error : {};
    formError.value = { message: messageOf(error), field, isLost: status === 0 };
  } finally {
    sending.value = false;
  }
}
