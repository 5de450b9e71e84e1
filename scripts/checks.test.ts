// The import check on made-up trees, the count of test results, errors that are made and dropped, and files that
// comments name.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkImports, findCycle, importedFrom } from "./check-imports.mjs";
import { listFiles } from "./setup/report.mjs";
import { countResults } from "./test-summary.mjs";

describe("import check", () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), "imports-"));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));
  const tree = (files: Record<string, string>) => {
    const manifest = JSON.stringify({ name: "@miro-t2i/torch", exports: { ".": {}, "./files": {} } });
    for (const [name, content] of Object.entries({ "torch/package.json": manifest, ...files })) {
      const file = path.join(root, "packages", name);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, content);
    }
    return checkImports(root);
  };

  test("finds imports and re-exports in every form, not those in comments", () => {
    const source = `import a from "a";\nimport "b";\nimport type { C } from "c";\nexport * from "d";\nimport {\n  e,\n} from "e";\n// import "no"\n/* import "no" */\nconst f = await import("f");\nexport const g = "g";`;
    expect(importedFrom(source)).toEqual(["a", "b", "c", "d", "e", "f"]);
  });

  test("accepts the order of the layers", () => {
    const problems = tree({
      "miro/src/errors.ts": "export {};",
      "miro/src/networks/rin.ts": 'import "../errors.js"; import "@miro-t2i/torch"; import "@miro-t2i/torch/files";',
      "miro/src/flow/loss.ts": 'import "../networks/rin.js";',
      "miro/src/cli/main.ts": 'import "../flow/loss.js";',
      "miro/src/index.ts": 'export * from "./flow/loss.js";',
    });
    expect(problems).toEqual([]);
  });

  test("refuses an upward import, tests aside", () => {
    const files = {
      "miro/src/pipeline/a.ts": "export {};",
      "miro/src/networks/a.test.ts": 'import "../pipeline/a.js";',
    };
    expect(tree(files)).toEqual([]);
    expect(tree({ ...files, "miro/src/networks/a.ts": 'import type { X } from "../pipeline/a.js";' })).toEqual([
      'packages/miro/src/networks/a.ts: "networks" imports upward from "pipeline" (../pipeline/a.js)',
    ]);
    const page = { "miro/src/cli/a.tsx": "export {};", "miro/src/studio/web/a.tsx": 'import "../../cli/a.js";' };
    expect(tree(page)).toContain(
      'packages/miro/src/studio/web/a.tsx: "studio" imports upward from "cli" (../../cli/a.js)',
    );
  });

  test("refuses cycles between files and between folders of one layer", () => {
    expect(tree({ "torch/src/a.ts": 'import "./b.js";', "torch/src/b.ts": 'import "./a.js";' })[0]).toMatch(
      /^files import in a circle/,
    );
    rmSync(path.join(root, "packages"), { recursive: true });
    const problems = tree({
      "miro/src/text/a.ts": 'import "../networks/b.js";',
      "miro/src/networks/b.ts": "export {};",
      "miro/src/networks/c.ts": 'import "../text/d.js";',
      "miro/src/text/d.ts": "export {};",
    });
    expect(problems).toEqual(["folders import in a circle: networks -> text -> networks"]);
  });

  test("refuses cycles between folders inside a folder, also where no two files import each other", () => {
    const files = {
      "miro/src/training/state/export.ts": 'import "../loop/trainer.js";',
      "miro/src/training/loop/trainer.ts": "export {};",
      "miro/src/training/loop/run.ts": 'import "../state/checkpoint.js";',
      "miro/src/training/state/checkpoint.ts": "export {};",
    };
    const folder = (name: string) => `packages/miro/src/training/${name}`;
    expect(tree(files)).toEqual([
      `folders import in a circle: ${folder("loop")} -> ${folder("state")} -> ${folder("loop")}`,
    ]);
    expect(tree({ ...files, "miro/src/training/state/export.ts": "export {};" })).toEqual([]);
  });

  test("refuses reaching past a package's surface", () => {
    const problems = tree({
      "torch/src/a.ts": 'import "miro-t2i";',
      "miro/src/flow/a.ts": 'import "@miro-t2i/torch/dist/x.js"; import "../../../torch/src/a.js";',
    });
    expect(problems).toHaveLength(3);
  });

  test("a graph without a cycle has none", () => {
    expect(
      findCycle(
        new Map([
          ["a", ["b", "c"]],
          ["b", ["c"]],
          ["c", []],
        ]),
      ),
    ).toBeNull();
    expect(
      findCycle(
        new Map([
          ["a", ["b"]],
          ["b", ["b"]],
        ]),
      ),
    ).toEqual(["b", "b"]);
  });
});

test("a test file that did not load counts as a failure", () => {
  const file = (status: string, ...tests: string[]) => ({
    status,
    assertionResults: tests.map((s) => ({ status: s })),
  });
  const report = {
    testResults: [file("passed", "passed", "passed", "skipped"), file("failed", "passed", "failed"), file("failed")],
  };
  expect(countResults(report)).toEqual({ passed: 3, failed: 2 });
});

describe("functions that make an error", () => {
  /** Names of functions that return an error, and the statements in which one is made and dropped. */
  const makers = (text: string) =>
    [...text.matchAll(/function (\w+)(?:<[^>]*>)?\([^{;]*?\): \w*Error \{/g)].map(([, name]) => name!);
  const dropped = (text: string, names: readonly string[]) =>
    text.split("\n").filter((line) => {
      const called = /^\s*(?:(?:if|for|while) \(.*\) |else )?(?:void )?(\w+)\(/.exec(line)?.[1];
      return called !== undefined && names.includes(called);
    });

  test("are found by the check, and the calls that drop what they made", () => {
    const text = `export function wrong<T>(\n  a: string,\n  b: T,\n): InvalidInputError {\n  return new X();\n}\nfunction other(): never {\n}`;
    expect(makers(text)).toEqual(["wrong"]);
    const calls = ['  if (a > 1) wrong("a", 1);', "  wrong(", '  throw wrong("a", 1);', "  const e = () => wrong(1);"];
    expect(dropped(calls.join("\n"), ["wrong"])).toEqual(calls.slice(0, 2));
  });

  test("are called to throw or to hand on", () => {
    const files = ["torch", "miro"].flatMap((name) => {
      const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "packages", name, "src");
      const all = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) =>
        /(?<!\.test)\.ts$/.test(file),
      );
      return all.map((file) => ({ file, text: readFileSync(path.join(folder, file), "utf8") }));
    });
    const exported = new Set(
      files.flatMap(({ text }) => makers(text).filter((name) => text.includes(`export function ${name}`))),
    );
    expect(exported).toContain("invalid");
    const findings = files.flatMap(({ file, text }) => {
      const imported = [...text.matchAll(/^import [^;]*?\{([^}]*)\}/gm)].flatMap(([, names]) => names!.split(/[\s,]+/));
      const names = [...makers(text), ...imported.filter((name) => exported.has(name))];
      return dropped(text, names).map((line) => `${file}: ${line.trim()}`);
    });
    expect(findings).toEqual([]);
  });
});

test("a source file that a comment names is there", () => {
  const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
  const files: string[] = ["packages", "bench", "tests", "scripts", "examples"].flatMap((folder) =>
    listFiles(path.join(root, folder), (file: string) => /\.(tsx?|mjs|cpp|hpp)$/.test(file)),
  );
  const comment = /^\s*(?:\/\/|\/?\*)(.*)|\s\/\/ (.*)/;
  const named = /(?<![\w./@<-])(?:\.{1,2}\/)*((?:[\w.-]+\/)*[\w.-]+\.(?:tsx?|mjs|cpp|hpp))\b/g;
  const lines = files.flatMap((file) =>
    readFileSync(file, "utf8")
      .split("\n")
      .map((line) => ({ file, words: comment.exec(line)?.slice(1).join("") ?? "" })),
  );
  const references = lines.flatMap(({ file, words }) =>
    [...words.matchAll(named)].map(([, name]) => ({ file: path.relative(root, file), name: name! })),
  );
  expect(references.length).toBeGreaterThan(50);
  expect(references.filter(({ name }) => !files.some((file) => file.endsWith(`/${name}`)))).toEqual([]);
});
