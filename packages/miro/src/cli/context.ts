/** What a command needs from the process around it, so that tests can run commands without one. */

/** The surroundings of one command. */
export interface CliContext {
  /** Results: text for people, or one JSON document under `--json`. */
  stdout(text: string): void;
  /** Warnings and errors. */
  stderr(text: string): void;
  /** What is good to know while a command works, and no warning: nothing under `--quiet`. */
  note(text: string): void;
  /** What the terminal obeys, on stdout as it is: colours, pictures. Nothing of a stranger may come here. */
  terminal(text: string): void;
  /** Whether stderr is a terminal, and `--quiet` was not asked for: progress bars are drawn only then. */
  interactive: boolean;
  /** Whether stdout and stderr show colours. */
  colours: { stdout: boolean; stderr: boolean };
  /** The standard input to its end. @throws the signal's reason when it is aborted meanwhile */
  stdin(): Promise<Uint8Array>;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
}

/**
 * A command's file (`cli/<name>.ts`) exports this function. It receives the command with its name and summary already
 * set and adds arguments, options, examples (`addHelpText("after", helpText(…))`) and the action.
 */
export type Register = (command: import("commander").Command, context: CliContext) => void;
