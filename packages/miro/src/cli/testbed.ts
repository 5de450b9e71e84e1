/** `miro testbed`: checks the prompts that runs draw for comparison and computes their embeddings. */
import { setNumThreads } from "@miro-t2i/torch";
import { z } from "zod";
import { counted } from "../numbers.js";
import { declarationOf, field, flag } from "../options.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import {
  bundledTestbed,
  hasTestbed,
  placeTestbed,
  prepareTestbed,
  readTestbed,
  TESTBED_FOLDER,
  type TestbedOptions,
  testbedOptionsSchema,
} from "../training/samples/testbed.js";
import { declare } from "./add-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress } from "./progress.js";

const EXAMPLES = `
Examples:
  miro testbed
  miro testbed --model miro-emoji --embeddings-name miro_emoji
  miro testbed my-prompts --count 12 --text-encoder google/flan-t5-xl --device cuda
  miro testbed --check

A run draws the testbed when its recipe says samples.testbed=${TESTBED_FOLDER}. The folder has metadata.csv
(file_name,text) and prompts.txt, which must agree. Without a folder of that name the eighty prompts that come with the program are
checked, or put there. Embeddings that are there for the same text and text encoder are kept.
`;

const schema = z.strictObject({
  ...testbedOptionsSchema.shape,
  folder: field(z.string().min(1).default(TESTBED_FOLDER), {
    ...declarationOf(testbedOptionsSchema.shape.folder),
    flag: "[folder]",
  }),
  threads: loadSchema.shape.threads,
  check: flag("check the prompts only", "--check"),
  json: flag("print the result as JSON", "--json"),
});

export const register: Register = (command, context) => {
  declare(command, schema, async ({ folder, check, json, threads, ...options }) => {
    const isMissing = folder === TESTBED_FOLDER && !hasTestbed(folder);
    if (check) {
      const checked = (isMissing && bundledTestbed()) || folder;
      const prompts = readTestbed(checked, options);
      const result = { folder: checked, prompts };
      context.stdout(json ? `${JSON.stringify(result)}\n` : `${checked}: ${counted(prompts.length, "prompt")}\n`);
      return;
    }
    if (isMissing && placeTestbed(folder)) context.note(`${folder}: the prompts that come with the program\n`);
    if (threads !== undefined) setNumThreads(threads);
    const progress = await Progress.for(context);
    try {
      let at = "";
      const work: TestbedOptions = {
        folder,
        ...options,
        onProgress: (done, total) => {
          at = `${done} of ${counted(total, "prompt")} done; `;
          progress.update("prompts", done, total);
        },
        signal: context.signal,
      };
      const left = () => `${at}${SAME_COMMAND}`;
      const result = await untilStopped(context, left, () => prepareTestbed(work));
      progress.stop();
      for (const text of result.cut) context.stderr(`warning: cut: ${text}\n`);
      const { embeddings, computed, kept } = result;
      context.stdout(json ? `${JSON.stringify(result)}\n` : `${embeddings}: ${computed} computed, ${kept} kept\n`);
    } finally {
      progress.stop();
    }
  }).addHelpText("after", helpText(EXAMPLES));
};
