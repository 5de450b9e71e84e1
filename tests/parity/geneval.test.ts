// The committed recording of GenEval's rules, as an outside program would check them: through the command line.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { runCaptured } from "../../packages/miro/src/cli/testing/run-captured.js";
import { scorerFolder } from "../reference/fixture.js";

it("verdicts and reasons of GenEval equal the recorded ones, text for text", async () => {
  const path = join(scorerFolder(), "geneval", "rules.json");
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Record<string, unknown>[] };
  const { stdout } = await runCaptured("evaluate", "geneval", "--judge", path, "--json");
  expect(JSON.parse(stdout).verdicts).toEqual(cases.map(({ name, correct, reason }) => ({ name, correct, reason })));
  expect(cases.length).toBeGreaterThan(100);
});
