/** Short notices at the edge of the page, some with something to do. */
import { signal } from "@preact/signals";

export interface Notice {
  id: number;
  /** What it is about; a later notice of the same takes its place. */
  topic: string;
  text: string;
  kind: "good" | "bad";
  action?: { label: string; run: () => void };
}

export const notices = signal<Notice[]>([]);
let next = 1;

/** @param topic by default the text: what is told again is there once */
export function tell(
  text: string,
  { topic = text, kind = "good", action, ms = 6000 }: Partial<Notice> & { ms?: number } = {},
): void {
  const id = next++;
  const others = notices.value.filter((notice) => notice.topic !== topic);
  notices.value = [...others.slice(-3), { id, topic, text, kind, ...(action && { action }) }];
  setTimeout(() => dismiss(id), kind === "bad" ? Math.max(ms, 9000) : ms);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export function dismissAll(): void {
  notices.value = [];
}
