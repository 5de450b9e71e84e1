/** `miro doctor`: what was found on this machine, and how to fix what is missing. */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { cpus } from "node:os";
import { resolve } from "node:path";
import type { CudaDevice } from "@miro-t2i/torch";
import { availableMemory, memoryLimit, processors } from "@miro-t2i/torch/limits";
import { z } from "zod";
import { describe, type InvalidInputError, MiroError, systemReason } from "../errors.js";
import { freeBytes } from "../files/free-space.js";
import { formatMemory, formatSize } from "../files/sizes.js";
import { proveWritable } from "../files/writable.js";
import { counted } from "../numbers.js";
import { bundledModel } from "../pipeline/loading/bundled.js";
import {
  downloadTimeoutMs,
  hubAuthorization,
  hubCache,
  hubEndpoint,
  hubOffline,
  metadataTimeoutMs,
} from "../pipeline/loading/hub-environment.js";
import { proxyFor } from "../pipeline/loading/hub-proxy.js";
import { ERASE_LINE } from "../printable.js";
import { version } from "../version.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { helpText } from "./help-text.js";
import { paint } from "./paint.js";

const EXAMPLES = `
Examples:
  miro doctor
  miro doctor --json

Exit code 0 when pictures can be drawn here, 1 when something is missing.
`;

/** One finding. `fix` is there when something can be done about it. */
interface Finding {
  name: string;
  value: string;
  /** `ok`, `note` (works, could be better), `missing` (does not work). */
  state: "ok" | "note" | "missing";
  fix?: string;
}

/** What stands before a finding, and its colour. */
const MARKS = { ok: [" ", "green"], note: ["!", "yellow"], missing: ["x", "red"] } as const;

const schema = z.strictObject({ json });

export const register: Register = (command, context) => {
  declare(command, schema, async ({ json }) => {
    const findings = await examine(context);
    if (json) {
      context.stdout(`${JSON.stringify({ ok: findings.every(({ state }) => state !== "missing"), findings })}\n`);
    } else {
      const width = Math.max(...findings.map(({ name }) => name.length));
      for (const { name, value, state, fix } of findings) {
        const [mark, style] = MARKS[state];
        if (context.colours.stdout) context.terminal(paint(style, mark));
        else context.stdout(mark);
        context.stdout(` ${name.padEnd(width)}  ${value}\n`);
        if (fix) context.stdout(`  ${" ".repeat(width)}  -> ${fix}\n`);
      }
    }
    const missing = findings.filter(({ state }) => state === "missing").map(({ name }) => name);
    if (missing.length > 0) throw new MiroError(`missing: ${missing.join(", ")}`);
  }).addHelpText("after", helpText(EXAMPLES));
};

async function examine(context: CliContext): Promise<Finding[]> {
  const ok = (name: string, value: string): Finding => ({ name, value, state: "ok" });
  return [
    ok("miro", `${version()}, ${process.platform} ${process.arch}`),
    nodeFinding(process.versions.node),
    ok("processor", `${cpus()[0]?.model.trim() ?? "unknown"}, ${counted(processors(), "thread")}`),
    memoryFinding(),
    ...(await engine(context)),
    bundled(),
    ...cache(),
  ];
}

/** Releases of Node that tests run on, and of libtorch. */
export const TESTED = { node: [20, 22, 24, 26], libtorch: ["2.11", "2.12", "2.13", "2.14", "2.15"] };

/** The release of Node, and whether tests run on it. */
export function nodeFinding(running: string): Finding {
  const tested = TESTED.node.includes(Number.parseInt(running, 10));
  const value = `${running}${tested ? " (tested)" : ""}`;
  if (tested) return { name: "Node", value, state: "ok" };
  return { name: "Node", value, state: "note", fix: `tested are Node ${TESTED.node.join(", ")}` };
}

/** The addon and the libtorch that it loads, with its CUDA, and whether tests run with them. */
export function libtorchFindings(info: LoadedLibrary, cuda: string | null): Finding[] {
  const { torchVersion, libraryPath, addonPath } = info;
  const tested = TESTED.libtorch.includes(torchVersion.split(".").slice(0, 2).join("."));
  const build = info.cuda ? `CUDA${cuda === null ? "" : ` ${cuda}`}` : "CPU";
  const as = (name: string, value: string): Finding => ({ name, value, state: "ok" });
  const from = addonPath.includes("node_modules") ? "prebuilt" : "built here";
  const library = as("libtorch", `${torchVersion}, ${build}${tested ? " (tested)" : ""} (${libraryPath})`);
  const only = `tested are ${TESTED.libtorch.join(", ")}`;
  const addon = as("addon", `${from} for libtorch ${torchVersion} (${addonPath})`);
  const variable = ["MIRO_LIBTORCH", "LIBTORCH"].find((name) => process.env[name]);
  const isOther = variable !== undefined && from === "built here" && !isWithin(libraryPath, process.env[variable]!);
  const compile = `${variable} names another libtorch: in a clone \`npm run setup\` compiles the addon for it`;
  return [
    isOther ? { ...addon, state: "note", fix: compile } : addon,
    tested ? library : { ...library, state: "note", fix: only },
  ];
}

/** Whether a file lies in a folder, whichever links lead to either. */
function isWithin(file: string, folder: string): boolean {
  const real = (path: string) => (existsSync(path) ? realpathSync(path) : resolve(path));
  return real(file).startsWith(`${real(folder)}/`);
}

/** What of `buildInfo()` the findings are about. */
interface LoadedLibrary {
  torchVersion: string;
  cuda: boolean;
  libraryPath: string;
  addonPath: string;
}

/** @param limit the machine's memory, or what a container or a batch job may have of it */
export function memoryFinding(limit = memoryLimit(), free = availableMemory()): Finding {
  const value = `${formatMemory(free)} free of ${formatMemory(limit)}`;
  if (limit >= 2 ** 29) return { name: "memory", value, state: "ok" };
  return { name: "memory", value, state: "note", fix: "the bundled model needs about 400 MiB" };
}

async function engine(context: CliContext): Promise<Finding[]> {
  let torch: typeof import("@miro-t2i/torch");
  try {
    torch = await import("@miro-t2i/torch");
    torch.buildInfo();
  } catch (error) {
    // The message says first what is wrong, then what to do about it.
    const message = (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
    const fix = "install again; in a clone, `npm run setup` says what it lacks (a compiler, CMake, libtorch)";
    return [{ name: "libtorch", state: "missing", fix, ...inTwo(message) }];
  }
  const info = torch.buildInfo();
  const { availableDevices, resolveDType } = await import("../pipeline/loading/device.js");
  const devices = availableDevices();
  const gpus = gpuFindings(torch.cuda.devices(), devices.length > 1, info.cuda);
  const speed = (dtype: "float32" | "bfloat16") => `${dtype} ${gemmSpeed(torch, dtype)} GFLOP/s`;
  if (context.interactive) context.stderr("measuring matrix products...");
  const speeds = [speed("float32"), speed("bfloat16")];
  if (context.interactive) context.stderr(ERASE_LINE);
  return [
    ...libtorchFindings(info, torch.cuda.version()),
    { name: "instructions", value: info.capabilities.join(", ") || "none reported", state: "ok" },
    {
      name: "devices",
      value: devices.join(", "),
      state: "ok",
      ...(info.cuda &&
        devices.length === 1 && {
          state: "note" as const,
          fix: "libtorch has CUDA, but no device answers: check the driver (nvidia-smi)",
        }),
    },
    ...gpus,
    {
      name: "dtype auto",
      value: [
        info.fastBfloat16
          ? "cpu bfloat16 (small networks float32)"
          : "cpu float32 (the faster precision on this processor)",
        ...devices.filter((device) => device.startsWith("cuda:")).map((gpu) => `${gpu} ${resolveDType("auto", gpu)}`),
      ].join(", "),
      state: "ok",
    },
    { name: "threads", value: String(torch.getNumThreads()), state: "ok" },
    { name: "matrix products", value: speeds.join(", "), state: "ok" },
  ];
}

/** A line for each GPU that the driver knows, whether libtorch can use it or not. */
export function gpuFindings(gpus: readonly CudaDevice[], usable: boolean, cudaBuild: boolean): Finding[] {
  return gpus.map(({ name, memoryBytes, capability }, i) => {
    const value = `${name}, ${formatMemory(memoryBytes)}, compute capability ${capability.join(".")}`;
    if (usable) return { name: `cuda:${i}`, value, state: "ok" };
    const fix = cudaBuild
      ? "libtorch does not see it: its CUDA may be newer than the driver (nvidia-smi shows what the driver supports)"
      : "this libtorch is for CPUs: set LIBTORCH to the folder of a torch with CUDA and run `npm run setup`";
    return { name: `GPU ${i}`, value, state: "note", fix };
  });
}

/** The best of a few 1024³ products, within about a third of a second. */
function gemmSpeed(torch: typeof import("@miro-t2i/torch"), dtype: "float32" | "bfloat16"): number {
  const n = 1024;
  return torch.scope(() => {
    const a = torch.randn([n, n]).to(dtype);
    const b = torch.randn([n, n]).to(dtype);
    let best = Number.POSITIVE_INFINITY;
    for (const end = performance.now() + 300; performance.now() < end; ) {
      const start = performance.now();
      torch.scope(() => void a.matmul(b));
      best = Math.min(best, performance.now() - start);
    }
    return Math.round((2 * n ** 3) / best / 1e6);
  });
}

function bundled(): Finding {
  const folder = bundledModel();
  if (folder) return { name: "bundled model", value: folder, state: "ok" };
  return {
    name: "bundled model",
    value: "not found",
    state: "missing",
    fix: "restore models/miro-emoji from the repository, or name a checkpoint with --model",
  };
}

/** Where models come from, by which proxy, or what is wrong with the variables that say so and who asks. */
export function hubFinding(): Finding {
  try {
    const proxy = proxyFor(new URL(hubEndpoint()));
    const offline = hubOffline();
    const token = hubAuthorization() === undefined ? "" : ", with an access token";
    metadataTimeoutMs();
    downloadTimeoutMs();
    const way = `${proxy ? `, by the proxy ${proxy.address.origin}` : ""}${offline ? `, offline (${offline})` : ""}`;
    return { name: "hub", value: hubEndpoint() + token + way, state: "ok" };
  } catch (error) {
    if (!(error instanceof MiroError)) throw error;
    const { parameter, expected, received } = error as Partial<InvalidInputError>;
    if (parameter === undefined) return { name: "hub", ...inTwo(error.message), state: "missing" };
    const fix = `expected ${expected}, received ${describe(received)}`;
    return { name: "hub", value: `${parameter} is not right`, state: "missing", fix };
  }
}

/** The part of a message that says what is wrong, and the one that says what to do. */
function inTwo(message: string): { value: string; fix?: string } {
  const end = message.indexOf("; ");
  return end < 0 ? { value: message } : { value: message.slice(0, end), fix: message.slice(end + 2) };
}

/** The cache of downloads; a folder that is not there yet is made by the first. */
export function cacheFinding(folder: string): Finding {
  const name = "model cache";
  let models: number;
  try {
    models = readdirSync(folder).filter((name) => name.startsWith("models--")).length;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      const value = `${folder} cannot be read: ${systemReason(error)}`;
      return { name, value, state: "missing", fix: "set HF_HUB_CACHE to a folder that can be read and written" };
    }
    models = 0;
  }
  const value = `${folder} (${counted(models, "model")})`;
  try {
    proveWritable(folder, "folder", name);
    return { name, value, state: "ok" };
  } catch (error) {
    const reason = systemReason((error as Error).cause ?? error);
    const fix = "what it holds can be used; set HF_HUB_CACHE to a folder that can be written for downloads";
    return { name, value: `${value}, cannot be written: ${reason}`, state: "note", fix };
  }
}

function cache(): Finding[] {
  const folder = hubCache();
  const findings = [cacheFinding(folder), hubFinding()];
  const free = freeBytes(folder);
  if (free !== null) {
    const value = `${formatSize(free)} free for ${folder}`;
    const fix = "published checkpoints with their text encoder take about 14 GB; set HF_HOME to a larger disk";
    findings.push(free < 14e9 ? { name: "disk", value, state: "note", fix } : { name: "disk", value, state: "ok" });
  }
  return findings;
}
