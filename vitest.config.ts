import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  resolve: {
    alias: {
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
    // Two processes with a thread for each core would wait for each other at every operator.
    env: { OMP_NUM_THREADS: "1" },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
