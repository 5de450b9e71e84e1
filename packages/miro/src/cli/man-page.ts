/** The manual page `miro(1)`, generated from the help of every command. */
import type { EventEmitter } from "node:events";
import type { Command } from "commander";
import { PROGRAM_VARIABLES } from "./environment-variables.js";
import { PROJECT_FILE } from "./settings.js";

/** Columns of the examples below a command: a page is set for terminals of 80, and indented. */
const EXAMPLE_WIDTH = 70;
/** Columns of filled text in the file itself. */
const SOURCE_WIDTH = 80;

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

/** Words that troff fills into lines, here in lines of their own width. */
function filled(text: string): string {
  const lines = [""];
  for (const word of text.split(/\s+/).map(troff)) {
    const longer = `${lines.at(-1)} ${word}`.trimStart();
    if (longer.length > SOURCE_WIDTH && lines.at(-1) !== "") lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines.join("\n");
}

/** An argument of a macro, of several words. */
const quoted = (text: string) => `"${troff(text).replaceAll('"', "\\(dq")}"`;

/** A term and what it means. */
const item = (term: string, meaning: string) => `.TP\n.B ${quoted(term)}\n${filled(meaning)}`;

/** Lines as they are; empty ones at the beginning and the end are left out. */
const asWritten = (text: string) => `.nf\n${troff(text.replace(/^\n+/, "").trimEnd())}\n.fi`;

/** What a command's help says below its options. */
function textBelow(command: Command): string {
  let text = "";
  command.configureHelp({ ...command.configureHelp(), helpWidth: EXAMPLE_WIDTH });
  // Commander's declarations leave out that a command tells of events; texts below a help are written at this one.
  (command as unknown as EventEmitter).emit("afterHelp", {
    error: false,
    command,
    write: (part: string) => (text += part),
  });
  return text.trim();
}

/**
 * Writes the page.
 *
 * @param program with all its commands; their help becomes as narrow as the page
 */
export function manPage(program: Command, version: string): string {
  const parts = [
    // Without a date: the same sources give the same page.
    `.TH MIRO 1 "" "miro-t2i ${troff(version)}" "User Commands"`,
    `.SH NAME\nmiro \\- ${troff(program.description().replace(/\.$/, ""))}`,
    ".SH SYNOPSIS\n.B miro\n.I command\n[\\fIarguments\\fR]",
    `.SH DESCRIPTION\n${asWritten(textBelow(program))}`,
    ".SH COMMANDS",
  ];
  const visit = (command: Command) => {
    const help = command.createHelp();
    parts.push(`.SS ${quoted(help.commandUsage(command))}`);
    parts.push(filled(command.description()));
    for (const argument of help.visibleArguments(command)) {
      parts.push(item(help.argumentTerm(argument), help.argumentDescription(argument)));
    }
    for (const option of help.visibleOptions(command)) {
      parts.push(item(help.optionTerm(option), help.optionDescription(option)));
    }
    const below = textBelow(command);
    if (below !== "") parts.push(`.PP\n${asWritten(below)}`);
    for (const inner of command.commands) visit(inner);
  };
  for (const command of program.commands) visit(command);
  parts.push(
    ".SH FILES",
    item(`./${PROJECT_FILE}`, "defaults of options for a project, also in a folder above; see miro config"),
    item("~/.config/miro/config.yaml", "defaults of options for a user; XDG_CONFIG_HOME names another ~/.config"),
    ".SH ENVIRONMENT",
  );
  for (const { title, rows } of PROGRAM_VARIABLES) {
    parts.push(`.SS ${quoted(plain(title))}`);
    for (const [names, meaning] of rows) parts.push(item(names, plain(meaning)));
  }
  parts.push(
    ".SH EXIT STATUS",
    item("0", "done"),
    item("1", "failed"),
    item("2", "wrong usage, or a file that is not there"),
    item("130", "interrupted"),
  );
  return `${parts.join("\n")}\n`;
}

/** Text without the marks of code. */
const plain = (text: string) => text.replaceAll("`", "");
