import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError, MiroError } from "../../errors.js";
import { readPromptFile } from "./prompt-file.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-prompts-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function read(name: string, content: string | Uint8Array) {
  writeFileSync(join(folder, name), content);
  return readPromptFile(join(folder, name));
}
const without = (requests: object[]) => requests.map((request) => ({ ...request, where: undefined }));

it("text: one prompt a line, with or without a byte order mark and carriage returns", () => {
  expect(read("a.txt", '\ufeffa fox\r\n\r\n  # a cat, "black" \n')).toEqual([
    { prompt: "a fox", options: {} },
    { prompt: '# a cat, "black"', options: {} },
  ]);
});

const settings = {
  prompt: 'a "red", fox',
  options: {
    imagesPerPrompt: 2,
    rewardTargets: { sharpness: 0.25, clip_score: 1 },
    negativeRewardTargets: { sharpness: 0.5 },
    steps: 20,
    guidanceScale: -1.5,
    guidanceType: "linear",
    guidanceWindow: [2, null],
    sampler: "euler",
    shift: 0.5,
  },
  seed: 7,
  name: "007",
};

it("JSON lines and CSV give the same settings", () => {
  const json = {
    prompt: 'a "red", fox',
    name: "007",
    seed: 7,
    images: 2,
    steps: 20,
    guidance: -1.5,
    guidance_type: "linear",
    guidance_window: [2, null],
    sampler: "euler",
    shift: 0.5,
    reward: { sharpness: 0.25, clip_score: 1 },
    negative_reward: { sharpness: 0.5 },
  };
  const lines = read("a.jsonl", `${JSON.stringify(json)}\n\n{"prompt": "7", "seed": "random"}\n`);
  expect(lines).toEqual([
    { ...settings, where: join(folder, "a.jsonl:1") },
    { prompt: "7", options: {}, seed: "random", where: join(folder, "a.jsonl:3") },
  ]);
  const csv = read(
    "a.csv",
    `prompt,name,seed,images,steps,guidance,guidance_type,guidance_window,sampler,shift,reward.sharpness,reward.clip_score,negative_reward.sharpness
"a ""red"", fox",007,7,2,20,-1.5,linear,2:,euler,0.5,0.25,1,0.5
7,,random,,,,,,,,,,
`,
  );
  expect(without(csv)).toEqual(without(lines));
});

it("takes the options that samplers have of their own", () => {
  const csv = read("eta.csv", "prompt,sampler,eta\na fox,euler_ancestral,0.5\na cat,,\n");
  expect(csv.map(({ options }) => options)).toEqual([{ sampler: "euler_ancestral", samplerOptions: { eta: 0.5 } }, {}]);
  const [json] = read("eta.jsonl", '{"prompt": "a fox", "eta": 0}');
  expect(json!.options).toEqual({ samplerOptions: { eta: 0 } });
});

it.each([
  ["a.tsv", 'prompt\tsteps\n"Hello" in 12" type\t7\n'],
  ["semicolons.csv", 'prompt;steps\r\n"""Hello"" in 12"" type";7\r\n;\r\n'],
  ["announced.csv", 'sep=;\r\nprompt;steps\r\n"""Hello"" in 12"" type";7\r\n'],
  ["mixed-ends.csv", 'prompt,steps\n"""Hello"" in 12"" type",7\r\n'],
])("the same settings come from %s", (name, text) => {
  expect(without(read(name, text))).toEqual([
    { prompt: '"Hello" in 12" type', options: { steps: 7 }, where: undefined },
  ]);
});

it.each(["utf16le", "utf8"] as const)("the same prompts come from %s with a byte order mark", (encoding) => {
  const bytes = Buffer.from("\ufeffun café\r\nein Füchslein\u2028im Wald\r\n", encoding);
  const prompts = [{ prompt: "un café" }, { prompt: "ein Füchslein\u2028im Wald" }];
  expect(read("a.txt", bytes)).toMatchObject(prompts);
  if (encoding === "utf16le") expect(read("b.txt", bytes.swap16())).toMatchObject(prompts);
});

it("text in brackets is a prompt, not JSON", () => {
  expect(read("a.txt", "[a fox] in a box\n{red} cat")).toMatchObject([
    { prompt: "[a fox] in a box" },
    { prompt: "{red} cat" },
  ]);
});

describe("errors name file and line", () => {
  it.each<[string, string, string | Uint8Array, RegExp]>([
    [
      "an unknown setting",
      "a.jsonl",
      '{"prompt":"a"}\n{"prompt":"a","step":3}',
      /a\.jsonl:2: step: expected one of the options prompt, name, seed, images, reward, /,
    ],
    [
      "a wrong value",
      "a.jsonl",
      '{"prompt":"a","steps":0}',
      /a\.jsonl:1: steps: expected an integer of at least 1, received 0$/,
    ],
    [
      "a reward that is no number",
      "a.jsonl",
      '{"prompt":"a","reward":{"x":"1"}}',
      /a\.jsonl:1: reward\.x: expected finite numbers by reward name, received "1"$/,
    ],
    ["no prompt", "a.jsonl", '{"seed":1}', /a\.jsonl:1: prompt: missing$/],
    ["an empty prompt", "a.jsonl", '{"prompt":" "}', /a\.jsonl:1: prompt: expected a text/],
    ["half a character", "a.jsonl", '{"prompt":"a \\ud83e fox"}', /a\.jsonl:1: .*half of a character of UTF-16/],
    ["no JSON", "a.jsonl", '\n{"prompt":', /a\.jsonl:2: not valid JSON/],
    [
      "a key of an object's own machinery",
      "a.jsonl",
      '{"prompt":"a","reward":{"__proto__":{"x":1}}}',
      /a\.jsonl:1: reward\.__proto__: the key "__proto__" is not allowed/,
    ],
    [
      "a column of an object's own machinery",
      "a.csv",
      "prompt,reward.constructor\na,1",
      /a\.csv:2: reward\.constructor: the key "constructor" is not allowed/,
    ],
    ["no object", "a.jsonl", '["a"]', /a\.jsonl:1: expected a JSON object/],
    [
      "an unknown column",
      "a.csv",
      "prompt,stepps\na,3",
      /a\.csv:1: unknown column "stepps"; there are prompt, .*reward\.KEY, negative_reward\.KEY, steps/,
    ],
    ["a column twice", "a.csv", "prompt,seed,seed\na,3,3", /a\.csv:1: two columns "seed"/],
    ["no prompt column", "a.csv", "seed\n3", /a\.csv:1: no column "prompt"/],
    [
      "a row too short, after a prompt of two lines",
      "a.csv",
      'prompt,seed\n"a\nb",3\nc\n',
      /a\.csv:4: expected 2 cells as in the header, found 1/,
    ],
    [
      "a wrong cell",
      "a.csv",
      "prompt,steps\na,3\nb,three",
      /a\.csv:3: steps: expected an integer of at least 1, received "three"$/,
    ],
    [
      "a wrong reward",
      "a.csv",
      "prompt,reward.sharpness\na,high",
      /a\.csv:2: reward\.sharpness: expected finite numbers/,
    ],
    ["an open quote", "a.csv", 'prompt\n"a', /a\.csv:\d: not valid CSV/],
    ["nothing", "a.txt", " \n\n", /a\.txt holds no prompt$/],
    ["an empty table", "a.csv", "prompt\n", /a\.csv holds no prompt$/],
    ["another encoding", "a.txt", Uint8Array.of(0x66, 0xfc, 0x63), /a\.txt: is not UTF-8 text: 0xfc at byte 1; /],
    ["a setting twice", "a.jsonl", '{"prompt":"a","steps":5,"steps":50}', /a\.jsonl:1: .*"steps" stands twice/],
    ["a number that is no decimal one", "a.csv", "prompt,seed\na,0x10", /a\.csv:2: seed: expected .*received "0x10"/],
    [
      "a file of another kind",
      "package.json",
      '{"name": "x"}',
      /package\.json: \.json is no list of prompts; expected \.txt/,
    ],
    ["a picture", "a.png", Uint8Array.of(0x89, 0x50), /a\.png: \.png is no list of prompts/],
    ["a picture called text", "a.txt", Uint8Array.of(0x89, 0x50), /a\.txt: is not UTF-8 text: 0x89 at byte 0/],
    ["binary data in ASCII", "a.txt", "GIF89a\0\x01", /a\.txt: is not UTF-8 text: a NUL at byte 6/],
    ["JSON called text", "a.txt", '{\n  "name": "x"\n}\n', /a\.txt: is JSON, expected one prompt a line/],
    ["JSON lines called text", "a.txt", '{"prompt": "a"}\n{"prompt": "b"}\n', /a\.txt: is JSON.* called \.jsonl$/],
    ["a page called text", "a.txt", "<!DOCTYPE html>\n<p>a fox</p>\n", /a\.txt: is HTML or XML/],
    ["a pointer of Git LFS", "a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", /git lfs pull/],
  ])("%s", (_, name, content, message) => {
    expect(() => read(name, content)).toThrow(message);
    expect(() => read(name, content)).toThrow(InvalidInputError);
  });

  it("a file that is not there", () => {
    expect(() => readPromptFile(join(folder, "none"))).toThrow(MiroError);
  });
});
