/**
 * Process groups: collectives, and gradients that are averaged over ranks as one process computes them. Gloo connects
 * two processes on the CPU; NCCL takes one process a GPU, so with one GPU its group has one rank.
 */
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cuda } from "@miro-t2i/torch";
import { type Checks, within } from "./checks.js";
import { trainTogether } from "./group-training.js";

export async function groups(checks: Checks): Promise<void> {
  const alone = await trainTogether("cpu", null);
  const check = (name: string, backend: "gloo" | "nccl", devices: string[], bound: number) =>
    checks.check(name, async () => {
      const losses = await ranks(backend, devices);
      return within(Math.max(...losses.map((loss) => Math.abs(loss - alone) / alone)), bound);
    });
  await check("Gloo, 2 processes: collectives, 12 steps as one process makes them", "gloo", ["cpu", "cpu"], 1e-5);
  if (!checks.onGpu) {
    checks.doesNotApply("NCCL", "it connects GPUs");
    return;
  }
  const devices = cuda.deviceCount() > 1 ? ["cuda", "cuda"] : ["cuda"];
  const world = devices.length === 1 ? "1 process (there is 1 GPU)" : "2 processes";
  await check(`NCCL, ${world}: collectives, 12 steps as one process makes them`, "nccl", devices, 1e-4);
}

/** Starts a rank on each device; those on GPUs see one each. @returns the loss that each has reached */
async function ranks(backend: string, devices: readonly string[]): Promise<number[]> {
  const folder = mkdtempSync(join(tmpdir(), "miro-group-"));
  const program = fileURLToPath(new URL("./group-rank.js", import.meta.url));
  const gpus = process.env.CUDA_VISIBLE_DEVICES?.split(",");
  try {
    const started = devices.map((device, rank) => {
      const args = [backend, device, String(rank), String(devices.length), join(folder, "store")];
      const own = device === "cuda" ? { CUDA_VISIBLE_DEVICES: gpus?.[rank] ?? String(rank) } : {};
      const env = { ...process.env, GLOO_SOCKET_IFNAME: "lo", ...own };
      return fork(program, args, { env, stdio: ["ignore", "ignore", "pipe", "ipc"] });
    });
    return await Promise.all(
      started.map(
        (child, rank) =>
          new Promise<number>((resolve, reject) => {
            let [loss, stderr] = [Number.NaN, ""];
            child.stderr!.setEncoding("utf8").on("data", (text: string) => {
              stderr = (stderr + text).slice(-2000);
            });
            child.on("message", (message) => {
              ({ loss } = message as { loss: number });
            });
            child.on("error", reject).on("close", (code, signal) => {
              const line = stderr.split("\n").find((text) => /^\w*Error\b/.test(text)) ?? "";
              if (code === 0 && !Number.isNaN(loss)) resolve(loss);
              else reject(new Error(`rank ${rank} ended with ${signal ?? code}: ${line.trim()}`));
            });
          }),
      ),
    ).finally(() => {
      for (const child of started) child.kill("SIGKILL");
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
