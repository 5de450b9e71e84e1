/** Settings that a run leaves aside. */
import type { Recipe } from "./schema.js";

/** A setting, and why it has no effect. */
export interface UnusedSetting {
  subject: string;
  finding: string;
}

/** What would be validated with or drawn on the way, where the setting that says how often is 0: never. */
export function unusedSettings({ validation, samples }: Recipe): UnusedSetting[] {
  const given: [section: string, key: string, given: boolean][] = [];
  if (validation.everyNSteps === 0) given.push(["validation", "root", validation.root !== undefined]);
  if (samples.everyNSteps === 0) {
    given.push(["samples", "prompts", samples.prompts.length > 0]);
    given.push(["samples", "testbed", samples.testbed !== undefined]);
  }
  return given
    .filter(([, , given]) => given)
    .map(([section, key]) => ({
      subject: `${section}.${key}`,
      finding: `is not used, because ${section}.every_n_steps is 0`,
    }));
}
