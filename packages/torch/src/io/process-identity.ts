/**
 * Which process a file belongs to, as a text that fits into a file name, and whether that process still lives.
 *
 *   BOOT-PIDNS-TIMENS-PID-START     d01a7ae8172e-4026531836-4026531834-1234-567890
 *
 * A process id alone says little: containers and PID namespaces count their processes from 1, ids are given out again,
 * and a reboot begins anew. So the text holds the id of the boot (`/proc/sys/kernel/random/boot_id`), the inodes of the
 * PID and time namespaces (namespaces(7)), the id, and the start time in ticks since the boot (field 22 in
 * proc_pid_stat(5)). What these cannot decide is "unknown"; then only the age of a file says something.
 */
import fs from "node:fs";

/** Whether a process lives, as far as can be known from here. */
export type Life = "alive" | "dead" | "unknown";

/** A text that {@link processIdentity} may return, as part of a regular expression. */
export const IDENTITY_PATTERN = "[0-9a-f]{12}-\\d+-\\d+-\\d+-\\d+";

/** Inode of the namespace that sees every process of a kernel (PROC_PID_INIT_INO in linux/proc_ns.h). */
const INITIAL_PID_NAMESPACE = "4026531836";

interface Place {
  boot: string;
  pidNamespace: string;
  timeNamespace: string;
}

let own: (Place & { text: string }) | null = null;

/** The identity of this process, the same in all of its threads. */
export function processIdentity(): string {
  return self().text;
}

function self(): Place & { text: string } {
  if (own !== null) return own;
  const boot = (read("/proc/sys/kernel/random/boot_id") ?? "").replaceAll("-", "").slice(0, 12);
  const place = {
    boot: /^[0-9a-f]{12}$/.test(boot) ? boot : "0".repeat(12),
    pidNamespace: namespaceOf("pid"),
    timeNamespace: namespaceOf("time"),
  };
  const started = statOf("self")?.started ?? "0";
  const text = `${place.boot}-${place.pidNamespace}-${place.timeNamespace}-${process.pid}-${started}`;
  own = { ...place, text };
  return own;
}

/** Whether the process of an identity lives. A text that is no identity belongs to no known process. */
export function lifeOf(identity: string): Life {
  const parts = new RegExp(`^${IDENTITY_PATTERN}$`).test(identity) ? identity.split("-") : null;
  if (parts === null) return "unknown";
  const [boot, pidNamespace, timeNamespace, pid, started] = parts as [string, string, string, string, string];
  const here = self();
  if (identity === here.text) return "alive";
  // Another boot may be one of another machine. In another time namespace the start times differ.
  if (/^0+$/.test(boot) || boot !== here.boot || timeNamespace !== here.timeNamespace || started === "0")
    return "unknown";
  return pidNamespace === here.pidNamespace ? lifeHere(Number(pid), started) : lifeElsewhere(pid, started);
}

/** Whether a process runs under this kernel, in whichever container: what it locks of files is locked here too. */
export function isOfThisKernel(identity: string): boolean {
  const { boot } = self();
  return !/^0+$/.test(boot) && identity.startsWith(`${boot}-`);
}

/** Of a process in this PID namespace. */
function lifeHere(pid: number, started: string): Life {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return "dead";
  }
  const stat = isProcOurs() ? statOf(String(pid)) : null;
  // It may be hidden from this user (hidepid), or /proc may be that of another namespace.
  if (stat === null) return "unknown";
  return stat.started === started && stat.state !== "Z" && stat.state !== "X" ? "alive" : "dead";
}

/** Of a process in another PID namespace of this kernel, which is seen from here if it lies below ours. */
function lifeElsewhere(pid: string, started: string): Life {
  let entries: string[];
  try {
    entries = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  } catch {
    return "unknown";
  }
  for (const entry of entries) {
    const stat = statOf(entry);
    if (stat?.started !== started || stat.state === "Z" || stat.state === "X") continue;
    const innermost = /^NSpid:\t(?:\d+\t)*(\d+)$/m.exec(read(`/proc/${entry}/status`) ?? "")?.[1];
    if (innermost === pid) return "alive";
  }
  const seesAll = self().pidNamespace === INITIAL_PID_NAMESPACE && isProcOurs() && statOf("1") !== null;
  return seesAll ? "dead" : "unknown";
}

/** Whether the mounted /proc shows this process' namespace. */
function isProcOurs(): boolean {
  try {
    return fs.readlinkSync("/proc/self") === String(process.pid);
  } catch {
    return false;
  }
}

function namespaceOf(kind: "pid" | "time"): string {
  try {
    return /\[(\d+)\]/.exec(fs.readlinkSync(`/proc/self/ns/${kind}`))?.[1] ?? "0";
  } catch {
    return "0";
  }
}

/** State and start time of a process, null when they cannot be read. */
function statOf(pid: string): { state: string; started: string } | null {
  const text = read(`/proc/${pid}/stat`);
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", started: fields[19] ?? "0" };
}

function read(path: string): string | null {
  try {
    return fs.readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
