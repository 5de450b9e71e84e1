/**
 * Refuses to run where a bundler has copied this package into another file: its models, recipes and pages lie beside
 * it, and its dependencies have native parts. The first import of every entry, so that its message comes before the
 * failures of those.
 */
import { readFileSync } from "node:fs";

/** The name that the package.json beside this code has, null where there is none. */
function packageName(): string | null {
  try {
    // A bundle in CommonJS has no import.meta.url.
    const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
    return (JSON.parse(manifest) as { name?: string }).name ?? null;
  } catch {
    return null;
  }
}

/** There in bundles of webpack alone, which lets `import.meta.url` name the file that it has copied from. */
declare const __webpack_require__: unknown;

if (typeof __webpack_require__ !== "undefined" || packageName() !== "miro-t2i") {
  throw new Error(
    "miro-t2i was bundled into another file, where it finds neither its models nor its native parts; mark it as " +
      "external (esbuild: --external:miro-t2i; Vite: ssr.external; webpack, Rollup: externals; Next.js: " +
      "serverExternalPackages)",
  );
}
