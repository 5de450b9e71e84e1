// How the device check treats a phase that fails, dies, hangs or says nothing, and what it prints of a run.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PHASE_NAMES } from "./phases.js";
import { runPhase } from "./run-phase.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "device-check-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a phase", () => {
  const finding = (state: string) => `process.send({ check: "x", state: "${state}", said: "" });`;
  const run = (source: string, limitSeconds = 30) => {
    const program = join(folder, "phase.mjs");
    writeFileSync(program, source);
    return runPhase(program, [], limitSeconds);
  };

  test.each([
    ["holds when all of its checks do", `${finding("ok")}${finding("does not apply")}`, "ok", null],
    ["fails with one of its checks", `${finding("ok")}${finding("failed")}`, "failed", null],
    ["does not apply when none of its checks does", finding("does not apply"), "does not apply", null],
    ["fails when it looked at nothing", "", "failed", null],
    [
      "fails with an error that nobody caught",
      `${finding("ok")}throw new Error("oh")`,
      "failed",
      /^exit code 1: Error: oh/,
    ],
    ["fails when it is killed", `${finding("ok")}process.kill(process.pid, "SIGKILL")`, "failed", /^SIGKILL/],
  ])("%s", async (_, source, state, death) => {
    const outcome = await run(`${source}\n;process.disconnect();`);
    expect(outcome.state).toBe(state);
    if (death === null) expect(outcome.death).toBeNull();
    else expect(outcome.death).toMatch(death);
  });

  test("that fails leaves all of an error, and the end of what it printed", async () => {
    const check = `import { Checks } from ${JSON.stringify(new URL("../dist/device/checks.js", import.meta.url).href)};
      const checks = new Checks("cpu", (finding) => process.send(finding));
      await checks.check("x", () => { throw new Error("CUDA error: oh\\nat kernel.cu:7"); });
      console.log("a report of many lines\\n".repeat(3));
      process.exit(3);`;
    const { findings, death, printed } = await run(check);
    expect(findings).toMatchObject([{ state: "failed", said: "CUDA error: oh" }]);
    expect(findings[0]!.details).toMatch(/CUDA error: oh\nat kernel.cu:7\n +at .*phase.mjs/);
    expect(death).toBe("exit code 3: a report of many lines");
    expect(printed.match(/many lines/g)).toHaveLength(3);
  });

  test.runIf(process.platform === "linux")("that dies in the engine leaves the stacks of its threads", async () => {
    const engine = import.meta.resolve("@miro-t2i/torch");
    const crash = `import { getNumThreads } from ${JSON.stringify(engine)};
      getNumThreads();
      console.error("at the kernel");
      process.chdir(${JSON.stringify(folder)}); // for the system's dump of its memory, if there is one
      process.kill(process.pid, "SIGABRT");
      setInterval(() => {}, 1000);`;
    const { state, death, printed } = await run(crash);
    expect([state, death]).toEqual(["failed", "SIGABRT: at the kernel"]);
    expect(printed).toMatch(/^signal 6, thread \d+\n.*miro_torch\.node/m);
  });

  test("is stopped at its limit with what it has started, and keeps its findings", async () => {
    const child = `import { spawn } from "node:child_process"; const c = spawn("sleep", ["60"]);`;
    const source = `${child} process.send({ check: String(c.pid), state: "ok", said: "" }); setInterval(() => {}, 1000);`;
    const { state, findings } = await run(source, 2);
    expect(state).toBe("out of time");
    expect(findings).toHaveLength(1);
    const pid = Number(findings[0]!.check);
    // A process that was killed may stay for a moment until it is reaped.
    const stateOf = spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" }).stdout.trim();
    expect(stateOf).toMatch(/^(Z.*)?$/);
  });
});

describe("the program", () => {
  const program = fileURLToPath(new URL("../dist/device/main.js", import.meta.url));
  const check = (...args: string[]) => spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });

  test("prints machine, versions and findings as JSON, and the table beside them", () => {
    const { status, stdout, stderr } = check("--device", "cpu", "--json", "--only", "replay,conformance");
    expect(status, stderr).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ device: "cpu", failed: [], machine: { cores: expect.any(Number) } });
    expect(report.versions).toMatchObject({ node: process.versions.node, libtorch: expect.stringMatching(/^2\./) });
    const [conformance, replay] = report.phases; // in the order of the phases, not of the option
    expect(conformance).toMatchObject({ name: "conformance", state: "ok" });
    expect(conformance.findings.map(({ check }: { check: string }) => check)).toContain("values in bfloat16");
    expect(replay).toMatchObject({ name: "replay", state: "does not apply" });
    expect(stderr).toMatch(/values in float32 +\d+ lines/);
  });

  test("a phase that does not get its time is named, and is no success", () => {
    const { status, stdout } = check("--device", "cpu", "--only", "train", "--budget", "1");
    expect(status).toBe(1);
    expect(stdout).toMatch(/^train: LEFT OUT/m);
    expect(stdout).toMatch(/train FAILED$/m);
  });

  test("a file holds the findings after each phase, and why there are none", () => {
    const file = join(folder, "results.json");
    const results = () => JSON.parse(readFileSync(file, "utf8"));
    expect(check("--device", "cpu", "--only", "replay", "--output", file).status).toBe(0);
    expect(results()).toMatchObject({ problem: null, failed: [], phases: [{ name: "replay" }] });
    expect(check("--device", "cuda:99", "--output", file).status).toBe(2);
    expect(results()).toMatchObject({ problem: expect.stringMatching(/cuda:99 is not available/), phases: [] });
  });

  test.each([
    [["--device", "cuda:99"], /--device: cuda:99 is not available .*available: cpu/],
    [["--device", "tpu"], /--device.*cpu, cuda or cuda:N.*tpu/],
    [["--only", "smoke,quick"], new RegExp(`--only.*${PHASE_NAMES.join(", ")}`)],
  ])("%j is wrong usage", (args, message) => {
    const { status, stdout, stderr } = check(...args);
    expect([status, stdout], stderr).toEqual([2, ""]);
    expect(stderr).toMatch(message);
  });
});
