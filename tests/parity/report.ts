/** How far two sets of numbers are apart, and the table of it. */
import { scope, type Tensor } from "@miro-t2i/torch";
import { relativeError } from "../reference/fixture.js";

/** One line of the table: the worst of the tensors that it compares. */
export interface Row {
  check: string;
  /** What was compared: how many tensors, ids or values. */
  compared: number;
  /** The measured figure, and what it is. */
  figure: number;
  measure: "relative" | "absolute" | "different" | "within one level" | "within two levels";
  bound: number;
  /** Which tensor was the worst. */
  worst: string;
  ok: boolean;
}

/** Whether a figure is a share, of which much is good. */
export const isShare = ({ measure }: Row): boolean => measure.startsWith("within");

/** The row of tensors that must agree within `bound`: by name, what came out and what was recorded. */
export function agreement(
  check: string,
  bound: number,
  pairs: Iterable<readonly [name: string, actual: Tensor, expected: Tensor]>,
): Row {
  let [figure, worst, compared] = [0, "", 0];
  for (const [name, actual, expected] of pairs) {
    const error = relativeError(actual, expected);
    compared++;
    if (!(error <= figure) || worst === "") [figure, worst] = [error, name];
  }
  return { check, compared, figure, measure: "relative", bound, worst, ok: compared > 0 && figure <= bound };
}

/** A row of numbers and their greatest difference. */
export class Absolute {
  #compared = 0;
  #figure = 0;
  #worst = "";
  constructor(
    readonly check: string,
    readonly bound: number,
  ) {}

  add(name: string, actual: Tensor, expected: Tensor): void {
    const same = String(actual.shape) === String(expected.shape);
    const error = same
      ? scope(
          () =>
            actual
              .to({ dtype: "float64" })
              .sub(expected.to({ dtype: "float64" }))
              .abs()
              .max()
              .item() as number,
        )
      : Number.NaN;
    this.#add(name, error);
  }

  addNumber(name: string, actual: number, expected: number): void {
    this.#add(name, Math.abs(actual - expected));
  }

  #add(name: string, error: number): void {
    this.#compared++;
    if (!(error <= this.#figure) || this.#worst === "") [this.#figure, this.#worst] = [error, name];
  }

  row(): Row {
    const { check, bound } = this;
    const ok = this.#compared > 0 && this.#figure <= bound;
    return {
      check,
      compared: this.#compared,
      figure: this.#figure,
      measure: "absolute",
      bound,
      worst: this.#worst,
      ok,
    };
  }
}

/** Lines of text for people. */
export function table(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.check,
    String(row.compared),
    isShare(row) ? `${(100 * row.figure).toFixed(3)} %` : row.figure.toExponential(1).replace("e+0", ""),
    isShare(row) ? `>= ${100 * row.bound} %` : `<= ${row.bound}`,
    row.ok ? "ok" : "FAIL",
    row.worst,
  ]);
  const all = [["check", "compared", "error", "bound", "", "worst"], ...cells];
  const widths = all[0]!.map((_, i) => Math.max(...all.map((line) => line[i]!.length)));
  return all
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
