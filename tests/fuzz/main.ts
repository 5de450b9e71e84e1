/**
 * `npm run fuzz`: calls every typed operator with random arguments, most of them wrong, and gives every reader damaged
 * files. It prints one line for each that ends in anything but a result or an error of ours: a process that died, one
 * that hangs, another exception. Operators in {@link LIBTORCH_ABORTS} are left out. Exit code 0: nothing found.
 *
 * All of it runs in processes of their own, with bounded memory. After a death the next process goes on behind the
 * operator or reader that caused it.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InvalidInputError } from "miro-t2i";
import { commaSeparated, field, runProgram } from "miro-t2i/cli";
import { z } from "zod";
import { LIBTORCH_ABORTS } from "./libtorch-aborts.js";
import { READERS } from "./readers.js";
import { typedOperators } from "./typed-operators.js";

/** Operators for one process: heap damage that an operator leaves behind is found out near it. */
const GROUP = 64;
/**
 * Address space of a process, Node and libtorch included: what asks for more is refused. WebAssembly, which
 * decompresses Parquet, reserves 10 GiB for each of its modules.
 */
const ADDRESS_SPACE_KIB = { "fuzz-operators": 4 * 2 ** 20, "fuzz-readers": 48 * 2 ** 20 };
const HANGS_AFTER_MS = 30_000;

interface Endings {
  returned: number;
  refused: number;
  others: string[];
}

/** Operators or readers for one process. */
interface Group {
  names: readonly string[];
  program: keyof typeof ADDRESS_SPACE_KIB;
  /** Of each. */
  tries: number;
}

/** Runs one process. @returns its endings, or how it died */
function run(report: string, seed: number, { program: name, tries, names }: Group): Promise<Endings | string> {
  const program = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
  return new Promise((resolve, reject) => {
    const command = `ulimit -c 0; ulimit -v ${ADDRESS_SPACE_KIB[name]}; exec "$@"`;
    const args = ["-c", command, "sh", process.execPath, program, report, String(seed), String(tries), ...names];
    const env = { ...process.env, OMP_NUM_THREADS: "1", MKL_NUM_THREADS: "1" };
    const child = spawn("sh", args, { env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-4000);
    });
    let before = "";
    let since = performance.now();
    let hangs = false;
    const watch = setInterval(() => {
      const now = lastCall(report);
      if (now !== before) [before, since] = [now, performance.now()];
      else if (performance.now() - since > HANGS_AFTER_MS) {
        hangs = true;
        child.kill("SIGKILL");
      }
    }, 1000);
    child.on("error", reject).on("close", (code, signal) => {
      clearInterval(watch);
      if (code === 0) resolve(JSON.parse(stdout.trim().split("\n").at(-1)!) as Endings);
      else if (hangs) resolve(`does not end within ${HANGS_AFTER_MS / 1000} s`);
      else resolve(signal ?? `exit code ${code}: ${stderr.trim().split("\n")[0] ?? ""}`);
    });
  });
}

/** The record that fuzz-operators.ts keeps: operator, number of the try, the call. */
function lastCall(report: string): string {
  try {
    return readFileSync(report, "utf8").trim();
  } catch {
    return "";
  }
}

const schema = z.strictObject({
  seed: field(z.int().min(0).default(7), {
    expected: "an integer of at least 0",
    help: "seed of the arguments",
    flag: "--seed <n>",
  }),
  tries: field(z.int().min(1).default(20), {
    expected: "an integer of at least 1",
    help: "calls of each operator",
    flag: "--tries <n>",
  }),
  files: field(z.int().min(1).default(200), {
    expected: "an integer of at least 1",
    help: "damaged files for each reader",
    flag: "--files <n>",
  }),
  only: field(z.array(z.string()).optional(), {
    expected: "operators and readers",
    help: `these operators or readers alone, separated by commas (readers: ${Object.keys(READERS).join(", ")})`,
    flag: "--only <names>",
    parse: commaSeparated,
  }),
});

async function main({ seed, tries, files, only }: z.output<typeof schema>): Promise<number> {
  const every = [...typedOperators().keys()];
  const left = new Set<string>(LIBTORCH_ABORTS);
  const readers = Object.keys(READERS).filter((name) => only?.includes(name) ?? true);
  const operators = only?.filter((name) => !readers.includes(name)) ?? every.filter((name) => !left.has(name));
  const unknown = operators.find((name) => !every.includes(name));
  if (unknown !== undefined) throw new InvalidInputError(`${unknown}: no operator or reader of this name`);
  const groups: Group[] = readers.map((name) => ({ names: [name], program: "fuzz-readers", tries: files }));
  for (let i = 0; i < operators.length; i += GROUP)
    groups.push({ names: operators.slice(i, i + GROUP), program: "fuzz-operators", tries });
  const findings = [...left].filter((name) => !every.includes(name)).map((name) => `${name}: listed, but no operator`);
  const total = { returned: 0, refused: 0 };
  const folder = mkdtempSync(join(tmpdir(), "miro-fuzz-"));

  async function work(report: string): Promise<void> {
    for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
      const result = await run(report, seed, group);
      if (typeof result === "object") {
        total.returned += result.returned;
        total.refused += result.refused;
        findings.push(...result.others);
        continue;
      }
      const [name = "", , call = ""] = lastCall(report).split("\n");
      findings.push(name === "" ? `a process did not start: ${result}` : `${call}: ${result}`);
      const rest = group.names.slice(group.names.indexOf(name) + 1);
      if (name !== "" && rest.length > 0) groups.push({ ...group, names: rest });
    }
  }
  try {
    const workers = Math.max(1, Math.min(4, availableParallelism()));
    await Promise.all(Array.from({ length: workers }, (_, i) => work(join(folder, `call-${i}`))));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  for (const finding of findings) console.log(finding);
  console.log(
    `${operators.length} operators, ${tries} calls each, and ${readers.length} readers, ${files} files each, ` +
      `with seed ${seed}: ${total.returned} returned, ${total.refused} refused, ${findings.length} findings; ` +
      `${left.size} operators left out as libtorch's own aborts`,
  );
  return findings.length === 0 && total.returned > 0 && total.refused > 0 ? 0 : 1;
}

process.exitCode = await runProgram({
  name: "npm run fuzz --",
  summary:
    "Calls every typed operator with random arguments and every reader with damaged files; prints what ends in " +
    "anything but a result or an error that names it.",
  schema,
  run: main,
});
