/**
 * Kills a command at some moment, starts it again and compares the files it leaves with those of an undisturbed run.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const MIRO = fileURLToPath(new URL("../../packages/miro/bin/miro.mjs", import.meta.url.replace("/dist/", "/")));

/** How a process ended. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  ms: number;
}

/**
 * Runs `miro` with arguments.
 * @param kill a signal, and after how many milliseconds or by what sign it is sent, unless the process has ended by
 * then
 */
export function runMiro(
  args: readonly string[],
  kill?: { signal: NodeJS.Signals } & ({ afterMs: number } | { once: () => boolean }),
): Promise<Ending> {
  const started = performance.now();
  const child: ChildProcess = spawn(process.execPath, [MIRO, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name]!.on("data", (bytes: Buffer) => {
      text[name] += bytes;
    });
  const timer =
    kill &&
    setInterval(
      () => {
        if ("once" in kill && !kill.once()) return;
        clearInterval(timer);
        child.kill(kill.signal);
      },
      "once" in kill ? 5 : kill.afterMs,
    );
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearInterval(timer);
      resolve({ code, signal, ...text, ms: performance.now() - started });
    });
  });
}

/**
 * What is in folders, by path: a digest of each file's bytes. Of manifests the times, which no two runs share, are left
 * out. Hidden files are included: a finished run leaves none.
 */
export function contents(...folders: string[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [i, folder] of folders.entries()) {
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      let bytes: Uint8Array = readFileSync(path);
      if (path.endsWith(".manifest.json")) {
        const { seconds: _, ...rest } = JSON.parse(bytes.toString()) as Record<string, unknown>;
        bytes = Buffer.from(JSON.stringify(rest));
      }
      found[`${i}:${path.slice(folder.length)}`] = createHash("sha256").update(bytes).digest("hex");
    }
  }
  return found;
}

/** Names of files that two runs have differently. */
export function differences(a: Record<string, string>, b: Record<string, string>): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => a[name] !== b[name]).sort();
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** How often something is killed, and when. */
export interface Kills {
  kills: number;
  /** Of the moments. */
  seed: number;
  /** Whether the folder stays, which is named then. */
  keep: boolean;
}

/** What is killed, in folders below one that is given. */
export interface Killed {
  /** Arguments of a command that is made before. */
  prepared?(folder: string): string[];
  /** The arguments, whose output is JSON. */
  command(folder: string, name: string): string[];
  /** Digests of what a run has left. */
  files(folder: string, name: string): Record<string, string>;
  /** What the second run did, in words, from its output. */
  told(output: Record<string, unknown>): string;
}

/**
 * Kills a command with SIGKILL at random moments, starts it again, and compares every file that it leaves, byte by
 * byte, with an undisturbed run.
 * @returns the exit code: 1 where something differed
 */
export async function killAndCompare({ kills, seed, keep }: Kills, what: Killed): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "miro-soak-"));
  const random = generator(seed);
  const prepared = what.prepared && (await runMiro(what.prepared(folder)));
  const whole = await runMiro(what.command(folder, "whole"));
  if ((prepared?.code ?? 0) !== 0 || whole.code !== 0) {
    console.error((prepared?.stderr ?? "") + whole.stderr);
    return 1;
  }
  const expected = what.files(folder, "whole");
  let unequal = 0;
  let longest = whole.ms;
  for (let trial = 0; trial < kills; ) {
    const name = `trial-${trial}`;
    const command = what.command(folder, name);
    const killed = await runMiro(command, { signal: "SIGKILL", afterMs: random() * longest });
    if (killed.signal === "SIGKILL") trial++;
    else longest = Math.min(longest, killed.ms); // it was faster than the moment drawn: this was no kill
    const again = await runMiro(command);
    const different = again.code === 0 ? differences(expected, what.files(folder, name)) : ["(the second run failed)"];
    const did = what.told(JSON.parse(again.stdout || "{}") as Record<string, unknown>);
    console.log(
      `${String(trial).padStart(3)} ${killed.signal ?? "ended"} after ${Math.round(killed.ms)} ms, then ${did}: ` +
        `${different.length === 0 ? "equal" : `DIFFERENT: ${different.join(", ")}`}`,
    );
    if (different.length > 0) {
      unequal++;
      console.log(again.stderr);
    } else rmSync(join(folder, name), { recursive: true, force: true });
  }
  console.log(
    `${kills} kills, ${kills - unequal} times the same ${Object.keys(expected).length} files as the undisturbed run ` +
      `(${Math.round(whole.ms)} ms)`,
  );
  if (unequal === 0 && !keep) rmSync(folder, { recursive: true, force: true });
  else console.log(folder);
  return unequal === 0 ? 0 : 1;
}
