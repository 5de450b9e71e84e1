import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { afterEach, beforeEach, describe, expect, expectTypeOf, it } from "vitest";
import { z } from "zod";
import { parseAxis } from "../evaluation/sweep/axis.js";
import { field, flag, type OptionsOf, oneEach, parseOptions } from "../options.js";
import { type GenerateOptions, generateSchema } from "../pipeline/generate-options.js";
import { pictureOptions } from "../pipeline/picture-options.js";
import { readPromptFile } from "../pipeline/requests/prompt-file.js";
import { decidedOptions, imageSettingsSchema } from "../pipeline/settings.js";
import { addOptions, declare } from "./add-options.js";
import { flagNames } from "./flag-names.js";

/** The options of `generate` and one more. Nothing else here knows of it. */
const schema = generateSchema.extend({
  /** How much glitter. */
  glitterAmount: field(z.number().min(0).max(1).default(0.25), {
    expected: "a number from 0 to 1",
    help: "how much glitter",
    flag: "--glitter <x>",
    perPrompt: true,
  }),
});

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-options-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** What a command with these options gets for a command line. */
async function given<S extends z.ZodObject>(options: S, ...args: string[]): Promise<unknown> {
  let found: unknown;
  const command = declare(new Command().exitOverride(), options, (_, values) => {
    found = values;
  });
  await command.parseAsync(args, { from: "user" });
  return found;
}

describe("an option that is declared in one place", () => {
  it("is a flag, with its type and default in the help", async () => {
    const help = addOptions(new Command(), schema).configureHelp({ helpWidth: 200 }).helpInformation();
    expect(help).toMatch(/--glitter <x> +how much glitter \(a number from 0 to 1; default: 0\.25\)/);
    expect(await given(schema, "--glitter", "0.5")).toEqual({ glitterAmount: 0.5 });
    await expect(given(schema, "--glitter", "2")).rejects.toMatchObject({
      parameter: "glitterAmount",
      expected: "a number from 0 to 1",
      received: 2,
    });
    await expect(given(schema, "--glitter", "much")).rejects.toThrow("expected a number, received");
  });

  it("has a flag that no other option has", () => {
    const again = field(z.number().default(0), { expected: "a number", help: "more glitter" });
    const samplerOptions = field(z.record(z.string(), z.number()).optional(), {
      expected: "options",
      help: "options",
      members: () => ({ glitter: again }),
    });
    const command = new Command("draw");
    expect(() =>
      addOptions(command, z.strictObject({ glitterAmount: schema.shape.glitterAmount, samplerOptions })),
    ).toThrow(
      'samplerOptions.glitter: expected an option whose flag miro draw does not have yet, received "--glitter"',
    );
  });

  it("is called by its flag in errors of the command line", () => {
    expect(flagNames(addOptions(new Command(), schema))).toMatchObject({
      glitterAmount: "--glitter",
      guidanceScale: "--guidance",
      "samplerOptions.eta": "--eta",
    });
  });

  it("is a column of prompt files", () => {
    writeFileSync(join(folder, "a.csv"), "prompt,glitter,reward.sharpness\na fox,1,0.5\n");
    writeFileSync(join(folder, "a.jsonl"), '{"prompt":"a fox","glitter":2}\n');
    expect(readPromptFile(join(folder, "a.csv"), schema)).toMatchObject([
      { prompt: "a fox", options: { glitterAmount: 1, rewardTargets: { sharpness: 0.5 } } },
    ]);
    expect(() => readPromptFile(join(folder, "a.jsonl"), schema)).toThrow(
      /a\.jsonl:1: glitter: expected a number from 0 to 1, received 2/,
    );
    expect(() => readPromptFile(join(folder, "a.csv"))).toThrow(/unknown column "glitter"/);
  });

  it("is an axis of sweeps", () => {
    const { points } = parseAxis("glitter=0:1:0.5", "--x", [], schema);
    expect(points.map(({ change }) => change)).toEqual([0, 0.5, 1].map((glitterAmount) => ({ glitterAmount })));
    expect(() => parseAxis("glitter=2", "--x", [], schema)).toThrow("expected a number from 0 to 1");
    expect(() => parseAxis("glitter=1", "--x", [])).toThrow("expected one of the axes");
  });

  it("is stored in pictures, where it decides them", () => {
    const decides = pictureOptions.extend({ glitterAmount: schema.shape.glitterAmount });
    const plan = { steps: 3, glitterAmount: 0.5, deterministic: false, samplerOptions: {}, batchSize: 2 };
    expect(decidedOptions(plan, decides)).toEqual({ steps: 3, glitterAmount: 0.5 });
    const stored = oneEach(decides).shape;
    expect([0.5, 2, undefined].map((value) => stored.glitterAmount.safeParse(value).success)).toEqual([
      true,
      false,
      false,
    ]);
    expect([3, [3, 4]].map((value) => stored.seed.safeParse(value).success)).toEqual([true, false]);
    const names = Object.keys(imageSettingsSchema.shape);
    expect(names).toEqual(expect.arrayContaining(Object.keys(pictureOptions.shape)));
  });

  it("is checked, and typed, for TypeScript callers", () => {
    expect(parseOptions(schema, {}).glitterAmount).toBe(0.25);
    expect(() => parseOptions(schema, { glitterAmount: 2 })).toThrow(
      "glitterAmount: expected a number from 0 to 1, received 2",
    );
    expectTypeOf<OptionsOf<typeof schema>["glitterAmount"]>().toEqualTypeOf<number | undefined>();
    expectTypeOf<GenerateOptions["steps"]>().toEqualTypeOf<number | undefined>();
  });
});

describe("a command's options", () => {
  const command = z.strictObject({
    names: field(z.array(z.string()), { expected: "names", help: "names", flag: "<name...>" }),
    on: field(z.boolean().default(true), { expected: "true or false", help: "lights", flag: "--no-on" }),
    list: field(z.array(z.int()).default([]), { expected: "integers", help: "integers", flag: "--item <n>" }),
    rewards: field(z.record(z.string(), z.number()).optional(), {
      expected: "numbers by name",
      help: "rewards",
      flag: "--reward <key=value>",
    }),
    weights: field(z.record(z.string(), z.string()).optional(), {
      expected: "folders by scorer",
      help: "weights",
      flag: "--weights <scorer=dir>",
    }),
  });

  it("collect lists and records, switch off what holds, and leave out what was not given", async () => {
    expect(await given(command, "a", "b", "--item", "1", "--item", "2", "--no-on")).toEqual({
      names: ["a", "b"],
      list: [1, 2],
      on: false,
    });
    expect(await given(command, "a", "--reward", "x=1", "--reward", "y=.5")).toEqual({
      names: ["a"],
      rewards: { x: 1, y: 0.5 },
    });
  });

  it("take flags back in the order that they come in, and list no flag twice", async () => {
    const flags = z.strictObject({ ...command.shape, quiet: flag("no notes", "--quiet") });
    expect(await given(flags, "a", "--no-on", "--on", "--quiet", "--no-quiet")).toMatchObject({
      on: true,
      quiet: false,
    });
    expect(await given(flags, "a", "--on", "--no-on", "--no-quiet", "--quiet")).toMatchObject({
      on: false,
      quiet: true,
    });
    const help = addOptions(new Command(), flags).helpInformation();
    expect(help).not.toMatch(/--on\b|--no-quiet/);
  });

  it("refuse a key of an object's own machinery, and a record without a value", async () => {
    await expect(given(command, "a", "--reward", "__proto__=1")).rejects.toThrow(/--reward: the key "__proto__"/);
    await expect(given(command, "a", "--reward", "x")).rejects.toThrow(
      "expected key=value, for example clip_score=0.5, received",
    );
    await expect(given(command, "a", "--weights", "model.safetensors")).rejects.toThrow(
      'expected scorer=dir, received "model.safetensors"',
    );
  });
});

describe("a command that fails", () => {
  const outputs = z.strictObject({
    output: field(z.string(), { expected: "a folder", help: "a folder", flag: "--output <dir>", writes: "folder" }),
    plot: field(z.string(), { expected: "a file", help: "a file", flag: "--plot <file>", writes: "file" }),
  });
  /** Runs a command that makes the folders of its outputs and fails unless told otherwise. */
  const run = (work: (output: string) => void) => {
    const command = declare(new Command().exitOverride(), outputs, ({ output, plot }) => {
      mkdirSync(output, { recursive: true });
      mkdirSync(join(plot, ".."), { recursive: true });
      work(output);
    });
    const args = ["--output", join(folder, "a", "b"), "--plot", join(folder, "c", "d", "plot.png")];
    return command.parseAsync(args, { from: "user" });
  };
  const fails = () => {
    throw new Error("failed");
  };

  it("leaves no folder that it has made and put nothing in", async () => {
    await expect(run(fails)).rejects.toThrow("failed");
    expect(readdirSync(folder)).toEqual([]);
    mkdirSync(join(folder, "a"));
    await expect(run(fails)).rejects.toThrow("failed");
    expect(readdirSync(folder)).toEqual(["a"]);
  });

  it("leaves what it has written, and one that succeeds its empty folders", async () => {
    const writes = (output: string) => {
      writeFileSync(join(output, "made"), "");
      fails();
    };
    await expect(run(writes)).rejects.toThrow("failed");
    expect(readdirSync(folder)).toEqual(["a"]);
    await run(() => {});
    expect(existsSync(join(folder, "c", "d"))).toBe(true);
  });
});
