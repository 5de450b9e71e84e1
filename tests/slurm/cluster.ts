/**
 * A SLURM cluster of two nodes on this machine, of its own: configuration, keys, ports and state are in a temporary
 * folder, and everything talks over the loopback interface. It needs neither systemd nor cgroups nor a database, and
 * may run as root in a container.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { hostname, tmpdir, userInfo } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const TOOLS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo"];

const HOST = hostname().split(".")[0]!;

/** The processes of a job find each other by the names of the nodes, so that both must lead to this machine. */
const NODES = [HOST, "localhost"];

/** Daemons are not on everybody's path. */
const searchPath = [process.env.PATH, "/usr/sbin", "/sbin"].join(delimiter);

/** The programs of SLURM and munge that this machine lacks. */
export function missingTools(): string[] {
  return TOOLS.filter((tool) => !searchPath.split(delimiter).some((folder) => existsSync(join(folder, tool))));
}

/** What SLURM says of a job. */
export interface JobState {
  state: string;
  /** How often it has begun again. */
  restarts: number;
  exitCode: string;
}

export class Cluster {
  /** Everything of the cluster is in here. */
  readonly folder = mkdtempSync(join(tmpdir(), "miro-slurm-"));
  readonly #daemons: ChildProcess[] = [];

  private constructor() {}

  /** Starts the daemons and sets `SLURM_CONF` for this process and its children; ready when the node is idle. */
  static async start(): Promise<Cluster> {
    const cluster = new Cluster();
    try {
      await cluster.#start();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const inside = (name: string) => join(this.folder, name);
    mkdirSync(inside("state"));
    writeFileSync(inside("munge.key"), randomBytes(256), { mode: 0o400 });
    const ports = { controller: await freePort(), nodes: [await freePort(), await freePort()] };
    writeFileSync(inside("slurm.conf"), configuration(this.folder, ports));
    // What stands for two GPUs: SLURM only wants files of theirs.
    for (const gpu of ["gpu0", "gpu1"]) writeFileSync(inside(gpu), "");
    writeFileSync(inside("gres.conf"), `AutoDetect=off\nName=gpu File=${inside("gpu[0-1]")}\n`);
    process.env.SLURM_CONF = inside("slurm.conf");
    process.env.PATH = searchPath;

    const munge = { key: "munge.key", socket: "munge.socket", pid: "munged.pid", log: "munge.log", seed: "munge.seed" };
    const option = (name: string, file: string) => `--${name}=${inside(file)}`;
    this.#daemon("munged", [
      ...["--foreground", "--force", option("key-file", munge.key), option("socket", munge.socket)],
      ...[option("pid-file", munge.pid), option("log-file", munge.log), option("seed-file", munge.seed)],
    ]);
    await this.#until("munged", () => existsSync(inside(munge.socket)));
    this.#daemon("slurmctld", ["-D"]);
    for (const node of NODES) this.#daemon("slurmd", ["-D", "-N", node]);
    await this.#until("the nodes", async () => {
      const states = await this.tool("sinfo", "--Node", "--noheader", "--format=%T");
      return states
        .trim()
        .split("\n")
        .every((state) => state === "idle");
    });
  }

  /** Runs one of SLURM's commands. @returns what it prints */
  async tool(name: string, ...args: string[]): Promise<string> {
    return (await promisify(execFile)(name, args)).stdout;
  }

  /** The state of a job, or of a task of an array (`ID_TASK`). */
  async job(id: string): Promise<JobState> {
    const text = await this.tool("scontrol", "--oneliner", "show", "job", id);
    const field = (name: string) => new RegExp(`\\b${name}=(\\S+)`).exec(text)?.[1] ?? "";
    return { state: field("JobState"), restarts: Number(field("Restarts")), exitCode: field("ExitCode") };
  }

  /** Stops all that the cluster has started and removes its folder. */
  async stop(): Promise<void> {
    const running = this.#daemons.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
    for (const daemon of running.reverse()) {
      const ended = new Promise((resolve) => daemon.once("close", resolve));
      daemon.kill("SIGTERM");
      await Promise.race([ended, sleep(10_000).then(() => daemon.kill("SIGKILL"))]);
    }
    // Jobs that still run have processes of their own, which outlive the daemons; their environment names this cluster.
    for (const pid of this.#processes()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {} // it has just ended
    }
    delete process.env.SLURM_CONF;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  #processes(): number[] {
    const mark = `SLURM_CONF=${join(this.folder, "slurm.conf")}\0`;
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .filter((name) => {
        try {
          return readFileSync(`/proc/${name}/environ`, "latin1").includes(mark);
        } catch {
          return false; // it has ended, or is not ours to look at
        }
      })
      .map(Number);
  }

  #daemon(name: string, args: readonly string[]): void {
    const log = openSync(join(this.folder, `${name}.out`), "a");
    const child = spawn(name, args, { stdio: ["ignore", log, log], detached: true });
    child.on("error", () => {}); // seen as what it was to bring about not happening
    this.#daemons.push(child);
  }

  async #until(what: string, ready: () => boolean | Promise<boolean>): Promise<void> {
    for (let tries = 0; tries < 120; tries++) {
      try {
        if (await ready()) return;
      } catch {} // not up yet
      await sleep(500);
    }
    const logs = readdirSync(this.folder).filter((name) => /\.(log|out)$/.test(name));
    const last = logs.map((name) => `== ${name}\n${readFileSync(join(this.folder, name), "utf8").slice(-1500)}`);
    throw new Error(`${what} did not come up\n${last.join("\n")}`);
  }
}

function configuration(folder: string, port: { controller: number; nodes: readonly number[] }): string {
  const { username } = userInfo();
  return `ClusterName=miro
SlurmctldHost=${HOST}(127.0.0.1)
SlurmctldPort=${port.controller}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=${username}
SlurmdUser=${username}
AuthType=auth/munge
# A job that goes back into the queue may begin again only when the credentials of its last run have expired.
AuthInfo=socket=${folder}/munge.socket,cred_expire=15
StateSaveLocation=${folder}/state
SlurmdSpoolDir=${folder}/spool-%n
SlurmctldPidFile=${folder}/slurmctld.pid
SlurmdPidFile=${folder}/slurmd-%n.pid
SlurmctldLogFile=${folder}/slurmctld.log
SlurmdLogFile=${folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2
KillWait=10
OverTimeLimit=0
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=DEFAULT CPUs=2 RealMemory=1000 Gres=gpu:2 Feature=fast State=UNKNOWN
${NODES.map((name, i) => `NodeName=${name} NodeHostname=${HOST} NodeAddr=127.0.0.1 Port=${port.nodes[i]}`).join("\n")}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=test Nodes=${HOST} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=pair Nodes=${NODES.join()} MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=${HOST} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
`;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
