#!/usr/bin/env node
import { existsSync } from "node:fs";

// A reader that hangs up (`miro info x | head -1`) is no fault.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error) => {
    if (error.code !== "EPIPE") throw error;
  });
}

const main = new URL("../dist/cli/main.js", import.meta.url);
if (existsSync(main)) {
  const { run } = await import(main.href);
  process.exitCode = await run(process.argv.slice(2));
} else {
  process.stderr.write("miro is not built yet: run `npm run setup` in the repository first\n");
  process.exitCode = 1;
}
