/**
 * `npm run check:device`: whether a device computes what it should. Each phase runs in a process of its own within its
 * time; one that fails, dies or hangs does not keep the others from running.
 */
import { renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { commaSeparated, field, flag, runProgram } from "miro-t2i/cli";
import { z } from "zod";
import type { Machine } from "./machine.js";
import { PHASE_NAMES, PHASES, type PhaseName } from "./phases.js";
import { collect, type Outcome, runPhase } from "./run-phase.js";

/** Below this no phase is begun. */
const SHORTEST_SECONDS = 5;
/** For loading the engine the first time, from a cold disk. */
const LOADING_SECONDS = 120;

const schema = z.strictObject({
  device: field(
    z
      .string()
      .regex(/^(cpu|cuda(:\d+)?)$/)
      .default("cuda"),
    { expected: "cpu, cuda or cuda:N", help: "cpu, cuda or cuda:N", flag: "--device <name>" },
  ),
  only: field(z.array(z.enum(PHASE_NAMES as [PhaseName, ...PhaseName[]])).default(PHASE_NAMES), {
    expected: `some of ${PHASE_NAMES.join(", ")}`,
    help: `these phases alone, separated by commas: ${PHASE_NAMES.join(", ")}`,
    flag: "--only <phases>",
    parse: commaSeparated,
    otherwise: "all",
  }),
  budget: field(z.number().min(1).default(540), {
    expected: "at least 1 second",
    help: "seconds that all phases may take together",
    flag: "--budget <seconds>",
  }),
  output: field(z.string().optional(), {
    expected: "a file",
    help: "file that receives the JSON, written anew after each phase",
    flag: "-o, --output <file>",
    writes: "file",
  }),
  json: flag("print machine, versions and findings as JSON; the table then goes to stderr", "--json"),
});

interface PhaseReport extends Outcome {
  name: PhaseName;
  limitSeconds: number;
}

const program = fileURLToPath(new URL("./phase.js", import.meta.url));

async function main({ device, only, budget, json, output }: z.output<typeof schema>): Promise<number> {
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  const say = (text: string) => void (json ? process.stderr : process.stdout).write(`${text}\n`);

  const asked = await collect<Machine>(program, ["machine", device], LOADING_SECONDS);
  const machine = asked.messages[0];
  const phases: PhaseReport[] = [];
  /** All that is known so far, as JSON. `problem`: why no phase can be run. */
  const report = (problem: string | null): string => {
    const { unavailable: _, versions, ...rest } = machine ?? {};
    const record = { device, date: new Date().toISOString(), machine: rest, versions, budgetSeconds: budget };
    const failed = phases.filter(isFailed).map(({ name }) => name);
    return `${JSON.stringify({ ...record, seconds: seconds(), problem, failed, phases }, null, 2)}\n`;
  };
  const keep = (problem: string | null = null) => {
    if (output === undefined) return;
    writeFileSync(`${output}.tmp`, report(problem));
    renameSync(`${output}.tmp`, output);
  };
  if (machine === undefined || asked.death !== null) {
    process.stderr.write(`the engine could not be loaded: ${asked.death ?? "it said nothing"}\n`);
    keep(asked.printed || "the engine could not be loaded");
    return 1;
  }
  if (machine.unavailable !== null) {
    process.stderr.write(`--device: ${machine.unavailable}\n`);
    keep(machine.unavailable);
    return 2;
  }
  say(describe(device, machine));
  for (const name of PHASE_NAMES.filter((name) => only.includes(name))) {
    const left = budget - seconds();
    const limitSeconds = Math.min(PHASES[name].limitSeconds, Math.floor(left));
    const outcome: Outcome =
      left < SHORTEST_SECONDS
        ? { state: "left out", seconds: 0, findings: [], death: null, printed: "" }
        : await runPhase(program, [name, device], limitSeconds);
    const phase: PhaseReport = { name, limitSeconds: Math.max(0, limitSeconds), ...outcome };
    phases.push(phase);
    for (const line of linesOf(phase)) say(line);
    keep();
  }
  const failed = phases.filter(isFailed);
  const total = `${phases.length} phases in ${seconds().toFixed(0)} s`;
  say(failed.length === 0 ? `${total}: all hold` : `${total}: ${failed.map(({ name }) => name).join(", ")} FAILED`);
  if (json) process.stdout.write(report(null));
  return failed.length === 0 ? 0 : 1;
}

const isFailed = ({ state }: PhaseReport): boolean => state !== "ok" && state !== "does not apply";

function describe(device: string, { cpu, cores, memoryGiB, gpus, driver, versions }: Machine): string {
  const gpu = gpus.map(({ name, memoryGiB, capability }) => `${name} (${memoryGiB} GiB, ${capability})`).join(", ");
  const parts = [`${cpu}, ${cores} cores, ${memoryGiB} GiB`, gpu || "no GPU", `driver ${driver ?? "none"}`];
  const all = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `${device}: ${parts.join("; ")}\n${all.join(", ")}`;
}

const MARK = { ok: "ok", failed: "FAIL", "does not apply": "n/a" } as const;

/** The phase's own line, and one for each finding. */
function linesOf({ name, state, seconds, findings, death, limitSeconds }: PhaseReport): string[] {
  const title =
    state === "left out"
      ? `${name}: LEFT OUT, the budget is used up`
      : state === "out of time"
        ? `${name}: OUT OF TIME after ${limitSeconds} s`
        : `${name}: ${state === "failed" ? "FAILED" : state}, ${seconds.toFixed(1)} s`;
  const width = Math.max(0, ...findings.map(({ check }) => check.length));
  const lines = findings.map(({ check, state, said }) =>
    `  ${MARK[state].padEnd(4)}  ${check.padEnd(width)}  ${said}`.trimEnd(),
  );
  return [title, ...lines, ...(death === null ? [] : [`  FAIL  its process ended with ${death}`])];
}

// A process that is ended by a signal does not end its phase, unless it exits.
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)
  process.once(signal, () => process.exit(code));

process.exitCode = await runProgram({
  name: "npm run check:device --",
  summary:
    "Checks that a device computes what it should: the engine, every operator, parity with the Python reference, " +
    "training and resuming, replayed graphs, process groups, memory, and the networks that score pictures.",
  schema,
  notes:
    "Exit code 0: everything holds; 1: a phase failed, or did not get its time; 2: wrong usage, or there is no such device.",
  run: main,
});
