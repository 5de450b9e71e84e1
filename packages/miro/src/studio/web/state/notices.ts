/** Short notices at the edge of the page, some with something to do. */
import { signal } from "@preact/signals";

export interface Notice {
  id: number;
  text: string;
  kind: "good" | "bad";
  action?: { label: string; run: () => void };
}

export const notices = signal<Notice[]>([]);
let next = 1;

export function tell(text: string, { kind = "good", action, ms = 6000 }: Partial<Notice> & { ms?: number } = {}): void {
  const id = next++;
  notices.value = [...notices.value.slice(-3), { id, text, kind, ...(action && { action }) }];
  setTimeout(() => dismiss(id), kind === "bad" ? Math.max(ms, 9000) : ms);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export function dismissAll(): void {
  notices.value = [];
}
