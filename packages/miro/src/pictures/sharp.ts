// sharp with its native code loaded at the first picture: importing the package costs nothing of it.
import { createRequire } from "node:module";
import type Sharp from "sharp";
import { MiroError } from "../errors.js";
import { withoutCompressedTexts } from "./png.js";

let loaded: typeof Sharp | undefined;

function load(): typeof Sharp {
  try {
    loaded ??= createRequire(import.meta.url)("sharp") as typeof Sharp;
    return loaded;
  } catch (error) {
    // No fault of a picture: nothing may be written about one.
    const reason = (error as Error).message.split("\n")[0]!;
    throw new MiroError(`sharp, which decodes pictures, cannot be loaded: ${reason}; install the package again`, {
      cause: error,
    });
  }
}

/** What comes of a stranger's file; values of pixels are taken as they are. */
function safely([input, options, ...rest]: unknown[]): unknown[] {
  const isFile = input instanceof Uint8Array && (options as { raw?: object } | undefined)?.raw === undefined;
  return [isFile ? withoutCompressedTexts(input) : input, options, ...rest];
}

/** The function `sharp` and what hangs on it. */
export const sharp: typeof Sharp = new Proxy((() => {}) as unknown as typeof Sharp, {
  apply: (_, self, args) => Reflect.apply(load(), self, safely(args)),
  get: (_, name) => Reflect.get(load(), name),
});
