import { describe, expect, it } from "vitest";
import { articleOf, pluralOf, takesArticle } from "./grammar.js";
import { loadVocabulary } from "./vocabulary.js";

describe("articles and plurals of names", () => {
  it.each([
    ["red apple", "a", "red apples"],
    ["octopus", "an", "octopuses"],
    ["unicorn", "a", "unicorns"],
    ["ear of corn", "an", "ears of corn"],
    ["butterfly", "a", "butterflies"],
    ["monkey face", "a", "monkey faces"],
    ["wolf", "a", "wolves"],
    ["wine glass", "a", "wine glasses"],
    ["face with tears of joy", "a", "faces with tears of joy"],
    ["grinning face with big eyes", "a", "grinning faces with big eyes"],
    ["cloud with lightning and rain", "a", "clouds with lightning and rain"],
    ["hammer and wrench", "a", "hammers and wrenches"],
    ["leaf fluttering in wind", "a", "leaves fluttering in wind"],
  ])("%s takes %s and becomes %s", (name, article, plural) => {
    expect(takesArticle(name)).toBe(true);
    expect(articleOf(name)).toBe(article);
    expect(pluralOf(name)).toBe(plural);
  });

  it.each(["two hearts", "clinking glasses", "fries", "bread"])("%s takes no article and is its own plural", (name) => {
    expect(takesArticle(name)).toBe(false);
    expect(pluralOf(name)).toBe(name);
  });

  it("makes no plural of a plural for any name of the vocabulary", () => {
    const plurals = loadVocabulary("core").map(({ plural }) => plural);
    expect(
      plurals.filter((plural) => /(?:eyes|hearts|glasses|cards|horns|beads|clothes|points)es\b/.test(plural)),
    ).toEqual([]);
  });
});
