/** Runs one phase of the device check in a process of its own, within a time. */
import { fork } from "node:child_process";
import type { Finding } from "./checks.js";

/** How a phase ended. */
export interface Outcome {
  state: "ok" | "failed" | "out of time" | "left out" | "does not apply";
  seconds: number;
  findings: Finding[];
  /** How its process died, and its last words; null when it did not. */
  death: string | null;
  /** The end of what it printed. */
  printed: string;
}

/** The end of what a process has printed that is kept, in characters: the stacks of all of its threads are long. */
export const TAIL = 100_000;
/** For so long a process that is out of time may write down where its threads are. */
const STACKS_MS = 5000;
/** Then it is killed. So much later it is no more waited for: a driver may not let go of it. */
const LEFT_MS = 10_000;

/** What a process has sent and how it ended. */
export interface Collected<T> {
  messages: T[];
  /** Null: it ended as it should. */
  death: string | null;
  /** Whether that was the limit. */
  outOfTime: boolean;
  seconds: number;
  printed: string;
}

/**
 * Starts `program` with arguments and collects the messages that it sends. Where it dies by a signal, the stacks of its
 * threads are among what it prints.
 * @param limitSeconds after which it is stopped, with all that it has started
 */
export function collect<T>(program: string, args: readonly string[], limitSeconds: number): Promise<Collected<T>> {
  const start = performance.now();
  // A group of its own, so that its own processes are stopped with it.
  const env = { ...process.env, MIRO_STACKS: "1" };
  const child = fork(program, args, { stdio: ["ignore", "pipe", "pipe", "ipc"], detached: true, env });
  const messages: T[] = [];
  let printed = "";
  let outOfTime = false;
  const stop = () => {
    try {
      process.kill(-child.pid!, "SIGKILL");
    } catch {}
  };
  process.once("exit", stop);
  const timers: NodeJS.Timeout[] = [];
  const after = (ms: number, action: () => void) => void timers.push(setTimeout(action, ms));
  for (const stream of [child.stdout!, child.stderr!])
    stream.setEncoding("utf8").on("data", (text: string) => {
      printed = (printed + text).slice(-TAIL);
    });
  child.on("message", (message) => messages.push(message as T));
  return new Promise((resolve, reject) => {
    const ended = (ending: string | null) => {
      for (const timer of timers) clearTimeout(timer);
      process.off("exit", stop);
      const last = lastWords(printed);
      const death = ending === null || last === "" ? ending : `${ending}: ${last}`;
      resolve({ messages, death, outOfTime, seconds: (performance.now() - start) / 1000, printed });
    };
    after(limitSeconds * 1000, () => {
      outOfTime = true;
      child.kill("SIGABRT");
      after(STACKS_MS, stop);
      after(STACKS_MS + LEFT_MS, () => {
        for (const one of [child.stdout!, child.stderr!]) one.destroy();
        child.unref();
        if (child.connected) child.disconnect();
        ended("SIGKILL, of which it has not died");
      });
    });
    child.on("error", reject).on("close", (code, signal) => {
      stop(); // what it has left behind
      ended(code === 0 ? null : (signal ?? `exit code ${code}`));
    });
  });
}

/** Where the stacks begin that a process prints when it dies by a signal (MIRO_STACKS). */
const STACKS = /^signal \d+, thread \d+$/m;

/** The line of an error among what was printed, else the last line. */
export function lastWords(printed: string): string {
  const [said] = printed.split(STACKS) as [string];
  const lines = said.split("\n").filter((line) => line.trim() !== "" && !/^Node\.js v/.test(line));
  return (lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1) ?? "").trim();
}

/** Runs a phase. */
export async function runPhase(program: string, args: readonly string[], limitSeconds: number): Promise<Outcome> {
  const collected = await collect<Finding>(program, args, limitSeconds);
  const { messages: findings, death, outOfTime, seconds, printed } = collected;
  const state = () => {
    if (outOfTime) return "out of time";
    if (death !== null || findings.length === 0 || findings.some((one) => one.state === "failed")) return "failed";
    return findings.every((one) => one.state === "does not apply") ? "does not apply" : "ok";
  };
  return { state: state(), seconds, findings, death: outOfTime ? null : death, printed };
}
