import { describe, expect, it } from "vitest";
import { z } from "zod";
import { InvalidInputError } from "./errors.js";
import { declarationOf, field, parseOptions, readOnly } from "./options.js";

const schema = z.strictObject({
  steps: field(z.int().min(1).optional(), { expected: "an integer of at least 1", help: "sampling steps" }),
  targets: field(z.record(z.string(), z.number()).optional(), { expected: "numbers by name", help: "targets" }),
});

describe("parseOptions", () => {
  it("passes good options and fills in nothing that is absent", () => {
    expect(parseOptions(schema, { steps: 3 })).toEqual({ steps: 3 });
  });

  it.each([
    [{ steps: 0 }, "steps: expected an integer of at least 1, received 0"],
    [{ steps: 1.5 }, "steps: expected an integer of at least 1, received 1.5"],
    [{ steps: "9" }, 'steps: expected an integer of at least 1, received "9"'],
    [{ targets: { clip: Number.NaN } }, "targets.clip: expected numbers by name, received NaN"],
    [{ stepz: 1 }, "stepz: expected one of the options steps, targets, received an unknown one; did you mean steps?"],
    [{ zoom: 1 }, /^zoom: expected one of the options steps, targets, received an unknown one$/],
  ])("refuses %o by name, with what is accepted and what came", (input, message) => {
    expect(() => parseOptions(schema, input)).toThrow(InvalidInputError);
    expect(() => parseOptions(schema, input)).toThrow(message);
  });

  it("names options that are held by another one with it", () => {
    expect(() => parseOptions(schema, { steps: -1 }, "sampling")).toThrow(/^sampling\.steps: /);
  });

  it("leaves what the caller gave as it is: nothing is frozen, whether it is taken or refused", () => {
    const lists = z.union([readOnly(z.record(z.string(), z.number())), readOnly(z.array(z.number()))]);
    const listed = z.strictObject({ some: field(lists, { expected: "numbers", help: "some" }) });
    for (const some of [[1, 2], { a: 1 }, ["x"], { a: "x" }, new Uint8Array(2)]) {
      try {
        parseOptions(listed, { some: some as number[] });
      } catch (error) {
        expect(error).toBeInstanceOf(InvalidInputError);
      }
      expect(Object.isFrozen(some)).toBe(false);
    }
  });

  it("keeps a field's help", () => {
    expect(declarationOf(schema.shape.steps).help).toBe("sampling steps");
  });
});
