/** Times for people. */

/** Seconds as a clock shows them: `57:20`, `1:02:03`, `2 d 4 h`; `?` where they are not known. */
export function clock(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.round(seconds));
  if (whole >= 48 * 3600) return `${Math.floor(whole / 86_400)} d ${Math.floor(whole / 3600) % 24} h`;
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}
