/** `npm run test:browser`: the studio's page in Chromium. */
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL("../..", import.meta.url)),
  test: {
    include: ["tests/browser/*.test.ts"],
    globalSetup: ["tests/browser/need-chromium.ts"],
    pool: "forks",
    maxWorkers: 1,
    // For machines that have much else to do.
    testTimeout: 180_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 60_000 } },
  },
});
