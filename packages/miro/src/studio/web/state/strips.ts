/** Strips: below a slider, the picture at five targets of its reward. */
import { messageOf } from "./api.js";
import { form, lastSeed, randomSeed, requestOf, snap, targetsOf } from "./form.js";
import { cancel, forget, isEnded, jobs, submit } from "./jobs.js";
import { tell } from "./notices.js";

export const STRIP = [0, 0.25, 0.5, 0.75, 1].map(snap);

export async function drawStrip(key: string): Promise<void> {
  const { seed, randomSeed: random } = form.value;
  const { previewEvery: _, ...request } = requestOf();
  const chosen = random ? (lastSeed.value ?? randomSeed()) : seed;
  try {
    closeStrip(key);
    await submit(
      {
        ...request,
        imagesPerPrompt: STRIP.length,
        seed: STRIP.map(() => chosen),
        rewardTargets: STRIP.map((target) => ({ ...targetsOf(), [key]: target })),
      },
      STRIP.length,
      { kind: "strip", key },
    );
  } catch (error) {
    tell(messageOf(error), { kind: "bad" });
  }
}

export function stripOf(key: string) {
  return jobs.value.find(({ purpose }) => purpose.kind === "strip" && purpose.key === key) ?? null;
}

/** Takes a strip away, and ends its drawing. */
export function closeStrip(key: string): void {
  const job = stripOf(key);
  if (job === null) return;
  if (!isEnded(job.state.value)) void cancel(job).catch((error) => tell(messageOf(error), { kind: "bad" }));
  forget(job);
}
