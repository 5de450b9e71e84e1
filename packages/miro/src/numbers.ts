/** Numbers for people: digits in groups of three, never an exponent. */

/** `1,024`. */
export function wholeNumber(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** The word for so many: `picture` for 1, else `pictures`. */
export function plural(count: number, one: string, several = `${one}s`): string {
  return count === 1 ? one : several;
}

/** `1 picture`, `2 pictures`, `1,024 pictures`. */
export function counted(count: number, one: string, several?: string): string {
  return `${wholeNumber(count)} ${plural(count, one, several)}`;
}

/** To three digits: `3,660`, `12.5`, `0.0123`; of larger numbers every digit before the point. */
export function shortNumber(value: number): string {
  return Math.abs(value) >= 100 ? wholeNumber(value) : value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}
