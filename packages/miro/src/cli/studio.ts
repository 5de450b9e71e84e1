/** `miro studio`: serves pictures to a browser and to programs. Parses, calls {@link startStudio}, prints. */
import "./extensions.js";
import { z } from "zod";
import { readText } from "../files/whole-files.js";
import { field, flag } from "../options.js";
import { studioSchema } from "../studio/server/options.js";
import { checkKey } from "../studio/server/security.js";
import { startStudio } from "../studio/server/start.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { nameFlags } from "./flag-names.js";
import { helpText } from "./help-text.js";
import { openWithDesktop } from "./open-file.js";

const EXAMPLES = `
Examples:
  miro studio                                              the bundled model on http://127.0.0.1:7860
  miro studio --open --output pictures
  miro studio --model nicolas-dufour/miro --low-memory
  miro studio --model nicolas-dufour/miro --model miro-emoji --device cuda
  MIRO_STUDIO_API_KEY=… miro studio --host 0.0.0.0 --port 80

Routes: /api (jobs with events, gallery), /v1 (as OpenAI), /sdapi/v1 (as Stable Diffusion WebUI), /openapi.json, /metrics.
docs/studio.md tells more. Ctrl-C cancels what is drawn and ends; a second Ctrl-C ends at once.
`;

const schema = studioSchema.omit({ key: true, signal: true }).extend({
  apiKeyFile: field(z.string().min(1).optional(), {
    expected: "a file",
    help: "file with the key that requests must give",
    flag: "--api-key-file <file>",
    otherwise: "MIRO_STUDIO_API_KEY",
  }),
  open: flag("open the page in the browser", "--open"),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => serve(options, context)).addHelpText("after", helpText(EXAMPLES));
  nameFlags(command, { key: "--api-key-file", model: "--model", variant: "--model" });
};

async function serve(
  { apiKeyFile, open, json, ...options }: z.output<typeof schema>,
  context: CliContext,
): Promise<void> {
  const { signal } = context;
  const studio = await startStudio({ ...options, key: readKey(apiKeyFile), signal });
  context.stdout(json ? `${JSON.stringify({ url: studio.url })}\n` : `${studio.url}\n`);
  if (open) await openWithDesktop(studio.url, context);
  try {
    const stopped = new Promise<null>((resolve) => {
      if (signal.aborted) resolve(null);
      signal.addEventListener("abort", () => resolve(null), { once: true });
    });
    const failure = await Promise.race([stopped, studio.failed]);
    if (failure) throw failure;
  } finally {
    await studio.close();
  }
}

function readKey(file: string | undefined): string | undefined {
  const key = file === undefined ? process.env.MIRO_STUDIO_API_KEY : readText(file).trim();
  if (key === undefined || (file === undefined && key === "")) return undefined;
  checkKey(key, file ?? "MIRO_STUDIO_API_KEY");
  return key;
}
