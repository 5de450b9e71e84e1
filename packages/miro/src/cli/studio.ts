/** `miro studio`: serves pictures to a browser and to programs. Parses, starts {@link Studio}, prints. */
import "./extensions.js";
import { z } from "zod";
import { invalid } from "../errors.js";
import { readText } from "../files/whole-files.js";
import { message } from "../message.js";
import { field, flag } from "../options.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { Studio } from "../studio/server/studio.js";
import { declare } from "./add-options.js";
import type { CliContext, Register } from "./context.js";
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

/** Others than those of the web have none: browsers would call each of them `null`. */
const origin = z.url({ protocol: /^https?$/ });

const schema = z.strictObject({
  host: field(z.string().min(1).default("127.0.0.1"), {
    expected: "an address",
    help: "address to listen on; others than this machine's own want a key",
    flag: "--host <address>",
  }),
  port: field(z.int().min(0).max(65535).default(7860), {
    expected: "a port from 0 to 65535",
    help: "port to listen on; 0 takes a free one",
    flag: "--port <n>",
  }),
  model: field(z.array(z.string().min(1)).default([]), {
    expected: "models",
    help: "a model to offer; may be given several times",
    flag: "--model <repo|dir[@variant]>",
    otherwise: "the bundled model",
  }),
  output: field(z.string().min(1).default("pictures"), {
    expected: "a folder",
    help: "folder of the pictures",
    flag: "--output <dir>",
    writes: "folder",
  }),
  queue: field(z.int().min(1).max(100_000).default(64), {
    expected: "an integer of at least 1",
    help: "most jobs that may wait",
    flag: "--queue <n>",
  }),
  maxImages: field(z.int().min(1).max(10_000).default(16), {
    expected: "an integer of at least 1",
    help: "most pictures of a job",
    flag: "--max-images <n>",
  }),
  apiKeyFile: field(z.string().min(1).optional(), {
    expected: "a file",
    help: "file with the key that requests must give",
    flag: "--api-key-file <file>",
    otherwise: "MIRO_STUDIO_API_KEY",
  }),
  allowOrigin: field(z.array(origin).default([]), {
    expected: "an origin such as https://example.org",
    help: "pages of this origin may ask too; may be given several times",
    flag: "--allow-origin <url>",
  }),
  allowFrame: field(z.array(origin).default([]), {
    expected: "an origin such as https://example.org",
    help: "pages of this origin may show the studio in a frame; may be given several times",
    flag: "--allow-frame <url>",
  }),
  insecure: flag("serve others than this machine without a key", "--insecure"),
  open: flag("open the page in the browser", "--open"),
  device: loadSchema.shape.device,
  dtype: loadSchema.shape.dtype,
  lowMemory: loadSchema.shape.lowMemory,
  quantization: loadSchema.shape.quantization,
  cacheDir: loadSchema.shape.cacheDir,
  threads: loadSchema.shape.threads,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => serve(options, context)).addHelpText("after", helpText(EXAMPLES));
};

async function serve(
  {
    model: models,
    apiKeyFile,
    allowOrigin: allowOrigins,
    allowFrame: allowFrames,
    open,
    ...options
  }: z.output<typeof schema>,
  context: CliContext,
): Promise<void> {
  const { signal } = context;
  const studio = await Studio.start({
    ...options,
    models,
    allowOrigins,
    allowFrames,
    key: readKey(apiKeyFile),
    signal,
  });
  context.stdout(`${studio.url}\n`);
  if (open) await openWithDesktop(studio.url, context);
  try {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  } finally {
    await studio.close();
  }
}

function readKey(file: string | undefined): string | undefined {
  const key = file === undefined ? process.env.MIRO_STUDIO_API_KEY : readText(file).trim();
  if (key === undefined || (file === undefined && key === "")) return undefined;
  if (!/^[\x21-\x7e]{8,200}$/.test(key)) {
    const received = key.length < 8 || key.length > 200 ? message`one of ${key.length}` : message`one with others`;
    throw invalid(file ?? "MIRO_STUDIO_API_KEY", "a key of 8 to 200 printable ASCII characters, no spaces", received);
  }
  return key;
}
