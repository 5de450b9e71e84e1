/**
 * Modules that register something: a sampler, a scorer, a source of data. Functions do not pass to other threads and
 * processes, so that those which compute load the modules themselves.
 */
import { realpathSync } from "node:fs";
import { isAbsolute } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { invalid, MiroError } from "./errors.js";
import { message } from "./message.js";

const addresses = new Set<string>();

/**
 * Remembers the module of something that is registered; nothing where none is named.
 * @param parameter what names it, for the error
 * @throws InvalidInputError for what is no address of a file, and for the program itself
 */
export function addModule(parameter: string, module: string | URL | undefined): void {
  if (module !== undefined) addresses.add(addressOf(parameter, module));
}

/** The addresses of all modules, for {@link loadModules} elsewhere. */
export function extensionModules(): string[] {
  return [...addresses];
}

/** Loads modules; those that are loaded stay as they are. @throws MiroError naming the one that cannot be loaded */
export async function loadModules(modules: readonly string[]): Promise<void> {
  for (const module of modules) {
    if (addresses.has(module)) continue;
    try {
      await import(module);
    } catch (error) {
      throw new MiroError(message`${module}: cannot be loaded beside the program that registers it: ${error}`, {
        cause: error,
      });
    }
    addresses.add(module);
  }
}

/**
 * Names of what threads know too: what they register themselves with this package, and what names its module.
 * @param registered all that is registered here, by name
 * @param builtIn names of what this package registers
 */
export function namesInThreads(
  registered: ReadonlyMap<string, { readonly module?: string | URL }>,
  builtIn: readonly string[],
): string[] {
  return [...registered].flatMap(([name, { module }]) =>
    builtIn.includes(name) || module !== undefined ? [name] : [],
  );
}

function addressOf(parameter: string, module: string | URL): string {
  const isPath = typeof module === "string" && isAbsolute(module);
  const url = isPath ? pathToFileURL(module) : URL.canParse(String(module)) ? new URL(module) : null;
  if (url?.protocol !== "file:") throw invalid(parameter, "the address of a file, as import.meta.url is", module);
  // Threads and processes would do all its work again, and so would theirs.
  const own = "a file of its own, which the program imports; threads and processes load it too";
  if (isProgram(fileURLToPath(url))) throw invalid(parameter, own, url.href);
  return url.href;
}

/** Whether a file is the program that this process runs. */
function isProgram(file: string): boolean {
  try {
    return realpathSync(process.argv[1]!) === realpathSync(file);
  } catch {
    return false;
  }
}
