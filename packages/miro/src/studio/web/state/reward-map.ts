/** The reward map: one seed, two rewards, a grid of pictures over both targets, from coarse to fine. */
import { computed, effect, signal } from "@preact/signals";
import { messageOf } from "./api.js";
import { form, lastSeed, model, newId, randomSeed, requestOf, snap, targetsOf } from "./form.js";
import { cancel, isEnded, jobs, onJobEvent, submit } from "./jobs.js";
import { mapLevels } from "./map-order.js";
import { tell } from "./notices.js";
import { session } from "./storage.js";

export interface RewardMap {
  id: string;
  /** Rewards along x and y. */
  x: string;
  y: string;
  side: number;
  seed: number;
  prompt: string;
  /** What is asked for, besides the two targets. */
  request: Record<string, unknown>;
  /** Pictures by cell; row 0 is the highest target of y. */
  pictures: Record<number, string>;
  running: boolean;
  error: string | null;
}

const STORED = "miro-studio-map";

export const rewardMap = signal<RewardMap | null>(null);
export const mapChoice = signal<{ x: string; y: string; side: number }>({ x: "", y: "", side: 5 });

/** The targets of a cell. */
export function targetsOfCell({ side }: { side: number }, cell: number): { x: number; y: number } {
  const [column, row] = [cell % side, Math.floor(cell / side)];
  return { x: snap(column / (side - 1)), y: snap(1 - row / (side - 1)) };
}

/** Pictures of cells that are being drawn. */
export const mapPreviews = computed(() => {
  const previews: Record<number, string> = {};
  for (const { purpose, state } of jobs.value) {
    if (purpose.kind !== "map" || purpose.map !== rewardMap.value?.id) continue;
    for (const [i, { preview, picture }] of state.value.tiles.entries())
      if (preview !== null && picture === null && !isEnded(state.value)) previews[purpose.cells[i]!] = preview;
  }
  return previews;
});

export function startMap(): void {
  const { x, y, side } = mapChoice.value;
  const { seed, randomSeed: random } = form.value;
  const chosen = random ? (lastSeed.value ?? randomSeed()) : seed;
  const { previewEvery: _, ...request } = requestOf();
  void stopMap();
  rewardMap.value = {
    id: newId(),
    x,
    y,
    side,
    seed: chosen,
    prompt: form.value.prompt.trim(),
    request,
    pictures: {},
    running: true,
    error: null,
  };
  void next();
}

export async function stopMap(): Promise<void> {
  const map = rewardMap.value;
  if (map === null) return;
  rewardMap.value = { ...map, running: false };
  for (const job of jobs.value) {
    if (job.purpose.kind !== "map" || isEnded(job.state.value)) continue;
    await cancel(job).catch((error) => tell(messageOf(error), { kind: "bad" }));
  }
}

/** Asks for the next cells, as many as a job may have, so that other jobs come in between. */
async function next(): Promise<void> {
  const map = rewardMap.value;
  if (!map?.running) return;
  const most = Math.min(8, model.value?.limits.images ?? 1);
  const level = mapLevels(map.side)
    .map((cells) => cells.filter((cell) => !(cell in map.pictures)))
    .find((cells) => cells.length > 0);
  if (level === undefined) {
    rewardMap.value = { ...map, running: false };
    return;
  }
  const cells = level.slice(0, most);
  const base = (map.request.rewardTargets as ReturnType<typeof targetsOf>) ?? targetsOf();
  try {
    await submit(
      {
        ...map.request,
        imagesPerPrompt: cells.length,
        seed: cells.map(() => map.seed),
        rewardTargets: cells.map((cell) => {
          const { x, y } = targetsOfCell(map, cell);
          return { ...base, [map.x]: x, [map.y]: y };
        }),
        previewEvery: 4,
      },
      cells.length,
      { kind: "map", map: map.id, cells },
    );
  } catch (error) {
    if (rewardMap.value?.id === map.id)
      rewardMap.value = { ...rewardMap.value, running: false, error: messageOf(error) };
  }
}

export function startRewardMap(): void {
  const stored = session.getItem(STORED);
  if (stored !== null) {
    try {
      rewardMap.value = JSON.parse(stored) as RewardMap | null;
    } catch {
      session.removeItem(STORED); // not ours
    }
  }
  effect(() => session.setItem(STORED, JSON.stringify(rewardMap.value)));
  effect(() => {
    const keys = model.value?.rewards.map(({ key }) => key) ?? [];
    const { x, y, side } = mapChoice.peek();
    if (keys.length > 1 && (!keys.includes(x) || !keys.includes(y)))
      mapChoice.value = { x: keys[0]!, y: keys[1]!, side };
  });
  onJobEvent((job, event, image) => {
    const map = rewardMap.value;
    if (job.purpose.kind !== "map" || map === null || job.purpose.map !== map.id) return;
    if (event === "picture" && image !== null) {
      const id = job.state.value.tiles[image]!.picture!;
      rewardMap.value = { ...map, pictures: { ...map.pictures, [job.purpose.cells[image]!]: id } };
    }
    if (event === "done") void next();
    else if (event === "failed" || event === "lost")
      rewardMap.value = { ...map, running: false, error: job.state.value.error };
    else if (event === "cancelled") rewardMap.value = { ...map, running: false };
  });
}

/** After a reload: a map that waits for nothing goes on. */
export function resumeMap(): void {
  const map = rewardMap.value;
  const waits = jobs.value.some(({ purpose }) => purpose.kind === "map" && purpose.map === map?.id);
  if (map?.running && !waits) void next();
}
