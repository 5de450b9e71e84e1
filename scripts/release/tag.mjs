#!/usr/bin/env node
/**
 * Tags the version of the packages, unless it is tagged; the tag's workflow publishes them. Run by the release
 * workflow.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const manifest = new URL("../../packages/miro/package.json", import.meta.url);
const tag = `v${JSON.parse(readFileSync(manifest, "utf8")).version}`;
const git = (...args) => execFileSync("git", args, { encoding: "utf8" }).trim();
if (git("ls-remote", "--tags", "origin", `refs/tags/${tag}`) === "") {
  git("tag", tag);
  git("push", "origin", tag);
  console.log(`tagged ${tag}`);
} else console.log(`${tag} is there already`);
