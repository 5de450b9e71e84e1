import { statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { listFiles } from "./scripts/setup/report.mjs";

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Tests that need no model, no network and no second process: `npm run test:unit`, under a minute on two cores. */
const UNIT = [
  /^packages\/torch\/src\//,
  /^packages\/miro\/src\/([^/]+$|(files|pictures|random|networks|flow|text|autoencoder)\/)/,
  /^packages\/miro\/src\/(data\/dataset|pipeline\/requests|training\/recipes|training\/logging)\//,
  /^packages\/miro\/src\/rewards\/(registry|measured)\./,
  /^scripts\/check/,
];
/** Among those, what takes longer: it measures memory or time, starts processes, or goes through large recordings. */
const SLOW = [
  /^packages\/torch\/src\/((memory|threads)\.|nn\/row-kernels\.|distributed\/|io\/(atomic-write|torch-checkpoint)\.)/,
  /^packages\/miro\/src\/(linear-time\.|text\/tokenizer\.|flow\/replay\.|pipeline\/requests\/draw-request\.)/,
];

/** Every test file, from the root; those in a browser are another run (`npm run test:browser`). */
const files = ["packages/torch/src", "packages/miro/src", "tests", "scripts", "bench"]
  .flatMap((folder) => listFiles(source(folder), (file: string) => file.endsWith(".test.ts")))
  .map((file: string) => path.relative(source("."), file))
  .filter((file: string) => !file.startsWith("tests/browser/"));
const matches = (patterns: RegExp[], file: string) => patterns.some((pattern) => pattern.test(file));
const partOf = (file: string) => {
  if (file.startsWith("tests/docs/")) return "docs";
  return matches(UNIT, file) && !matches(SLOW, file) ? "unit" : "integration";
};

/** Short files first, those of the whole system last: a mistake shows early. */
class ShortFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const cost = ({ moduleId }: TestSpecification) =>
      statSync(moduleId).size + (moduleId.includes("/tests/") ? 1e9 : 0);
    return [...files].sort((a, b) => cost(a) - cost(b));
  }
}

// Programs that tests start write what others read, whatever colours and width somebody wants on a terminal.
for (const name of ["FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"]) delete process.env[name];

export default defineConfig({
  resolve: {
    alias: {
      "@miro-t2i/torch/atomic-write": source("./packages/torch/src/io/atomic-write.ts"),
      "@miro-t2i/torch/limits": source("./packages/torch/src/limits.ts"),
      "@miro-t2i/torch/pixels": source("./packages/torch/src/pixels.ts"),
      "@miro-t2i/torch/stand-in": source("./packages/torch/src/io/stand-in.ts"),
      "@miro-t2i/torch/nn": source("./packages/torch/src/nn/index.ts"),
      "@miro-t2i/torch/optim": source("./packages/torch/src/optim/index.ts"),
      "@miro-t2i/torch/io": source("./packages/torch/src/io/index.ts"),
      "@miro-t2i/torch/distributed": source("./packages/torch/src/distributed/index.ts"),
      "@miro-t2i/torch": source("./packages/torch/src/index.ts"),
      ...Object.fromEntries(
        ["data", "evaluation", "networks", "rewards", "training"].map((name) => [
          `miro-t2i/${name}`,
          source(`./packages/miro/src/exports/${name}.ts`),
        ]),
      ),
      "miro-t2i": source("./packages/miro/src/index.ts"),
    },
  },
  test: {
    // Every file is in one part: `vitest run --project unit`.
    projects: ["unit", "integration", "docs"].map((name) => ({
      extends: true as const,
      test: { name, include: files.filter((file) => partOf(file) === name) },
    })),
    // The native addon holds process-wide state (threads, allocator, global seed): one process a file.
    pool: "forks",
    maxWorkers: 2,
    sequence: { sequencer: ShortFirst },
    // Two processes with a thread for each core would wait for each other at every operator. Nobody's own settings count.
    env: { OMP_NUM_THREADS: "1", MIRO_CONFIG: "" },
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // What is waited for may take long on a machine that has much else to do; vitest alone would wait for a second.
    expect: { poll: { timeout: 50_000 } },
  },
});
