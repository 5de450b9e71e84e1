/**
 * Process groups: collectives, and gradients that are averaged over ranks as one process computes them. Gloo connects
 * two processes on the CPU; NCCL takes one process a GPU, so with one GPU its group has one rank.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cuda } from "@miro-t2i/torch";
import { type Checks, must, within } from "./checks.js";
import { trainTogether } from "./group-training.js";
import { lastWords, TAIL } from "./run-phase.js";

export async function groups(checks: Checks): Promise<void> {
  const alone = await trainTogether("cpu", null);
  const check = async (name: string, backend: "gloo" | "nccl", devices: string[], bound: number) => {
    await checks.check(`${name}: collectives, 12 steps as one process makes them`, async () => {
      const losses = (await ranks(backend, devices)).map(({ loss, ending, said }, rank) => {
        must(ending === 0 && loss !== null, `rank ${rank} ended with ${ending}: ${said}`);
        return loss!;
      });
      return within(Math.max(...losses.map((loss) => Math.abs(loss - alone) / alone)), bound);
    });
    await checks.check(`${name}: who exits in the group does so with its exit code`, async () => {
      for (const [rank, { ending, said }] of (await ranks(backend, devices, EXIT_CODE)).entries())
        must(ending === EXIT_CODE, `rank ${rank} ended with ${ending}: ${said}`);
      return undefined;
    });
  };
  await check("Gloo, 2 processes", "gloo", ["cpu", "cpu"], 1e-5);
  if (!checks.onGpu) {
    checks.doesNotApply("NCCL", "it connects GPUs");
    return;
  }
  const devices = cuda.deviceCount() > 1 ? ["cuda", "cuda"] : ["cuda"];
  await check(`NCCL, ${devices.length === 1 ? "1 process (there is 1 GPU)" : "2 processes"}`, "nccl", devices, 1e-4);
}

/** Of ranks that do not leave their group. */
const EXIT_CODE = 7;
/** A rank that takes longer hangs: it writes down where its threads are, and dies. */
const LONGEST_MS = 45_000;

/** How a rank ended, and what it has reached. */
interface Rank {
  loss: number | null;
  ending: number | NodeJS.Signals | null;
  /** Its last words. */
  said: string;
}

/**
 * Starts a rank on each device; those on GPUs see one each.
 * @param exitCode they exit with it in the middle
 */
async function ranks(backend: string, devices: readonly string[], exitCode?: number): Promise<Rank[]> {
  const folder = mkdtempSync(join(tmpdir(), "miro-group-"));
  const program = fileURLToPath(new URL("./group-rank.js", import.meta.url));
  const gpus = process.env.CUDA_VISIBLE_DEVICES?.split(",");
  try {
    const started = devices.map((device, rank) => {
      const args = [backend, device, String(rank), String(devices.length), join(folder, "store")];
      const own = device === "cuda" ? { CUDA_VISIBLE_DEVICES: gpus?.[rank] ?? String(rank) } : {};
      const env = { ...process.env, GLOO_SOCKET_IFNAME: "lo", ...own };
      const more = exitCode === undefined ? [] : [String(exitCode)];
      return fork(program, [...args, ...more], { env, stdio: ["ignore", "ignore", "pipe", "ipc"] });
    });
    return await Promise.all(started.map(ended)).finally(() => {
      for (const child of started) child.kill("SIGKILL");
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Waits until a rank has ended. */
function ended(child: ChildProcess): Promise<Rank> {
  return new Promise((resolve, reject) => {
    let loss: number | null = null;
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-TAIL);
      process.stderr.write(text);
    });
    let hung = "";
    const hangs = setTimeout(() => {
      hung = `it had not ended after ${LONGEST_MS / 1000} s`;
      child.kill("SIGABRT");
    }, LONGEST_MS);
    child.on("message", (message) => {
      ({ loss } = message as { loss: number });
    });
    child.on("error", reject).on("close", (code, signal) => {
      clearTimeout(hangs);
      resolve({ loss, ending: signal ?? code, said: hung || lastWords(stderr) });
    });
  });
}
