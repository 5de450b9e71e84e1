/** Day and time of this place, for names of folders and files: `2026-01-31` and `09-05-00`. */
export function localTime(date: Date): { day: string; time: string } {
  const text = new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString();
  return { day: text.slice(0, 10), time: text.slice(11, 19).replaceAll(":", "-") };
}
