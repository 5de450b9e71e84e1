/** Texts of the command line to values; what is wrong is refused with the option's name. */
import { invalid } from "../errors.js";
import { checkKey } from "../files/plain-data.js";

/** A number, however it is written. Whether it is a sensible one, the option's schema decides. */
export function toNumber(option: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isNaN(value)) throw invalid(option, "a number", text);
    return value;
  };
}

/** A number, or one of some words. */
export function toNumberOr<W extends string>(option: string, words: readonly W[]): (text: string) => number | W {
  return (text) => words.find((word) => word === text) ?? toNumber(option)(text);
}

/** Collects `key=number` arguments. */
export function toTargets(option: string): (text: string, earlier?: Record<string, number>) => Record<string, number> {
  return (text, earlier = {}) => {
    const cut = text.indexOf("=");
    if (cut < 1) throw invalid(option, "key=value, for example clip_score=0.5", text);
    const key = text.slice(0, cut).trim();
    checkKey(key, option);
    return { ...earlier, [key]: toNumber(`${option} ${key}`)(text.slice(cut + 1)) };
  };
}

/** `FIRST:LAST` with either side optional. */
export function toWindow(option: string): (text: string) => [number, number | null] {
  return (text) => {
    const match = /^(\d*):(\d*)$/.exec(text);
    if (!match) throw invalid(option, "FIRST:LAST, for example 2:10 or 2:", text);
    return [match[1] === "" ? 0 : Number(match[1]), match[2] === "" ? null : Number(match[2])];
  };
}
