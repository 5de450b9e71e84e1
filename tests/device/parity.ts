/** Parity with the recordings of the Python reference, as `npm run parity` has it. TF32 is off. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cuda } from "@miro-t2i/torch";
import { CHECKS, computeOn, type ParityDType } from "../parity/checks.js";
import { isShare, type Row } from "../parity/report.js";
import { loadReference, referenceFolder } from "../reference/fixture.js";
import { inWords, type Phase } from "./checks.js";

export const parity =
  (dtype: ParityDType): Phase =>
  async (checks) => {
    cuda.allowTf32({ matmul: false, cudnn: false });
    computeOn(checks.device, dtype);
    for (const size of ["tiny", "small"]) {
      const folder = referenceFolder(size);
      if (!existsSync(join(folder, "reference.json"))) {
        const how = `python tests/reference/make_reference.py .cache/reference/${size} --size ${size}`;
        checks.doesNotApply(`size ${size}`, `not recorded here; ${how}`);
        continue;
      }
      const reference = loadReference(folder, checks.device);
      for (const check of CHECKS) {
        if ((dtype !== "float32" && !check.inHalf) || !check.recorded(reference)) continue;
        try {
          for (const row of await check.run(reference))
            checks.tell({ check: `${size}: ${row.check}`, state: row.ok ? "ok" : "failed", said: figureOf(row) });
        } catch (error) {
          checks.failed(`${size}: ${check.name}`, error as Error);
        }
      }
      reference.close();
    }
  };

function figureOf(row: Row): string {
  const { measure, compared, figure, bound, worst, ok } = row;
  if (measure === "different") return `${figure} of ${compared} differ, at most ${bound}`;
  if (isShare(row)) return `${(100 * figure).toFixed(3)} % of values ${measure}, at least ${100 * bound} %`;
  return `${measure} error ${figure.toExponential(1)}, at most ${inWords(bound)}${ok || worst === "" ? "" : ` (${worst})`}`;
}
