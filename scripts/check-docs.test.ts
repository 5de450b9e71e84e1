import { expect, test } from "vitest";
import { undocumented } from "./check-docs.mjs";

test("what is exported needs a documentation comment, and so do the members of classes and interfaces", () => {
  const text = `
/** Documented. */
export function first(): void {}
export function second(): void {}
/** An overload. */
export function third(a: number): void;
export function third(a: string): void;
function private(): void {}
export const fourth = 4;

/** A class. */
export class Fifth<T> extends Base {
  readonly #hidden = 1;
  readonly shown = 1;

  constructor(
    readonly given: T,
    /** Documented. */
    readonly told: T,
  ) {}

  /** @internal */
  own(): void {}

  override inherited(): void {}

  *walk(): void {
    return;
  }
}

/** @internal */
export interface Sixth {
  any: number;
}
/** An interface. */
export interface Seventh {
  some?: number;
  /** Documented. */
  other(): void;
}
`;
  expect(undocumented(text).map(([, name]) => name)).toEqual([
    "second",
    "fourth",
    "Fifth.shown",
    "Fifth.given",
    "Fifth.walk",
    "Seventh.some",
  ]);
});
