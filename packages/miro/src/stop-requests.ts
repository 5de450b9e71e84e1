/**
 * How a process is asked to stop while it works: by signals, or by the end of what has started it. Long work stops with
 * its checkpoint then.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

/** Time in which the same request may come by several ways: `npx` passes on what the terminal has sent to all. */
const SAME_REQUEST_MS = 500;
const PARENT_POLL_MS = 1000;

/** How {@link onStop} tells that this process is wanted to stop. */
export interface StopHandlers {
  /** Stop at the next step and clean up. May be called again. */
  stop(): void;
  /** Asked a second time: do not wait. */
  stopAtOnce(): void;
}

/**
 * Listens for the request to stop: SIGINT and SIGTERM, of which a second one does not wait; SIGHUP, when the terminal
 * ends, unless the process was started under `nohup`; SIGUSR1, which a cluster sends some time before its limit; and
 * the end of the `npm` or `npx` that has started this process and that passes on no signal when it is killed.
 * @returns ends the listening
 */
export function onStop({ stop, stopAtOnce }: StopHandlers): () => void {
  let firstAt: number | null = null;
  const asked = () => {
    if (firstAt !== null && performance.now() - firstAt > SAME_REQUEST_MS) stopAtOnce();
    firstAt ??= performance.now();
    stop();
  };
  const warned = () => stop();
  const hangup = isUnderNohup() ? () => {} : warned;
  const handlers = { SIGINT: asked, SIGTERM: asked, SIGHUP: hangup, SIGUSR1: warned } as const;
  for (const [signal, handler] of Object.entries(handlers)) process.on(signal, handler);
  const launcher = launchers();
  const watch = setInterval(() => {
    if (!launcher.every(({ pid, parent }) => parentOf(pid) === parent)) stop();
  }, PARENT_POLL_MS);
  watch.unref();
  return () => {
    clearInterval(watch);
    for (const [signal, handler] of Object.entries(handlers)) process.off(signal, handler);
  };
}

/**
 * Whether SIGHUP is to be ignored. Node sets every signal back to its default when it starts, so that what `nohup` has
 * arranged is to be told by other traces: the shell's `_` names it, its stdin cannot be read, or the parent ignores the
 * signal too.
 */
function isUnderNohup(): boolean {
  if (basename(process.env._ ?? "") === "nohup") return true;
  // GNU nohup puts /dev/null, opened for writing, in the place of a terminal.
  const flags = Number.parseInt(/^flags:\s*(\d+)/m.exec(read("/proc/self/fdinfo/0") ?? "")?.[1] ?? "", 8);
  if ((flags & 3) === 1 && link("/proc/self/fd/0") === "/dev/null") return true;
  const ignored = /^SigIgn:\s*([0-9a-f]+)/m.exec(read(`/proc/${process.ppid}/status`) ?? "")?.[1];
  return ignored !== undefined && (BigInt(`0x${ignored}`) & 1n) === 1n; // SIGHUP is signal 1
}

/**
 * Processes between this one and the npm that has started it, each with its parent; none without npm, or under nohup.
 */
function launchers(): { pid: number; parent: number }[] {
  if (process.env.npm_command === undefined || isUnderNohup() || process.ppid <= 1) return [];
  const direct = { pid: process.pid, parent: process.ppid };
  const isShell = /^(sh|dash|bash|ash|zsh|ksh|busybox)$/.test((read(`/proc/${process.ppid}/comm`) ?? "").trim());
  const above = isShell ? parentOf(process.ppid) : null;
  return above === null || above <= 1 ? [direct] : [direct, { pid: process.ppid, parent: above }];
}

function parentOf(pid: number): number | null {
  if (pid === process.pid) return process.ppid;
  const stat = read(`/proc/${pid}/stat`);
  return stat === null ? null : Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function link(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}
