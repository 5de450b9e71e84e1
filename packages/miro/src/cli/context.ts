/** What a command needs from the process around it, so that tests can run commands without one. */

/** The surroundings of one command. */
export interface CliContext {
  /** Results: text for people, or one JSON document under `--json`. */
  stdout(text: string): void;
  /** Progress, warnings and errors. */
  stderr(text: string): void;
  /** Whether stderr is a terminal: progress bars are drawn only then. */
  interactive: boolean;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
}

/**
 * A command's file (`cli/<name>.ts`) exports this function. It receives the command with its name and summary already
 * set and adds arguments, options, examples (`addHelpText("after", …)`) and the action.
 */
export type Register = (command: import("commander").Command, context: CliContext) => void;
