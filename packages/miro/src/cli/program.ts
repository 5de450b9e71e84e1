/** Programs beside `miro`, such as the benchmarks: one command each, with options declared as those of `miro` are. */
import { Command, CommanderError } from "commander";
import type { z } from "zod";
import { exitCodeOf } from "../errors.js";
import { surviveLostOutput } from "../lost-output.js";
import { oneLine, printable } from "../printable.js";
import { declare } from "./add-options.js";
import { failureText, isForUsers } from "./failure.js";
import { flagNames } from "./flag-names.js";
import { helpSettings, helpText } from "./help-text.js";

/** A program: how it is called, what it does, its options and its work. */
export interface Program<S extends z.ZodObject> {
  /** As it is called: `npm run bench --`. */
  name: string;
  /** What it does, in a line. */
  summary: string;
  /** Its options, declared by {@link field}. */
  schema: S;
  /** Stands below the options in the help. */
  notes?: string;
  /** Does the work with the checked options. @returns the exit code; 0 where it says nothing */
  run(options: z.output<S>): number | undefined | Promise<number | undefined>;
}

/**
 * Runs a program with the arguments of this process.
 *
 * @returns the exit code: that of `run`, 0 for `--help`, 2 for wrong usage, which is one line on stderr
 */
export async function runProgram<S extends z.ZodObject>(program: Program<S>): Promise<number> {
  surviveLostOutput();
  let code = 0;
  const command = new Command(program.name)
    .description(program.summary)
    .helpOption("-h, --help", "print help")
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .configureHelp(helpSettings());
  declare(command, program.schema, async (options) => {
    code = (await program.run(options)) ?? 0;
  });
  if (program.notes !== undefined) command.addHelpText("after", helpText(`\n${program.notes}\n`));
  try {
    await command.parseAsync(process.argv.slice(2), { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      process.stderr.write(`${oneLine(error.message, " ")}\n`);
      return 2;
    }
    if (!isForUsers(error)) throw error;
    process.stderr.write(`error: ${printable(failureText(error, flagNames(command)))}\n`);
    return exitCodeOf(error);
  }
}
