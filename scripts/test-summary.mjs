#!/usr/bin/env node
/**
 * Prints the last line of a CI run, `N passed, N failed`, from the report of vitest's JSON reporter.
 * A test file that failed without a failed test in it (it did not load, or a hook threw) counts as one failure.
 *   node scripts/test-summary.mjs REPORT.json
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** @param {{ testResults: { status: string, assertionResults: { status: string }[] }[] }} report */
export function countResults(report) {
  let passed = 0;
  let failed = 0;
  for (const file of report.testResults) {
    const failures = file.assertionResults.filter(({ status }) => status === "failed").length;
    passed += file.assertionResults.filter(({ status }) => status === "passed").length;
    failed += file.status === "failed" ? Math.max(1, failures) : failures;
  }
  return { passed, failed };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { passed, failed } = countResults(JSON.parse(readFileSync(process.argv[2], "utf8")));
  console.log(`${passed} passed, ${failed} failed`);
}
