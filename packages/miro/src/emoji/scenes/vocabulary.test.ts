import { readFileSync } from "node:fs";
import { afterEach, expect, it, vi } from "vitest";
import { runCaptured } from "../../cli/testing/run-captured.js";

/** An installation that has none of the packages that scenes are made from. */
vi.mock("node:module", async (load) => {
  const module = await load<typeof import("node:module")>();
  const createRequire = (from: string | URL) => {
    const require = module.createRequire(from);
    const resolve = (name: string) => {
      if (/emoji/.test(name)) throw new Error(`Cannot find module ${name}`);
      return require.resolve(name);
    };
    return Object.assign((name: string) => require(name), { resolve });
  };
  return { ...module, default: module, createRequire };
});
afterEach(() => vi.restoreAllMocks());

const { devDependencies } = JSON.parse(readFileSync(new URL("../../../../../package.json", import.meta.url), "utf8"));
const [pictures, names] = ["@lobehub/fluent-emoji-3d", "emojibase-data"].map(
  (name) => `${name}@${/\d+/.exec(devDependencies[name])![0]}`,
);
const told = `emoji scenes are made from @lobehub/fluent-emoji-3d, which is not installed; run: npm install ${pictures} ${names}`;

it.each([
  ["render", "emoji-data"],
  ["evaluate", "geneval", "--prompts", "emoji"],
  ["train", "emoji"],
])("an installation without the packages of the scenes is told how to install them: miro %s %s", async (...args) => {
  const { code, stdout, stderr } = await runCaptured(...args, ...(args[0] === "train" ? ["--dry-run"] : []));
  expect(code).not.toBe(0);
  expect(stdout + stderr).toContain(told);
});
