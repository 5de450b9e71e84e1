/** Texts below a command's help, as wide as the terminal. */
import { type Command, Help, type HelpConfiguration } from "commander";
import { paint } from "./paint.js";

/** No wider than is easily read. */
const WIDEST = 110;
/** Where the words about a long example stand: below it, further in. */
const BELOW = 6;

/** The width of help: that of the terminal. */
export function helpWidth(): number {
  return Math.min(WIDEST, process.stdout.columns || WIDEST);
}

/** Columns that the words about an option need beside it; where there are fewer, they stand below. */
const LEAST_BESIDE = 20;

/** How commander writes help: as wide as the terminal, with the words about an option below it where that is narrow. */
export function helpSettings(): HelpConfiguration {
  return {
    helpWidth: helpWidth(),
    minWidthToWrap: LEAST_BESIDE,
    formatItem(this: Help, term, termWidth, description, helper) {
      const width = helper.helpWidth ?? WIDEST;
      if (description === "" || width - termWidth - 4 >= LEAST_BESIDE)
        return Help.prototype.formatItem.call(this, term, termWidth, description, helper);
      return [`  ${term}`, ...fill(description, width, BELOW, BELOW)].join("\n");
    },
  };
}

/**
 * A text for `addHelpText`: paragraphs are filled anew; of an indented line, such as an example, what stands behind two
 * or more blanks is what is said about it, and goes below it where both together are too wide. A command line is never
 * broken: people copy it.
 */
export function helpText(text: string): (asked: { command: Command }) => string {
  return ({ command }) => wrapHelp(text, command.createHelp().helpWidth ?? helpWidth());
}

/** @param width columns */
export function wrapHelp(text: string, width: number): string {
  const lines: string[] = [];
  let paragraph: string[] = [];
  const end = () => {
    if (paragraph.length > 0) lines.push(...fill(paragraph.join(" "), width));
    paragraph = [];
  };
  for (const line of text.split("\n")) {
    const isText = line !== "" && !line.startsWith(" ");
    if (isText && !line.endsWith(":")) {
      paragraph.push(line);
      continue;
    }
    if (isText && paragraph.length > 0) {
      paragraph.push(line);
      end();
      continue;
    }
    end();
    lines.push(...(line.startsWith(" ") ? wrapIndented(line, width) : fill(line, width)));
  }
  end();
  return lines.join("\n");
}

/** An indented line, with what is said about it beside it or below. */
function wrapIndented(line: string, width: number): string[] {
  if (line.length <= width) return [line];
  const indent = line.length - line.trimStart().length;
  const cut = line.indexOf("  ", indent);
  if (cut < 0) return line.trimStart().startsWith("miro ") ? [line] : fill(line.trim(), width, indent, indent + 2);
  const head = line.slice(0, cut);
  const note = line.slice(cut).trim();
  const column = line.length - line.slice(cut).trimStart().length;
  if (column > width / 2) return [head, ...fill(note, width, BELOW, BELOW)];
  const [first, ...others] = fill(note, width, column, column);
  return [`${head.padEnd(column)}${first!.trimStart()}`, ...others];
}

/** Words in lines of a width, the first and the others behind so many blanks. */
function fill(text: string, width: number, first = 0, others = 0): string[] {
  const lines: string[] = [];
  let line = " ".repeat(first);
  let isEmpty = true;
  for (const word of text.split(" ").filter((word) => word !== "")) {
    if (!isEmpty && line.length + 1 + word.length > width) {
      lines.push(line);
      line = " ".repeat(others);
      isEmpty = true;
    }
    line += isEmpty ? word : ` ${word}`;
    isEmpty = false;
  }
  return [...lines, line];
}

/** Headings of help in bold: lines of one word and a colon, and `Usage:`. */
export function paintHelp(text: string): string {
  return text.replace(/^(?:Usage:|\w+:$)/gm, (heading) => paint("bold", heading));
}
