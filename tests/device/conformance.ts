/** Every line of the operator table on the device: values that PyTorch recorded, gradients by finite differences. */
import { type DType, setNumThreads } from "@miro-t2i/torch";
import { type Checks, must } from "./checks.js";

type Table = typeof import("../../packages/torch/src/testing/op-table.js");
type Judge = typeof import("../../packages/torch/src/testing/op-conformance.js");

/** The engine's compiled test helpers: they are no part of its package. */
const helper = (name: string) => new URL(`../../../packages/torch/dist/testing/${name}.js`, import.meta.url).href;

/** Lines whose failures are said; the details have all. */
const SHOWN = 3;

export async function conformance(checks: Checks): Promise<void> {
  const { DTYPES, table, recorded } = (await import(helper("op-table"))) as Table;
  const { gradientMismatches, valueMismatch } = (await import(helper("op-conformance"))) as Judge;
  setNumThreads(1); // tiny tensors: waking a second thread costs more than the work
  const lines = table.map((text, i) => ({ text, spec: JSON.parse(text), want: recorded[i]! }));

  const all = async (name: string, chosen: typeof lines, judge: (line: (typeof lines)[number]) => string | null) =>
    checks.check(name, () => {
      must(chosen.length > 0, "the table has no such line");
      const wrong = chosen.flatMap((line) => {
        try {
          const what = judge(line);
          return what === null ? [] : [`${line.text}: ${what}`];
        } catch (error) {
          return [`${line.text}: ${(error as Error).message.split("\n")[0]}`];
        }
      });
      const more = wrong.length > SHOWN ? ` … ${wrong.length - SHOWN} more` : "";
      const summary = `${wrong.length} of ${chosen.length} lines: ${wrong.slice(0, SHOWN).join("; ")}${more}`;
      must(wrong.length === 0, [summary, ...wrong].join("\n"));
      return `${chosen.length} lines`;
    });

  await checks.check("the recorded values belong to the table", () => {
    const odd = lines.find(({ text, want }) => want?.case !== text);
    must(odd === undefined, `line ${odd?.text} is not recorded; run python tests/reference/record_ops.py`);
    return `${lines.length} lines`;
  });
  const dtypesOf = ({ spec }: (typeof lines)[number]): DType[] => DTYPES[spec.dtypes ?? "float"]!;
  for (const dtype of [...new Set(lines.flatMap(dtypesOf))])
    await all(
      `values in ${dtype}`,
      lines.filter((line) => dtypesOf(line).includes(dtype)),
      ({ spec, want }) => valueMismatch(spec, want, dtype, checks.device),
    );
  await all(
    "gradients against finite differences",
    lines.filter(({ spec }) => spec.grad !== 0),
    ({ spec }) => gradientMismatches(spec, checks.device)[0] ?? null,
  );
}
