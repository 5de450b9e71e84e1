/** What a sample's metadata reads as. */
import { expect, it } from "vitest";
import { parseMetadata } from "./metadata.js";

it("bare NaN and Infinity read as null, within texts they stay, however many escapes those hold", () => {
  const text = '"NaN\n'.repeat(2_000_000);
  const json = `{"a": NaN, "NaN": [-Infinity, Infinity], "text": ${JSON.stringify(text)}, "b": NaN}`;
  expect(parseMetadata(Buffer.from(json))).toEqual({ a: null, NaN: [null, null], text, b: null });
});
