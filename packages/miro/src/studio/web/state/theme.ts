/** Light, dark, or as the system has it. */
import { effect, signal } from "@preact/signals";
import { local } from "./storage.js";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const STORED = "miro-studio-theme";
const stored = local.getItem(STORED) as Theme | null;

export const theme = signal<Theme>(stored !== null && THEMES.includes(stored) ? stored : "system");

export function followTheme(): void {
  effect(() => {
    if (theme.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.value;
    local.setItem(STORED, theme.value);
  });
}
