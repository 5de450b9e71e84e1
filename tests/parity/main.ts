/**
 * `npm run parity`
 *
 * Compares this implementation with a recording of the Python reference and prints a table of the errors. The recording
 * is of float32 on a CPU; the bounds are wider on a GPU, and wider again in half precision. Exit code 0: everything
 * within its bound; 1: something is not; 2: there is no recording, or no weights.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { field, flag, runProgram } from "miro-t2i/cli";
import { z } from "zod";
import { loadReference, referenceFolder, scorerFolder } from "../reference/fixture.js";
import { CHECKS, computeOn, type ParityDType } from "./checks.js";
import { comparePublished, PUBLISHED_KEYS, type PublishedOptions } from "./published.js";
import { type Row, table } from "./report.js";
import { compareScorers, isScorerRecording } from "./scorers.js";

const SIZES = ["tiny", "small", "full"] as const;
const DTYPES = ["float32", "bfloat16", "float16"] as const satisfies readonly ParityDType[];

const PARTS = ["model", "scorers", "published"] as const;

const schema = z.strictObject({
  part: field(z.enum(PARTS).default("model"), {
    expected: `one of ${PARTS.join(", ")}`,
    help: "what is compared: the text-to-image model, the scorers, or values that the authors of scorers published",
    flag: "--part <part>",
  }),
  size: field(z.enum(SIZES).default("tiny"), {
    expected: `one of ${SIZES.join(", ")}`,
    help: "size of the recorded network",
    flag: "--size <size>",
  }),
  reference: field(z.string().optional(), {
    expected: "a folder",
    help: "folder of the recording",
    flag: "--reference <dir>",
    otherwise: "that of the size",
  }),
  device: field(
    z
      .string()
      .regex(/^(cpu|cuda(:\d+)?)$/)
      .default("cpu"),
    { expected: "cpu, cuda or cuda:N", help: "cpu, cuda or cuda:N", flag: "--device <name>" },
  ),
  dtype: field(z.enum(DTYPES).default("float32"), {
    expected: `one of ${DTYPES.join(", ")}`,
    help: "precision of the computation",
    flag: "--dtype <name>",
  }),
  weights: field(z.record(z.string(), z.string().min(1)).default({}), {
    expected: `${PUBLISHED_KEYS.join(", ")} with folders`,
    help: "folder of a scorer's published weights, for the part published; may be given several times",
    flag: "--weights <scorer=dir>",
  }),
  pictures: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "folder of the pictures that values are published of",
    flag: "--pictures <dir>",
  }),
  json: flag("print the rows as JSON", "--json"),
});

async function main(values: z.output<typeof schema>): Promise<number> {
  if (values.part === "published") return published(values, values.json);
  if (values.part === "scorers") return scorers(values.reference, values.size, values.json);
  const folder = values.reference ?? referenceFolder(values.size);
  if (!existsSync(join(folder, "reference.json"))) {
    console.error(
      `${folder} holds no recording of the Python reference. To make one (the Python environment is described in tests/reference/README.md):\n` +
        `  python tests/reference/make_reference.py "${folder}" --size ${values.size}`,
    );
    return 2;
  }
  computeOn(values.device, values.dtype);
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
    if (values.dtype !== "float32" && !check.inHalf) {
      console.error(`${check.name}: has no bound in ${values.dtype}`);
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
  return report(rows, values.size, folder, values.json);
}

async function scorers(given: string | undefined, size: string, json: boolean): Promise<number> {
  const folder = given ?? scorerFolder(size);
  if (!isScorerRecording(folder)) {
    console.error(
      `${folder} holds no recording of scorers. To make one (the Python environment is described in the script):\n` +
        `  python tests/reference/make_scorer_reference.py "${folder}" --size ${size}`,
    );
    return 2;
  }
  console.error(`comparing with ${folder}`);
  return report(await compareScorers(folder), size, folder, json);
}

async function published(options: PublishedOptions, json: boolean): Promise<number> {
  const unknown = Object.keys(options.weights).find((key) => !PUBLISHED_KEYS.includes(key));
  if (unknown !== undefined) {
    console.error(`--weights: no values are published of ${unknown}; there are some of ${PUBLISHED_KEYS.join(", ")}`);
    return 2;
  }
  const { rows, lacks } = await comparePublished(options);
  for (const lack of lacks) console.error(lack);
  if (rows.length === 0) return 2;
  const code = report(rows, "full", "published", json);
  // What was asked for and could not be compared is no success.
  const left = Object.keys(options.weights).some((key) => lacks.some((lack) => lack.startsWith(`${key}:`)));
  return code === 0 && left ? 2 : code;
}

function report(rows: readonly Row[], size: string, folder: string, json: boolean): number {
  const failed = rows.filter((row) => !row.ok).length;
  console.log(json ? JSON.stringify({ size, folder, rows }, null, 2) : table(rows));
  if (!json)
    console.log(failed === 0 ? `\nall ${rows.length} checks hold` : `\n${failed} of ${rows.length} checks FAIL`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = await runProgram({
  name: "npm run parity --",
  summary: "Compares this implementation with a recording of the Python reference.",
  schema,
  notes: "Exit code 0: everything is within its bound; 1: something is not; 2: there is no recording, or no weights.",
  run: main,
});
