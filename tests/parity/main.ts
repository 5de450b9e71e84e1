/**
 * `npm run parity -- [--size tiny|small|full] [--reference DIR] [--device cpu|cuda|cuda:N]
 *   [--dtype float32|bfloat16|float16] [--json]`
 *
 * Compares this implementation with a recording of the Python reference and prints a table of the errors. The recording is of
 * float32 on a CPU; the bounds are wider on a GPU, and wider again in half precision.
 * Exit code 0: everything within its bound; 1: something is not; 2: there is no recording.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadReference, referenceFolder } from "../reference/fixture.js";
import { CHECKS, computeOn, type ParityDType } from "./checks.js";
import { type Row, table } from "./report.js";

const SIZES = ["tiny", "small", "full"];
const DTYPES: readonly ParityDType[] = ["float32", "bfloat16", "float16"];

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      size: { type: "string", default: "tiny" },
      reference: { type: "string" },
      device: { type: "string", default: "cpu" },
      dtype: { type: "string", default: "float32" },
      json: { type: "boolean", default: false },
    },
  });
  if (!SIZES.includes(values.size)) {
    console.error(`--size: expected one of ${SIZES.join(", ")}, received "${values.size}"`);
    return 2;
  }
  const folder = values.reference ?? referenceFolder(values.size);
  if (!existsSync(join(folder, "reference.json"))) {
    console.error(
      `${folder} holds no recording of the Python reference. To make one (the Python environment is described in tests/reference/README.md):\n` +
        `  python tests/reference/make_reference.py "${folder}" --size ${values.size}`,
    );
    return 2;
  }
  const dtype = DTYPES.find((known) => known === values.dtype);
  if (dtype === undefined) {
    console.error(`--dtype: expected one of ${DTYPES.join(", ")}, received "${values.dtype}"`);
    return 2;
  }
  if (values.device !== "cpu" && !/^cuda(:\d+)?$/.test(values.device)) {
    console.error(`--device: expected cpu, cuda or cuda:N, received "${values.device}"`);
    return 2;
  }
  computeOn(values.device, dtype);
  const reference = loadReference(folder, values.device);
  if (reference.info.size !== values.size) {
    console.error(`${folder} was recorded at size ${reference.info.size}, not ${values.size}`);
    return 2;
  }
  console.error(
    `comparing with ${folder}: size ${reference.info.size}, ${(reference.info.parameters / 1e6).toFixed(1)}M parameters, torch ${reference.info.torch}`,
  );
  const rows: Row[] = [];
  for (const check of CHECKS) {
    if (dtype !== "float32" && !check.inHalf) {
      console.error(`${check.name}: has no bound in ${dtype}`);
      continue;
    }
    if (!check.recorded(reference)) {
      console.error(`${check.name}: not recorded at this size`);
      continue;
    }
    const start = performance.now();
    rows.push(...(await check.run(reference)));
    console.error(`${check.name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  }
  reference.close();
  const failed = rows.filter((row) => !row.ok).length;
  console.log(values.json ? JSON.stringify({ size: values.size, folder, rows }, null, 2) : table(rows));
  if (!values.json)
    console.log(failed === 0 ? `\nall ${rows.length} checks hold` : `\n${failed} of ${rows.length} checks FAIL`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
