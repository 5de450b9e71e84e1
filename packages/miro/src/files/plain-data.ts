/**
 * Data of a file that a stranger may have written, before it is merged into other data: without the names by which an
 * object reaches the objects of the program, without circles, and of a size that can be walked.
 */
import { describe, InvalidInputError } from "../errors.js";

/**
 * Keys that mean an object's own machinery; merged into another object they would change every object of the program.
 */
const RESERVED = new Set(["__proto__", "constructor", "prototype"]);
const MAX_DEPTH = 100;
const MAX_VALUES = 1_000_000;

/** @throws InvalidInputError naming the place, when the key is one that an object has by itself */
export function checkKey(key: string, where: string): void {
  if (RESERVED.has(key)) {
    throw new InvalidInputError(`${where}: the key ${JSON.stringify(key)} is not allowed: it is no setting; remove it`);
  }
}

/**
 * Checks all keys and the shape of a value.
 *
 * @param where words for a path within it (`a.b.c`), for errors: file and line
 * @throws InvalidInputError naming the place of a key that is not allowed, of a value that holds itself, or of one too
 *   deep or too large
 */
export function checkPlainData(value: unknown, where: (place: string) => string): void {
  const open = new Set<object>();
  let count = 0;
  const walk = (value: unknown, place: string): void => {
    if (typeof value !== "object" || value === null) return;
    if (open.has(value)) throw new InvalidInputError(`${where(place)}: ${named(place)} holds itself; write it out`);
    if (open.size >= MAX_DEPTH) {
      throw new InvalidInputError(`${where(place)}: ${named(place)} lies more than ${MAX_DEPTH} levels deep`);
    }
    open.add(value);
    for (const [key, item] of Object.entries(value)) {
      const inside = place === "" ? key : `${place}.${key}`;
      if (!Array.isArray(value)) checkKey(key, where(inside));
      count++;
      if (count > MAX_VALUES) throw new InvalidInputError(`${where(inside)}: more than ${MAX_VALUES} values`);
      walk(item, inside);
    }
    open.delete(value);
  };
  walk(value, "");
}

function named(place: string): string {
  return place === "" ? "the whole" : describe(place);
}
