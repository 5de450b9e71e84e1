import { expect, it } from "vitest";
import { shortNames } from "./model-card.js";

it("models are called by as much of the end of their paths as tells them apart", () => {
  for (const [ids, names] of [
    [["miro-emoji"], ["miro-emoji"]],
    [["/runs/a/export/"], ["export"]],
    [
      ["runs/a/export", "runs/b/export/", "owner/other@512"],
      ["a/export", "b/export", "other@512"],
    ],
    [
      ["export", "runs/a/export", "runs/b/c/export"],
      ["export", "a/export", "c/export"],
    ],
    [
      ["x/a/export", "y/a/export"],
      ["x/a/export", "y/a/export"],
    ],
    [
      ["a", "a/"],
      ["a", "a/"],
    ],
    [["."], ["."]],
  ] as const)
    expect([ids, shortNames(ids)]).toEqual([ids, names]);
});
