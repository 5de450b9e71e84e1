import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { exportedFrom, undocumented, undocumentedOptions } from "./check-docs.mjs";

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

test("follows what an entry point exports to where it is declared", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "miro-entries-"));
  try {
    writeFileSync(path.join(folder, "index.ts"), 'export { a, type B } from "./a.js";\nexport * from "./b.js";\n');
    writeFileSync(path.join(folder, "a.ts"), "export const a = 1;\nexport interface B {}\nexport const hidden = 2;\n");
    writeFileSync(path.join(folder, "b.ts"), 'export { c } from "./c.js";\n');
    writeFileSync(path.join(folder, "c.ts"), "export function c() {}\nexport function d() {}\n");
    const found = [...exportedFrom(path.join(folder, "index.ts"))].map(([file, names]) => [
      path.basename(file),
      [...(names as Set<string>)],
    ]);
    expect(found).toEqual([
      ["a.ts", ["a", "B"]],
      ["c.ts", ["c"]],
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("options need a documentation comment", () => {
  const text = `const schema = z.strictObject({
  /** Documented. */
  first: field(z.int(), { expected: "an integer", help: "documented" }),
  second: field(
    z.int(),
  ),
  signal: abortSignal("stops"),
  third: z.int(),
});`;
  expect(undocumentedOptions(text)).toEqual([
    [4, "second"],
    [7, "signal"],
  ]);
});
