import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Short files first, those that cross rooms last: a mistake shows early. */
class ShortFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const cost = ({ moduleId }: TestSpecification) =>
      statSync(moduleId).size + (moduleId.includes("/tests/") ? 1e9 : 0);
    return [...files].sort((a, b) => cost(a) - cost(b));
  }
}

export default defineConfig({
  resolve: {
    alias: {
      "@miro-t2i/torch/atomic-write": source("./packages/torch/src/io/atomic-write.ts"),
      "@miro-t2i/torch/stand-in": source("./packages/torch/src/io/stand-in.ts"),
      "@miro-t2i/torch/nn": source("./packages/torch/src/nn/index.ts"),
      "@miro-t2i/torch/optim": source("./packages/torch/src/optim/index.ts"),
      "@miro-t2i/torch/io": source("./packages/torch/src/io/index.ts"),
      "@miro-t2i/torch/distributed": source("./packages/torch/src/distributed/index.ts"),
      "@miro-t2i/torch": source("./packages/torch/src/index.ts"),
      "miro-t2i": source("./packages/miro/src/index.ts"),
    },
  },
  test: {
    include: ["packages/*/src/**/*.test.ts", "tests/**/*.test.ts", "scripts/**/*.test.ts", "bench/**/*.test.ts"],
    exclude: ["**/node_modules/**", "**/dist/**"],
    // The native addon holds process-wide state (threads, allocator, global seed): one process a file.
    pool: "forks",
    maxWorkers: 2,
    sequence: { sequencer: ShortFirst },
    // Two processes with a thread for each core would wait for each other at every operator.
    env: { OMP_NUM_THREADS: "1" },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
