/** Numbers for people: digits in groups of three, never an exponent. */

// Made once, with the first number: each takes a hundred times longer than to write one.
let whole: Intl.NumberFormat | undefined;
let threeDigits: Intl.NumberFormat | undefined;

/** `1,024`. */
export function wholeNumber(value: number): string {
  whole ??= new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  return whole.format(value);
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
  if (Math.abs(value) >= 100) return wholeNumber(value);
  threeDigits ??= new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
  return threeDigits.format(value);
}
