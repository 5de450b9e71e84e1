/**
 * Numbers as Python rounds and prints them, for pixels, files and file names that are compared with those of Python's
 * tools.
 */

/** `round(float)`: the nearest integer, of a half the even neighbour. */
export function pythonRound(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** `format(float, ".2f")`: that many digits behind the point, of a half the even last one. */
export function pythonFixed(value: number, digits: number): string {
  const [whole, rest = ""] = value.toFixed(EXACT_DIGITS).split(".") as [string, string?];
  const isHalf = /^50*$/.test(rest.slice(digits));
  const down = digits === 0 ? whole : `${whole}.${rest.slice(0, digits)}`;
  return isHalf && /[02468]$/.test(down) ? down : value.toFixed(digits);
}

/** Digits behind the point that a half needs at most, and more. */
const EXACT_DIGITS = 60;

/**
 * `repr(float)`: the shortest digits that give the number again, with `.0` on integers and an exponent below 1e-4 and
 * from 1e16 on.
 */
export function pythonFloat(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const [mantissa, power] = value.toExponential().split("e") as [string, string];
  const exponent = Number(power);
  if (value !== 0 && (exponent < -4 || exponent >= 16))
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  const negative = Object.is(value, -0) || value < 0;
  const digits = mantissa.replace(/[-.]/g, "");
  const text =
    exponent < 0
      ? `0.${"0".repeat(-exponent - 1)}${digits}`
      : `${digits.slice(0, exponent + 1).padEnd(exponent + 1, "0")}.${digits.slice(exponent + 1) || "0"}`;
  return negative ? `-${text}` : text;
}
