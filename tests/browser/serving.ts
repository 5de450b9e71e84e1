/** A `miro studio` of small random weights, as a process, and pages of it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tiny = join(root, "tests/reference/fixtures/tiny");
const folders: string[] = [];

/** A folder that {@link removeFolders} removes. */
export function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "miro-browser-"));
  folders.push(made);
  return made;
}

/** Removes all folders. */
export function removeFolders(): void {
  for (const made of folders.splice(0)) rmSync(made, { recursive: true, force: true });
}

/** A checkpoint of small random weights with three rewards. */
export function tinyModel(name = "tiny"): string {
  const model = join(folder(), name);
  cpSync(`${tiny}/checkpoint`, model, { recursive: true });
  for (const part of ["text_encoder", "vae"]) cpSync(`${tiny}/${part}`, join(model, part), { recursive: true });
  return model;
}

export interface ServeOptions {
  /** Further models. */
  others?: string[];
  output?: string;
  port?: number;
  key?: string;
  /** Origin of a page that may show it in a frame. */
  frame?: string;
}

/** A running `miro studio`. */
export interface Serving {
  url: string;
  output: string;
  process: ChildProcess;
  end(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts `miro studio` on a free port, or on the given one. */
export async function serve(
  model: string,
  { others = [], output = folder(), port = 0, key, frame }: ServeOptions = {},
): Promise<Serving> {
  const models = [model, ...others].flatMap((one) => ["--model", one]);
  const args = ["studio", ...models, "--port", `${port}`, "--output", output, "--dtype", "float32"];
  if (frame !== undefined) args.push("--allow-frame", frame);
  const child = spawn(process.execPath, [join(root, "packages/miro/bin/miro.mjs"), ...args], {
    env: { ...process.env, OMP_NUM_THREADS: "1", ...(key !== undefined && { MIRO_STUDIO_API_KEY: key }) },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (piece) => {
    said += piece;
  });
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.once("data", (line) => resolve(String(line).trim()));
    child.once("exit", (code) => reject(new Error(`miro studio ended with ${code}: ${said}`)));
  });
  return {
    url,
    output,
    process: child,
    async end(signal = "SIGTERM") {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      await once(child, "exit");
    },
  };
}
