// What the workflows of GitHub call is there, and nothing in them changes without a commit here.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { ADDON_PACKAGE, CUDA_PACKAGE, LIBTORCH_PACKAGE } from "./release/packages.mjs";
import { commandsOf, stepsOf } from "./release/workflow.mjs";

const root = path.resolve(import.meta.dirname, "..");
const folder = path.join(root, ".github", "workflows");
const files = readdirSync(folder).map((name) => path.join(folder, name));
const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));

test.each(files)("%s calls programs and files that are there, in lines that bash can read", (file) => {
  const jobs = Object.keys(parse(readFileSync(file, "utf8")).jobs);
  const commands = jobs.flatMap((job) => stepsOf(file, job)).flatMap(commandsOf);
  expect(commands.length).toBeGreaterThan(0);
  for (const text of commands) {
    const env = { PATH: process.env.PATH, LC_ALL: "C" };
    const read = spawnSync("bash", ["--norc", "-n"], { input: text, encoding: "utf8", env });
    expect(read, text).toMatchObject({ status: 0, stderr: "" });
    for (const [, name] of text.matchAll(/\bnpm run ([\w:-]+)/g))
      expect(manifest.scripts, text).toHaveProperty([name!]);
    for (const [, name] of text.matchAll(/(?:^|\s)(?:node )?((?:\.ci|\.\/|scripts\/)[\w./-]*)/gm))
      expect(existsSync(path.join(root, name!)), name).toBe(true);
  }
});

test.each(files)("%s takes every action of others at a commit, with its version beside", (file) => {
  const uses = [...readFileSync(file, "utf8").matchAll(/^ *- uses: (.*)$/gm)].map(([, text]) => text!);
  expect(uses.length).toBeGreaterThan(0);
  for (const text of uses) expect(text).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\b/);
});

test("the release publishes every package that is packed, and each after those it depends on", () => {
  const scratch = mkdtempSync(path.join(tmpdir(), "publish-"));
  try {
    const noted = path.join(scratch, "noted");
    writeFileSync(path.join(scratch, "npm"), `#!/bin/sh\necho "$@" >> '${noted}'\n`, { mode: 0o755 });
    const step = stepsOf(path.join(folder, "release.yml"), "publish").find(({ name }) => name === "Publish")!;
    const env = { ...process.env, PATH: `${scratch}:${process.env.PATH}`, GITHUB_REF_NAME: "v1.2.3" };
    expect(spawnSync("bash", ["-eo", "pipefail", "-c", step.run!], { env }).status).toBe(0);
    const names = [LIBTORCH_PACKAGE, ADDON_PACKAGE, CUDA_PACKAGE, "@miro-t2i/torch", "miro-t2i"];
    const packed = names.map((name) => `build/release/${name.replace("@", "").replace("/", "-")}-1.2.3.tgz`);
    expect(readFileSync(noted, "utf8").trim().split("\n")).toEqual(
      packed.map((file) => `publish ${file} --provenance --access public`),
    );
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});
