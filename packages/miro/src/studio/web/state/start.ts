/** Begins: what was stored, what the server knows, and what goes on when it is back. */
import { effect, signal } from "@preact/signals";
import { connected, messageOf, returns } from "./api.js";
import { formError } from "./draw.js";
import { loadModels, startForm } from "./form.js";
import { arrived, complete, refresh, reload } from "./gallery.js";
import { onJobEvent, startJobs } from "./jobs.js";
import { startMask } from "./mask.js";
import { resumeMap, startRewardMap } from "./reward-map.js";
import { followTheme } from "./theme.js";

/** Why the page has no models yet. */
export const startError = signal<string | null>(null);

export function start(): void {
  followTheme();
  startForm();
  startMask();
  startRewardMap();
  onJobEvent((job, event, image) => {
    const id = event === "picture" && image !== null ? job.state.value.tiles[image]!.picture : null;
    if (id !== null) void arrived(id);
  });
  startJobs();
  const lookAgain = () => {
    if (!document.hidden && connected.value) void refresh();
  };
  document.addEventListener("visibilitychange", lookAgain);
  // Windows beside each other are all visible.
  window.addEventListener("focus", lookAgain);
  effect(() => {
    // What `begin` reads is none of this effect's business.
    if (returns.value >= 0) queueMicrotask(begin);
  });
}

async function begin(): Promise<void> {
  try {
    await loadModels();
    startError.value = null;
    if (formError.value?.isLost) formError.value = null;
    resumeMap();
  } catch (error) {
    startError.value = messageOf(error);
  }
  // What was scrolled to stays where only the connection was lost.
  await (complete.value === null ? reload() : refresh());
}
