// sharp with its native code loaded at the first picture: importing the package costs nothing of it.
import { createRequire } from "node:module";
import type Sharp from "sharp";

let loaded: typeof Sharp | undefined;

function load(): typeof Sharp {
  loaded ??= createRequire(import.meta.url)("sharp") as typeof Sharp;
  return loaded;
}

/** The function `sharp` and what hangs on it. */
export const sharp: typeof Sharp = new Proxy((() => {}) as unknown as typeof Sharp, {
  apply: (_, self, args) => Reflect.apply(load(), self, args),
  get: (_, name) => Reflect.get(load(), name),
});
