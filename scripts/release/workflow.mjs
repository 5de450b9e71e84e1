/** The workflows of GitHub as lists of steps, as a runner takes them. */
import { readFileSync } from "node:fs";
import { parse } from "yaml";

/**
 * The steps of a job.
 *
 * @returns {{ name?: string, run?: string, uses?: string, with?: Record<string, string>,
 *   env?: Record<string, string> }[]}
 */
export function stepsOf(file, job) {
  return parse(readFileSync(file, "utf8")).jobs[job].steps;
}

/** The lines of shell in a step: its own, and those that an action gets as its inputs. */
export function commandsOf({ run, uses, with: inputs = {} }) {
  if (run !== undefined) return [run];
  return uses.startsWith("changesets/action@") ? [inputs.version, inputs.publish] : [];
}
