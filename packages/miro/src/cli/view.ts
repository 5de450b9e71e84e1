/** `--open` and `--show`: looking at what a command has made. */
import { dirname } from "node:path";
import { z } from "zod";
import { invalid } from "../errors.js";
import { readBytes } from "../files/whole-files.js";
import { field, flag } from "../options.js";
import { decodeShown } from "../pictures/decode-shown.js";
import type { RgbImage } from "../pictures/rgb.js";
import type { CliContext } from "./context.js";
import { openWithDesktop } from "./open-file.js";
import { protocolOf, terminalPicture } from "./terminal-picture.js";
import { SHOW_PROTOCOLS } from "./words.js";

/** The options of commands that make pictures. */
export const viewOptions = {
  open: flag("open what was made with the desktop's viewer; of several pictures their folder", "--open"),
  show: field(z.enum(SHOW_PROTOCOLS).optional(), {
    expected: SHOW_PROTOCOLS.join(", "),
    help: "show what was made in the terminal, by the graphics of kitty or iTerm2, or sixels; auto: what it understands",
    flag: "--show [protocol]",
    otherwise: "not shown; auto where no protocol is named",
  }),
};

const schema = z.strictObject(viewOptions);

/**
 * What looks at files as the options say, once they are there; `imageOf` gives the pixels of one that is no picture.
 *
 * @throws InvalidInputError where JSON for programs is asked for too
 */
export function viewOf(
  { open = false, show, json = false }: Partial<z.output<typeof schema>> & { json?: boolean | undefined },
  context: CliContext,
): (files: readonly string[], imageOf?: (file: string) => Promise<RgbImage>) => Promise<void> {
  if (show !== undefined && json) throw invalid("show", "no --json with it, since both are written to stdout", show);
  const protocol = show === "auto" ? protocolHere(context) : show;
  return async (files, imageOf = (file) => decodeShown(readBytes(file))) => {
    if (protocol !== undefined)
      for (const file of files) context.terminal(await terminalPicture(await imageOf(file), protocol));
    const [first] = files;
    if (open && first !== undefined) await openWithDesktop(files.length === 1 ? first : dirname(first), context);
  };
}

/** What this terminal understands; nothing, with a warning, where it is not known. */
function protocolHere({ stderr }: CliContext) {
  const choose = `name what shows it: --show ${SHOW_PROTOCOLS.slice(1).join(", ")}`;
  if (!process.stdout.isTTY) stderr(`warning: --show: standard output is no terminal; ${choose}\n`);
  else {
    const protocol = protocolOf(process.env);
    if (protocol !== null) return protocol;
    stderr(`warning: --show: this terminal is not known to show pictures; ${choose}\n`);
  }
  return undefined;
}
