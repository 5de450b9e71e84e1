/** Settings that a run leaves aside. */
import type { Recipe } from "./schema.js";

/** A setting, and why it has no effect. */
export interface UnusedSetting {
  subject: string;
  finding: string;
}

/** What would be validated with or drawn on the way, where the setting that says how often is 0: never. */
export function unusedSettings({ validation, samples }: Recipe): UnusedSetting[] {
  const unused = (section: string, key: string): UnusedSetting => ({
    subject: `${section}.${key}`,
    finding: `is not used, because ${section}.every_n_steps is 0`,
  });
  const found: UnusedSetting[] = [];
  if (validation.everyNSteps === 0 && validation.root !== undefined) found.push(unused("validation", "root"));
  if (samples.everyNSteps === 0) {
    if (samples.prompts.length > 0) found.push(unused("samples", "prompts"));
    if (samples.testbed !== undefined) found.push(unused("samples", "testbed"));
  }
  return found;
}
