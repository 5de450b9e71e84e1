import { expect, it } from "vitest";
import { z } from "zod";
import { checkContent, expectation, expectedAndReceived } from "./expectations.js";

it.each<[z.ZodType, unknown, string]>([
  [z.int().min(1), 0, "an integer of at least 1, received 0"],
  [z.int(), 1.5, "an integer, received 1.5"],
  [z.int(), "1", 'an integer, received "1"'],
  [z.number().positive(), 0, "a number above 0, received 0"],
  [z.number().max(1), 2, "a number of at most 1, received 2"],
  [z.number().lt(1), 1, "a number below 1, received 1"],
  [z.number(), Number.POSITIVE_INFINITY, "a finite number, received Infinity"],
  [z.number(), undefined, "a number, received nothing"],
  [z.number().nullable(), "x", 'a number, received "x"'],
  [z.int().multipleOf(8), 9, "a multiple of 8, received 9"],
  [z.string().min(1), "", 'a text of at least 1 character, received ""'],
  [z.string().max(3), "abcd", 'a text of at most 3 characters, received "abcd"'],
  [z.boolean(), 1, "true or false, received 1"],
  [z.array(z.int()).length(2), [1], "a list of 2 values, received [1]"],
  [z.tuple([z.int(), z.int()]), [1], "a list of 2 values, received [1]"],
  [z.tuple([z.int(), z.int()]), [1, 2, 3], "a list of 2 values, received [1,2,3]"],
  [z.record(z.string(), z.int()), [], "an object, received []"],
  [z.enum(["a", "b"]), "c", 'one of a, b, received "c"'],
  [z.literal(3), 4, "3, received 4"],
  [z.union([z.number(), z.literal("auto")]), "x", 'a number or auto, received "x"'],
  [z.union([z.number(), z.array(z.number())]), ["x"], 'a number or a number in 0, received ["x"]'],
])("a schema says in our words what it expected: %#", (schema, value, words) => {
  const message = (error: typeof expectation) => schema.safeParse(value, { error }).error!.issues[0]!.message;
  expect(message(expectedAndReceived)).toBe(`expected ${words}`);
  expect(message(expectation)).toBe(`expected ${words.replace(/, received .*/, "")}`);
});

it("a schema's own words stay as they are", () => {
  const schema = z.string("a word of mine");
  expect(schema.safeParse(3, { error: expectation }).error!.issues[0]!.message).toBe("a word of mine");
});

it("what a file holds is refused with the file and the field", () => {
  const schema = z.object({ sizes: z.array(z.int()) });
  expect(checkContent(schema, { sizes: [1] }, "a.json")).toEqual({ sizes: [1] });
  expect(() => checkContent(schema, { sizes: [1, "2"] }, "a.json")).toThrow(
    'a.json: sizes.1: expected an integer, received "2"',
  );
  expect(() => checkContent(schema, [], "a.json")).toThrow("a.json: expected an object, received []");
});
