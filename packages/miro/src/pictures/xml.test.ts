import fc from "fast-check";
import { expect, it } from "vitest";
import { escapeXml, unescapeXml } from "./xml.js";

it("text comes back from XML as it was", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      expect(escapeXml(text)).not.toMatch(/[<>"']/);
      expect(unescapeXml(escapeXml(text))).toBe(text);
    }),
  );
});

it.each([
  ["&#65;&#x42;&amp;&apos;", "AB&'"],
  ["&nbsp;&constructor;&toString;", "&nbsp;&constructor;&toString;"],
  ["&#1114112;", "&#1114112;"],
])("%s is %s", (text, meaning) => expect(unescapeXml(text)).toBe(meaning));
