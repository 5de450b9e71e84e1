/** The manual page `miro(1)`, generated from the help of every command. */
import type { Command } from "commander";
import { PROJECT_FILE } from "./settings.js";

/** Text of a man page: what troff would take for a command or an escape is none. */
function troff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll(/[^\x20-\x7e\n]/gu, (character) => `\\[u${hexadecimal(character)}]`)
    .replaceAll(/^(?=[.'])/gm, "\\&");
}

/** The code point of a character as troff wants it: at least four digits. */
const hexadecimal = (character: string) => character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");

/** A term and what it means. */
const item = (term: string, meaning: string) => `.TP\n.B ${troff(term)}\n${troff(meaning)}`;

/**
 * Writes the page.
 *
 * @param program with all its commands
 */
export function manPage(program: Command, version: string): string {
  const parts = [
    `.TH MIRO 1 "" "miro-t2i ${troff(version)}" "User Commands"`,
    `.SH NAME\nmiro \\- ${troff(program.description())}`,
    ".SH SYNOPSIS\n.B miro\n.I command\n[\\fIarguments\\fR]",
    ".SH COMMANDS",
  ];
  const visit = (command: Command) => {
    const help = command.createHelp();
    parts.push(`.SS ${troff(help.commandUsage(command))}`);
    parts.push(troff(command.description()));
    for (const argument of help.visibleArguments(command)) {
      parts.push(item(help.argumentTerm(argument), help.argumentDescription(argument)));
    }
    for (const option of help.visibleOptions(command)) {
      parts.push(item(help.optionTerm(option), help.optionDescription(option)));
    }
    for (const inner of command.commands) visit(inner);
  };
  for (const command of program.commands) visit(command);
  parts.push(
    ".SH FILES",
    item(`./${PROJECT_FILE}`, "defaults of options for a project, also in a folder above; see miro config"),
    item("~/.config/miro/config.yaml", "defaults of options for a user; XDG_CONFIG_HOME names another ~/.config"),
    ".SH ENVIRONMENT",
    item("MIRO_CONFIG", "a file of defaults instead of these two; none when it is empty"),
    item("NO_COLOR", "no colours"),
    item("HF_HOME, HF_TOKEN, HF_ENDPOINT", "cache, token and address of the Hugging Face Hub"),
    ".SH EXIT STATUS",
    item("0", "done"),
    item("1", "failed"),
    item("2", "wrong usage"),
    item("130", "interrupted"),
  );
  return `${parts.join("\n")}\n`;
}
