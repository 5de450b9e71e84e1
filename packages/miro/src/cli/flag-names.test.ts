import { describe, expect, it } from "vitest";
import { InvalidInputError, invalid, MiroError } from "../errors.js";
import { Message, message, option } from "../message.js";
import { flagNames, nameFlags, withFlags } from "./flag-names.js";

const existing = new MiroError(
  message`a.png: exists already; choose another ${option("output")}, or ${option("overwrite", true)} to replace it`,
);

describe("messages that mention options", () => {
  it("name them as TypeScript callers write them", () => {
    expect(existing.message).toBe("a.png: exists already; choose another `output`, or `overwrite: true` to replace it");
    expect(message`${option("resume", 6)} or ${option("missingScores", "skip")}`.text()).toBe(
      '`resume: 6` or `missingScores: "skip"`',
    );
  });

  it("name them as flags on the command line", () => {
    expect(withFlags(existing.wording, {})).toBe(
      "a.png: exists already; choose another --output, or --overwrite to replace it",
    );
    const error = new MiroError(
      message`${option("guidanceScale", 4)}, ${option("vae256", false)}, ${option("missingScores", "skip")}`,
    );
    expect(withFlags(error.wording, { guidanceScale: "--guidance" })).toBe(
      "--guidance 4, --no-vae-256, --missing-scores skip",
    );
  });

  it("keep the options of an error that another one quotes, but not its parameter", () => {
    const own = invalid("time", message`less than ${option("limit")}`, 3);
    const quoting = new InvalidInputError(message`a.yaml:3: ${own}`);
    expect(withFlags(quoting.wording, { time: "--time" })).toBe(
      "a.yaml:3: time: expected less than --limit, received 3",
    );
    expect(withFlags(message`${own}; end`, { time: "--time" })).toBe(
      "--time: expected less than --limit, received 3; end",
    );
  });

  it("survive as plain data", () => {
    const copy = new Message(JSON.parse(JSON.stringify(existing.wording.parts)));
    expect(copy.text()).toBe(existing.message);
    expect(withFlags(copy, {})).toBe(withFlags(existing.wording, {}));
  });
});

describe("invalid", () => {
  it("says as data what its sentence says", () => {
    const error = invalid("rewardTargets.clip_score", "a number from 0 to 1", 2);
    expect(error).toBeInstanceOf(InvalidInputError);
    expect(error).toMatchObject({
      parameter: "rewardTargets.clip_score",
      expected: "a number from 0 to 1",
      received: 2,
      message: "rewardTargets.clip_score: expected a number from 0 to 1, received 2",
    });
    expect(withFlags(error.wording, { rewardTargets: "--reward" })).toBe(
      "--reward clip_score: expected a number from 0 to 1, received 2",
    );
    expect(withFlags(error.wording, { "rewardTargets.clip_score": "--clip" })).toMatch(/^--clip: expected/);
  });
});

describe("flagNames", () => {
  it("collects what a command calls its options", () => {
    const command = {} as Parameters<typeof nameFlags>[0];
    nameFlags(command, { a: "--b" });
    nameFlags(command, { c: "--d" });
    expect(flagNames(command)).toEqual({ a: "--b", c: "--d" });
  });
});
