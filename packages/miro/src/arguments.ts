/**
 * Arguments as JavaScript gives them: types do not reach it. Functions of the public modules look at what they are
 * given before they use it, so that a wrong call has one error that names the argument.
 */
import { invalid } from "./errors.js";

/** @throws InvalidInputError unless it is the name of a file or folder */
export function checkName(parameter: string, value: unknown, expected: string): asserts value is string {
  if (typeof value !== "string" || value === "") throw invalid(parameter, expected, value);
}

/** @throws InvalidInputError unless it is a text, which may be empty */
export function checkText(parameter: string, value: unknown, expected = "a text"): asserts value is string {
  if (typeof value !== "string") throw invalid(parameter, expected, value);
}

/** @throws InvalidInputError unless it is a whole number from 1 */
export function checkCount(parameter: string, value: unknown): asserts value is number {
  if (!Number.isSafeInteger(value) || (value as number) < 1) throw invalid(parameter, "a whole number from 1", value);
}

/** @throws InvalidInputError unless it is one of `choices` */
export function checkChoice(parameter: string, value: unknown, choices: readonly string[]): void {
  if (!choices.includes(value as string)) throw invalid(parameter, `one of ${choices.join(", ")}`, value);
}

/** @throws InvalidInputError unless it is an object that has all of `fields` */
export function checkObject<T extends object>(
  parameter: string,
  value: T,
  expected: string,
  fields: readonly (keyof T & string)[] = [],
): void {
  if (!isObject(value) || fields.some((field) => value[field] === undefined)) throw invalid(parameter, expected, value);
}

/** @throws InvalidInputError unless it is a list whose entries are accepted */
export function checkList(
  parameter: string,
  value: unknown,
  expected: string,
  isEntry: (entry: unknown) => boolean = () => true,
): asserts value is readonly unknown[] {
  if (!Array.isArray(value) || !value.every(isEntry)) throw invalid(parameter, expected, value);
}

/** @throws InvalidInputError unless it is bytes */
export function checkBytes(parameter: string, value: unknown): asserts value is Uint8Array {
  if (!(value instanceof Uint8Array)) throw invalid(parameter, "the bytes of a picture's file", value);
}

/** @throws InvalidInputError unless it is a picture: 8-bit RGB */
export function checkImage(parameter: string, value: unknown): void {
  if (!isRgb(value))
    throw invalid(parameter, "{ width, height, data } of 8-bit RGB, width · height · 3 bytes of data", value);
}

/** Whether a value is 8-bit RGB with as many bytes as its sides say. */
export function isRgb(value: unknown): value is { width: number; height: number; data: Uint8Array } {
  const { width, height, data } = isObject(value) ? value : {};
  const isSide = (side: unknown): side is number => Number.isInteger(side) && (side as number) >= 1;
  return data instanceof Uint8Array && isSide(width) && isSide(height) && data.length === width * height * 3;
}

export const isText = (value: unknown): boolean => typeof value === "string";

/** Whether a value is an object, not a list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
