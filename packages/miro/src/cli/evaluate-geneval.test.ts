import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCaptured } from "./testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-geneval-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const geneval = (...args: string[]) => runCaptured("evaluate", "geneval", ...args);
const file = (name: string, content: unknown) => {
  writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  return join(folder, name);
};
const bench = {
  tag: "colors",
  include: [{ class: "bench", count: 1, color: "red" }],
  prompt: "a photo of a red bench",
};
const detections = { bench: [[40, 45, 80, 75, 0.5]] };

describe("miro evaluate geneval --judge", () => {
  it("prints the verdicts in the order of the file; options of a case go before flags, flags before the file's", async () => {
    const path = file("cases.json", {
      options: { threshold: 0.9 },
      cases: [
        { name: "a", metadata: bench, detections, colours: { bench: ["red"] }, options: { threshold: 0.4 } },
        { name: "b", metadata: bench, detections, colours: { bench: ["pink"] } },
      ],
    });
    const { code, stdout } = await geneval("--judge", path, "--options", "threshold=0.45", "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      verdicts: [
        { name: "a", correct: true, reason: "" },
        { name: "b", correct: false, reason: "expected red bench>=1, found 0 red; and 1 pink" },
      ],
    });
    expect((await geneval("--judge", path)).stdout).toMatch(
      /wrong {4}b: expected bench>=1, found 0\n1 of 2 correct\n$/,
    );
  });

  it("names the file, the case and what is wrong with it", async () => {
    const wrong = (name: string, content: unknown) => geneval("--judge", file(name, content));
    expect((await geneval("--judge", join(folder, "none.json"))).code).toBe(1);
    for (const [content, error] of [
      ["{", /bad\.json: not valid JSON/],
      [{ cases: {} }, /bad\.json, cases: .*expected array/],
      [{ cases: [{ name: "x", metadata: bench, detections: { bench: [[1, 2]] } }] }, /bad\.json, cases\.0, detections/],
      [{ cases: [{ name: "x", metadata: { ...bench, tag: 3 }, detections }] }, /case "x", tag: .* received 3/],
      [
        { cases: [{ name: "x", metadata: bench, detections }] },
        /case "x": expected the colours of 1 objects of "bench"/,
      ],
      [
        { options: { treshold: 1 }, cases: [{ name: "x", metadata: bench, detections }] },
        /case "x": treshold: expected/,
      ],
    ] as const) {
      const { code, stderr } = await wrong("bad.json", content);
      expect(stderr).toMatch(error);
      expect(code).toBe(2);
    }
    const { code, stderr } = await geneval("--judge", file("ok.json", { cases: [] }), "--options", "treshold=0.5");
    expect([code, stderr]).toEqual([2, expect.stringMatching(/^error: --options treshold: expected one of/)]);
  });
});
