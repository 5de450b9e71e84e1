/** Threads run in processes that were started with flags about their main program. */
import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { compiledModule } from "./compiled-module.js";

it("a program runs as a thread of a process whose own program is a module on the command line", () => {
  const main = `
    import { startProgram } from ${JSON.stringify(compiledModule("compiled-module.js").href)};
    const thread = startProgram('const { parentPort, workerData } = require("node:worker_threads"); parentPort.postMessage(workerData)', 7);
    thread.once("message", (value) => process.stdout.write(String(value)));
  `;
  const written = execFileSync(process.execPath, ["--input-type=module", "--eval", main], { encoding: "utf8" });
  expect(written).toBe("7");
});
