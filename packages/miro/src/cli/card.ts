/** `miro card`: renders the card of a release folder, or of a folder of variants, again. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { InvalidInputError } from "../errors.js";
import { message, option } from "../message.js";
import { field } from "../options.js";
import { writeCard } from "../release/card.js";
import { drawSamples } from "../release/draw-samples.js";
import { declare, refuseWithout } from "./add-options.js";
import { json } from "./common-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { cardShape, OF_SAMPLES, samplesShape } from "./release-options.js";

const EXAMPLES = `
Examples:
  miro card release --repo owner/name --license mit
  miro card release --samples 4 --prompt "a fox" --prompt "a cactus"
  miro card variants --repo owner/ablations              a folder of folders with releases: the list of its variants
`;

const schema = z.strictObject({
  folder: field(z.string().min(1), {
    expected: "a folder",
    help: "release, or folder of releases",
    flag: "<dir>",
    writes: "folder",
  }),
  ...cardShape,
  ...samplesShape,
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, async (options, _, typed) => {
    if (options.samples === 0) refuseWithout(option("samples"), typed, OF_SAMPLES);
    const { folder, repo, variant, title, description, license, samples, prompt, seed, json, ...rest } = options;
    if (samples > 0) {
      if (!existsSync(join(folder, "config.json")))
        throw new InvalidInputError(message`${option("samples")}: ${folder} is a folder of variants; name one of them`);
      const onMessage = (text: string) => context.note(`${text}\n`);
      await drawSamples({ folder, count: samples, prompts: prompt, seed, ...rest, signal: context.signal, onMessage });
    }
    const file = writeCard({ folder, repo, variant, title, description, license });
    context.stdout(json ? `${JSON.stringify({ file })}\n` : `${file}\n`);
  }).addHelpText("after", helpText(EXAMPLES));
};
