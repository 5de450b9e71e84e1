/** `miro testbed`: checks the prompts that runs draw for comparison and computes their embeddings. */
import { setNumThreads } from "@miro-t2i/torch";
import { help } from "../options.js";
import { prepareTestbed, readTestbed, TESTBED_PROMPTS, testbedOptionsSchema } from "../training/samples/testbed.js";
import { toNumber } from "./arguments.js";
import type { Register } from "./context.js";
import { Progress } from "./progress.js";
import { checkThreads, withFlagNames } from "./sampling-flags.js";

const FOLDER = "datasets/text_prompt_testbed";

const EXAMPLES = `
Examples:
  miro testbed
  miro testbed --model models/miro-emoji --embeddings-name miro_emoji
  miro testbed my-prompts --count 12 --text-encoder google/flan-t5-xl --device cuda
  miro testbed --check

A run draws the testbed when its recipe says samples.testbed=${FOLDER}. The folder has metadata.csv (file_name,text)
and prompts.txt, which must agree. Embeddings that are there for the same text and text encoder are kept.
`;

interface Flags {
  model?: string;
  textEncoder?: string;
  embeddingsName?: string;
  count?: number;
  textMaxLength?: number;
  device?: string;
  cacheDir?: string;
  threads?: number;
  overwrite?: boolean;
  check?: boolean;
  json?: boolean;
}

export const register: Register = (command, context) => {
  const h = (name: string) => help(testbedOptionsSchema, name);
  command
    .argument("[folder]", h("folder"), FOLDER)
    .option("--model <repo|dir>", h("model"))
    .option("--text-encoder <repo|dir>", h("textEncoder"))
    .option("--embeddings-name <name>", h("embeddingsName"))
    .option("--count <n>", h("count"), toNumber("--count"))
    .option("--text-max-length <n>", h("textMaxLength"), toNumber("--text-max-length"))
    .option("--device <name>", h("device"))
    .option("--threads <n>", "processor threads", toNumber("--threads"))
    .option("--cache-dir <dir>", h("cacheDir"))
    .option("--overwrite", h("overwrite"))
    .option("--check", "check the prompts only")
    .option("--json", "print the result as JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (folder: string, { check, json, threads, ...flags }: Flags) => {
      if (check) {
        const prompts = readTestbed(folder, { count: flags.count ?? TESTBED_PROMPTS });
        context.stdout(json ? `${JSON.stringify({ folder, prompts })}\n` : `${folder}: ${prompts.length} prompts\n`);
        return;
      }
      checkThreads({ threads });
      if (threads !== undefined) setNumThreads(threads);
      const progress = await Progress.for(context);
      try {
        const names = { count: "--count", textMaxLength: "--text-max-length", embeddingsName: "--embeddings-name" };
        const result = await withFlagNames(names, () =>
          prepareTestbed({
            folder,
            ...flags,
            onProgress: (done, total) => progress.update("prompts", done, total),
            signal: context.signal,
          }),
        );
        progress.stop();
        for (const text of result.cut) context.stderr(`warning: cut: ${text}\n`);
        context.stdout(
          json
            ? `${JSON.stringify(result)}\n`
            : `${result.embeddings}: ${result.computed} computed, ${result.kept} kept\n`,
        );
      } finally {
        progress.stop();
      }
    });
};
