// A version out of the entries in .changeset: one number for all packages, and a section of the changelog.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeVersion, withVersion } from "./release/version.mjs";

const folder = mkdtempSync(path.join(tmpdir(), "version "));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const write = (name: string, content: unknown) => {
  const file = path.join(folder, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
};
const read = (name: string) => readFileSync(path.join(folder, name), "utf8");
const CHANGELOG =
  "# Changelog\n\nNewest first.\n\n## Unreleased\n\n### Added\n\n- Old\n  news.\n\n## 0.1.0\n\nThe first one.\n";

test("entries become the version's section, beside what was unreleased, each under its heading", () => {
  const entries = [
    { kind: "patch", summary: "A fault is gone." },
    { kind: "minor", summary: "Something new,\nin two lines." },
    { kind: "minor", summary: "Changed: the default is another one." },
  ] as const;
  expect(withVersion(CHANGELOG, "0.2.0", "2030-01-02", entries)).toBe(
    "# Changelog\n\nNewest first.\n\n## 0.2.0 (2030-01-02)\n\n### Added\n\n- Old\n  news.\n- Something new,\n  in two lines.\n\n" +
      "### Changed\n\n- the default is another one.\n\n### Fixed\n\n- A fault is gone.\n\n## 0.1.0\n\nThe first one.\n",
  );
  const without = CHANGELOG.replace(/## Unreleased[\s\S]*(?=## 0\.1\.0)/, "");
  expect(withVersion(without, "0.2.0", "2030-01-02", entries.slice(0, 1))).toBe(
    "# Changelog\n\nNewest first.\n\n## 0.2.0 (2030-01-02)\n\n### Fixed\n\n- A fault is gone.\n\n## 0.1.0\n\nThe first one.\n",
  );
});

test("all packages get one number, which follows the largest change, and the entries are gone", async () => {
  write("package.json", { name: "workspace", private: true, workspaces: ["packages/*"] });
  write("packages/torch/package.json", { name: "@miro-t2i/torch", version: "0.1.0" });
  write("packages/miro/package.json", {
    name: "miro-t2i",
    version: "0.1.0",
    dependencies: { "@miro-t2i/torch": "0.1.0" },
  });
  write(".changeset/config.json", readFileSync(new URL("../.changeset/config.json", import.meta.url), "utf8"));
  write("CHANGELOG.md", CHANGELOG);
  write("deploy/Dockerfile", "FROM node\nARG MIRO_VERSION=0.1.0\n");
  expect(await makeVersion(folder, "2030-01-02")).toBe(null);
  write(".changeset/one.md", '---\n"@miro-t2i/torch": patch\n---\n\nA fault is gone.\n');
  write(".changeset/two.md", '---\n"miro-t2i": minor\n---\n\nSomething new.\n');
  expect(await makeVersion(folder, "2030-01-02")).toBe("0.2.0");
  const versions = ["torch", "miro"].map((name) => JSON.parse(read(`packages/${name}/package.json`)));
  expect(versions.map(({ version }) => version)).toEqual(["0.2.0", "0.2.0"]);
  expect(versions[1].dependencies).toEqual({ "@miro-t2i/torch": "0.2.0" });
  expect(read("CHANGELOG.md")).toContain(
    "## 0.2.0 (2030-01-02)\n\n### Added\n\n- Old\n  news.\n- Something new.\n\n### Fixed\n\n- A fault",
  );
  expect(read("deploy/Dockerfile")).toContain("ARG MIRO_VERSION=0.2.0\n");
  expect(readdirSync(path.join(folder, ".changeset"))).toEqual(["config.json"]);
});
