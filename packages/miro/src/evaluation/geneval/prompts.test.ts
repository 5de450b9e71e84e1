import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { pythonJson } from "../../files/python-json.js";
import { sha256 } from "../../files/sha256.js";
import { TASKS } from "./metadata.js";
import { CLASS_NAMES, publishedMetadata, publishedPrompts, readLongPrompts, readPromptSet } from "./prompts.js";

const folder = mkdtempSync(join(tmpdir(), "miro-prompts-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (text: string) => {
  writeFileSync(join(folder, "metadata.jsonl"), text);
  return join(folder, "metadata.jsonl");
};

describe("the prompts of GenEval", () => {
  it("are the published file, byte for byte", () => {
    const text = publishedMetadata();
    expect(text).toHaveLength(85_209);
    expect(sha256(text)).toBe("5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13");
    expect(sha256(CLASS_NAMES.map((name) => `${name}\n`).join(""))).toBe(
      "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd",
    );
  });

  it("have the published numbers of each task, in the order of the tasks", () => {
    const { prompts } = publishedPrompts();
    const numbers = TASKS.map((task) => prompts.filter(({ tag }) => tag === task).length);
    expect(numbers).toEqual([80, 99, 80, 94, 100, 100]);
    expect(prompts.map(({ tag }) => tag)).toEqual(TASKS.flatMap((task, i) => Array(numbers[i]).fill(task)));
    expect(new Set(prompts.map(({ prompt }) => prompt)).size).toBe(553);
  });

  it("read from a file are what the program makes", () => {
    const { name, ...made } = publishedPrompts();
    expect(readPromptSet(file(publishedMetadata()))).toEqual({ name: join(folder, "metadata.jsonl"), ...made });
  });

  it("may be longer texts for the same requirements, and no others", () => {
    const lines = publishedMetadata().trimEnd().split("\n");
    const long = lines.map((line) => {
      const record = JSON.parse(line) as { prompt: string };
      return pythonJson({ ...record, prompt: `${record.prompt}, seen from afar on a sunny day` });
    });
    const { prompts } = readLongPrompts(file(long.join("\n")));
    expect(prompts[7]!.prompt).toMatch(/^a photo of .*, seen from afar on a sunny day$/);
    expect(() => readLongPrompts(file(long.slice(1).join("\n")))).toThrow(/holds 552 prompts, expected 553/);
    expect(() => readLongPrompts(file([long[1], long[0], ...long.slice(2)].join("\n")))).toThrow(
      /line 1: asks for something else than prompt 0/,
    );
  });
});

it("what is wrong in a file of prompts is named with its line", () => {
  const good = '{"tag": "x", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"}';
  for (const [line, error] of [
    ["{", /metadata\.jsonl, line 3: not valid JSON/],
    ["[]", /metadata\.jsonl, line 3: expected an object, received \[\]/],
    ['{"tag": "x", "tag": "y", "prompt": ""}', /line 3: the key "tag" stands twice/],
    ['{"tag": "x", "include": [{"class": "cat", "count": 0}], "prompt": ""}', /line 3: include\.0\.count: /],
    ['{"tag": "x", "__proto__": {}, "prompt": ""}', /line 3: __proto__: the key "__proto__" is not allowed/],
  ] as const)
    expect(() => readPromptSet(file(`${good}\n\n${line}\n`))).toThrow(error);
  expect(() => readPromptSet(file("\n"))).toThrow(/holds no prompt/);
});
