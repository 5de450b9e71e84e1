/** The browser that the tests drive: Chromium, as Debian has it. */
import { existsSync } from "node:fs";

/** Where Chromium is; `MIRO_CHROMIUM` names another place. */
export const chromiumPath = process.env.MIRO_CHROMIUM ?? "/usr/bin/chromium";

/** Ends the run with a sentence where there is no browser. */
export default function needChromium(): void {
  if (!existsSync(chromiumPath))
    throw new Error(
      `The tests of the page need Chromium at ${chromiumPath}: apt-get install chromium, or set MIRO_CHROMIUM.`,
    );
}
