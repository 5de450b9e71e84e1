/** The pictures that the gallery shows: as many as were scrolled to, newest first. */
import { batch, signal } from "@preact/signals";
import { ApiError, ask, askJson, messageOf, type PictureEntry } from "./api.js";
import { notices, tell } from "./notices.js";

/** Pictures of the first page, which is waited for, and of each further one. */
const FIRST_PAGE = 120;
const PAGE = 480;

export const pictures = signal<PictureEntry[]>([]);
export const query = signal<{ q: string; favourite: boolean }>({ q: "", favourite: false });
export const loading = signal(false);
/** Whether all pictures are there; null before the first answer. */
export const complete = signal<boolean | null>(null);
export const galleryError = signal<string | null>(null);
/** Pictures that are chosen, by id: the last two are compared, all of them make a sheet. */
export const chosen = signal<string[]>([]);
/** The picture that is shown large. */
export const shown = signal<PictureEntry | null>(null);
export const comparing = signal(false);

let cursor: string | null = null;
let turn = 0;

/** @param cursor of the page, null: the first */
function pageUrl(cursor: string | null): string {
  const { q, favourite } = query.value;
  const params = new URLSearchParams({ limit: String(cursor === null ? FIRST_PAGE : PAGE) });
  if (q.trim() !== "") params.set("q", q);
  if (favourite) params.set("favourite", "true");
  if (cursor !== null) params.set("cursor", cursor);
  return `api/pictures?${params}`;
}

/** Begins anew. */
export async function reload(): Promise<void> {
  turn++;
  cursor = null;
  loading.value = false;
  complete.value = null;
  await more(true);
}

export async function more(fresh = false): Promise<void> {
  if (loading.value || complete.value === true) return;
  const mine = turn;
  loading.value = true;
  try {
    const page = await askJson<{ pictures: PictureEntry[]; next: string | null }>(pageUrl(cursor));
    if (mine !== turn) return;
    batch(() => {
      const had = new Set(fresh ? [] : pictures.value.map(({ id }) => id));
      pictures.value = [...(fresh ? [] : pictures.value), ...page.pictures.filter(({ id }) => !had.has(id))];
      cursor = page.next;
      complete.value = page.next === null;
      galleryError.value = null;
    });
  } catch (error) {
    if (mine === turn && error instanceof ApiError && error.status !== 0) galleryError.value = messageOf(error);
  } finally {
    if (mine === turn) loading.value = false;
  }
}

/** Takes in what came since, as from another tab or program. */
export async function refresh(): Promise<void> {
  if (loading.value || complete.value === null) return;
  const mine = turn;
  try {
    const page = await askJson<{ pictures: PictureEntry[] }>(pageUrl(null));
    if (mine !== turn) return;
    const had = new Set(pictures.value.map(({ id }) => id));
    const fresh = page.pictures.filter(({ id }) => !had.has(id));
    // Where none of a page is known there may be more between, or all is another server's.
    if (fresh.length === page.pictures.length) await reload();
    else if (fresh.length > 0) pictures.value = [...fresh, ...pictures.value];
  } catch {
    // They are there after the next reload of the gallery.
  }
}

/** A picture was drawn: it comes first, where the search is for everything. */
export async function arrived(id: string): Promise<void> {
  const { q, favourite } = query.value;
  if (q.trim() !== "" || favourite) return;
  try {
    const entry = await askJson<PictureEntry>(`api/pictures/${id}`);
    if (!pictures.value.some((one) => one.id === id)) pictures.value = [entry, ...pictures.value];
  } catch {
    // It is there after the next reload of the gallery.
  }
}

export async function setFavourite(entry: PictureEntry, favourite: boolean): Promise<void> {
  replace({ ...entry, favourite });
  try {
    await ask(`api/pictures/${entry.id}`, { method: "PATCH", json: { favourite } });
  } catch (error) {
    replace(entry);
    if (isGone(error)) leave(entry);
    tell(messageOf(error), { kind: "bad" });
  }
}

function replace(entry: PictureEntry): void {
  batch(() => {
    pictures.value = pictures.value.map((one) => (one.id === entry.id ? entry : one));
    if (shown.value?.id === entry.id) shown.value = entry;
  });
}

/** Pictures that have just been deleted, each with its place in the gallery, the last one last. */
let deleted: { entry: PictureEntry; place: number }[] = [];
const TRASH = "trash";

export async function remove(entry: PictureEntry): Promise<void> {
  const place = pictures.value.findIndex(({ id }) => id === entry.id);
  takeAway(entry);
  try {
    await ask(`api/pictures/${entry.id}`, { method: "DELETE" });
  } catch (error) {
    // One that is gone already stays so: its file was removed, or another tab has deleted it.
    if (isGone(error)) return;
    putBack(entry, place);
    tell(messageOf(error), { kind: "bad" });
    return;
  }
  // The notice offers those that were deleted while it was shown.
  if (!notices.value.some(({ topic }) => topic === TRASH)) deleted = [];
  deleted.push({ entry, place });
  tellDeleted();
}

function tellDeleted(): void {
  const text = deleted.length === 1 ? "The picture is in the trash." : `${deleted.length} pictures are in the trash.`;
  tell(text, { topic: TRASH, action: { label: "Undo", run: () => void undo() }, ms: 10_000 });
}

/** Brings back the picture that was deleted last; those before it can be brought back after it. */
async function undo(): Promise<void> {
  const last = deleted.pop();
  if (last === undefined) return;
  if (deleted.length > 0) tellDeleted();
  try {
    await ask(`api/pictures/${last.entry.id}/restore`, { method: "POST" });
    putBack(last.entry, last.place);
  } catch (error) {
    tell(messageOf(error), { kind: "bad" });
  }
}

/** What could not be shown: a picture that another tab or program has deleted leaves the gallery. */
export async function missed(entry: PictureEntry): Promise<void> {
  try {
    await ask(`api/pictures/${entry.id}`);
  } catch (error) {
    if (isGone(error)) leave(entry);
  }
}

/** A picture is there no more, here or shown large. */
function leave(entry: PictureEntry): void {
  batch(() => {
    takeAway(entry);
    if (shown.value?.id === entry.id) shown.value = null;
  });
}

function takeAway({ id: gone }: PictureEntry): void {
  pictures.value = pictures.value.filter(({ id }) => id !== gone);
  chosen.value = chosen.value.filter((id) => id !== gone);
}

function putBack(entry: PictureEntry, place: number): void {
  const all = pictures.value.filter(({ id }) => id !== entry.id);
  pictures.value = [...all.slice(0, Math.max(0, place)), entry, ...all.slice(Math.max(0, place))];
}

/** Whether the studio says that there is no such picture. */
function isGone(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** Most pictures of a sheet. */
const MOST_CHOSEN = 36;

/** Chooses a picture, or no more; of too many the oldest choice goes. */
export function choose(id: string): void {
  const others = chosen.value.filter((one) => one !== id);
  chosen.value = others.length < chosen.value.length ? others : [...others, id].slice(-MOST_CHOSEN);
}

export async function entryOf(id: string): Promise<PictureEntry> {
  return pictures.value.find((one) => one.id === id) ?? askJson<PictureEntry>(`api/pictures/${id}`);
}

/** Shows a picture large. */
export async function show(id: string): Promise<void> {
  try {
    shown.value = await entryOf(id);
  } catch (error) {
    tell(messageOf(error), { kind: "bad" });
  }
}
