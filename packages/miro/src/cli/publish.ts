/** `miro publish`: a release folder on the Hugging Face Hub. Parses, shows the plan, calls, prints. */
import { z } from "zod";
import { InvalidInputError } from "../errors.js";
import { formatSize } from "../files/sizes.js";
import { message, option } from "../message.js";
import { field, flag } from "../options.js";
import { planPublication, publish } from "../release/publish.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress, tellerOf } from "./progress.js";

const EXAMPLES = `
Examples:
  miro publish release me/my-model --dry-run         what would be created, updated, deleted, and what is there already
  miro publish release me/my-model --public
  miro publish release me/my-variants --variant no-clip

The token is HF_TOKEN, or that of hf auth login; it is sent to the Hub alone and never printed. Everything appears in one
commit. After an interruption the same command goes on; docs/publishing.md tells more.
`;

const schema = z.strictObject({
  folder: field(z.string().min(1), { expected: "a folder", help: "release folder", flag: "<dir>" }),
  repo: field(z.string().regex(/^[\w.-]+\/[\w.-]+$/), {
    expected: "owner/name",
    help: "repository on the Hub",
    flag: "<owner/name>",
  }),
  variant: field(
    z
      .string()
      .regex(/^\w[\w.-]*$/)
      .optional(),
    {
      expected: "the name of a folder",
      help: "folder within the repository",
      flag: "--variant <name>",
    },
  ),
  private: flag("make the repository private; a new one is", "--private"),
  public: flag("make the repository public", "--public"),
  dryRun: flag("show the plan and do nothing", "--dry-run"),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, async ({ folder, repo, variant, dryRun, json, ...visible }) => {
    if (visible.private && visible.public)
      throw new InvalidInputError(message`${option("private", true)} and ${option("public", true)} exclude each other`);
    const visibility = visible.public ? "public" : visible.private ? "private" : undefined;
    const progress = await Progress.for(context);
    const onProgress = tellerOf(context, progress);
    const onBytes = (done: number, all: number) =>
      progress.update("uploading", done, all, { count: `${formatSize(done)} of ${formatSize(all)}` });
    const options = { repo, variant, visibility, signal: context.signal, onProgress, onBytes } as const;
    const plan = await planPublication(folder, options);
    const { becomes } = plan;
    if (plan.creates) onProgress(`create    ${repo}, ${visibility ?? "private"}`);
    else if (becomes !== null) onProgress(`change    ${repo}, ${becomes}`);
    for (const { action, path, bytes } of plan.files)
      onProgress(`${action.padEnd(9)} ${path}${action === "delete" ? "" : ` (${formatSize(bytes)})`}`);
    const left = () => `nothing is to be seen on the Hub before all is there; ${SAME_COMMAND}`;
    const upload = () => publish(plan, options).finally(() => progress.stop());
    const commit = dryRun ? null : await untilStopped(context, left, upload);
    const files = plan.files.map(({ path, action, bytes }) => ({ path, action, bytes }));
    if (json)
      context.stdout(`${JSON.stringify({ repo, variant, creates: plan.creates, becomes, files, dryRun, commit })}\n`);
    else if (!dryRun)
      context.stdout(
        `${commit ?? (becomes === null ? "nothing differs" : `no file differs; ${repo} is ${becomes} now`)}\n`,
      );
  }).addHelpText("after", helpText(EXAMPLES));
};
