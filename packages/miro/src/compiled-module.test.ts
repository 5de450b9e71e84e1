/** Threads run in processes that were started with flags about their main program. */
import { execFileSync, spawnSync } from "node:child_process";
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

it.each([{}, { worker: true }])("libtorch's threads wait awake as short in a thread: %o", (options) => {
  const main = `
    import { MiroPipeline } from ${JSON.stringify(compiledModule("index.js").href)};
    const pipe = await MiroPipeline.fromPretrained(undefined, ${JSON.stringify(options)});
    await pipe.dispose();
  `;
  const { GOMP_SPINCOUNT: _, OMP_WAIT_POLICY: __, ...rest } = process.env;
  const env = { ...rest, OMP_DISPLAY_ENV: "verbose" }; // GNU OpenMP tells what it has read when it is loaded
  const { stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", main], { env, encoding: "utf8" });
  expect(stderr).toMatch(/GOMP_SPINCOUNT = '(?:2000|8000)'/);
});
