/** How the studio's page is built: `npm run build:web` writes packages/miro/web, which `miro studio` serves. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = path.dirname(fileURLToPath(import.meta.url));

export default defineConfig({
  root: here,
  // A proxy may serve the page below a path of its own.
  base: "./",
  publicDir: path.join(here, "public"),
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: path.join(here, "../../../web"),
    emptyOutDir: true,
    target: "es2022",
    // Nothing inline: the server's content security policy allows files of its own alone.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npx vite --config …` serves the sources; what is no file of the page is asked of a running studio.
  server: { proxy: Object.fromEntries(["/api", "/health"].map((route) => [route, "http://127.0.0.1:7860"])) },
});
