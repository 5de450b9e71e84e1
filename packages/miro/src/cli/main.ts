/**
 * The `miro` command: finds the sub-command, loads its file alone, runs it, and turns whatever it throws into one line
 * and an exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
 */
import { setImmediate } from "node:timers/promises";
import { Command, CommanderError } from "commander";
import { InterruptedError, isMissingFile, MiroError, systemReason } from "../errors.js";
import { ERASE_LINE, oneLine, printable } from "../printable.js";
import { onStop, surviveLostOutput, writeSafely } from "../surroundings.js";
import { version } from "../version.js";
import type { CliContext, Register } from "./context.js";
import { type FlagNames, flagNames, withFlags } from "./flag-names.js";

interface Entry {
  summary: string;
  /** Imports the command's file; called only when the command is. */
  load: () => Promise<{ register: Register }>;
}

const COMMANDS: Record<string, Entry> = {
  generate: { summary: "draw pictures from text", load: () => import("./generate.js") },
  studio: { summary: "serve a page and HTTP APIs that draw pictures", load: () => import("./studio.js") },
  sweep: {
    summary: "draw a table of pictures over two settings",
    load: () => import("./sweep.js"),
  },
  info: {
    summary: "show the settings stored in a picture, or what a checkpoint holds",
    load: () => import("./info.js"),
  },
  score: { summary: "score picture files", load: () => import("./score.js") },
  models: {
    summary: "list the models that can be loaded, and what is in the cache",
    load: () => import("./models.js"),
  },
  doctor: {
    summary: "report what was found on this machine and how to fix what is missing",
    load: () => import("./doctor.js"),
  },
  render: { summary: "render emoji scenes as raw tar shards", load: () => import("./render.js") },
  preprocess: {
    summary: "raw pictures with captions to scores, latents and text embeddings",
    load: () => import("./preprocess.js"),
  },
  index: {
    summary: "index folders of shards for training; compute bin edges of their scores",
    load: () => import("./index-command.js"),
  },
  evaluate: { summary: "measure a model or a folder of pictures", load: () => import("./evaluate.js") },
  bench: { summary: "measure how fast a model draws on this machine", load: () => import("./bench.js") },
  train: { summary: "train a model by a recipe", load: () => import("./train.js") },
  launch: { summary: "submit a training to a SLURM cluster", load: () => import("./launch.js") },
  convert: {
    summary: "make a release folder of a training checkpoint, and back",
    load: () => import("./convert.js"),
  },
  publish: { summary: "put a release folder on the Hugging Face Hub", load: () => import("./publish.js") },
  card: { summary: "render the card of a release folder", load: () => import("./card.js") },
  testbed: {
    summary: "check the prompts that runs draw for comparison, and compute their embeddings",
    load: () => import("./testbed.js"),
  },
  plot: { summary: "draw loss curves and other logged metrics", load: () => import("./plot.js") },
  completion: {
    summary: "print what makes bash, zsh or fish complete commands and options",
    load: () => import("./completion.js"),
  },
};

const EXAMPLES = `
Examples:
  miro "a fox"                                            short for: miro generate "a fox"
  miro generate "a red apple on a light blue background"
  miro generate "a fox" --images 4 --seed 7 --reward sharpness=0.3
  miro info pictures/a-fox-seed7.png
  miro doctor
`;

/**
 * Runs one command line.
 *
 * @param args the arguments after `miro`
 * @param overrides parts of the surroundings to replace (tests)
 * @returns the exit code
 */
export async function run(args: readonly string[], overrides: Partial<CliContext> = {}): Promise<number> {
  const interrupt = new AbortController();
  const owner = overrides.signal === undefined;
  const context = forPeople(args, {
    stdout: (text) => writeSafely(process.stdout, text),
    stderr: (text) => writeSafely(process.stderr, text),
    interactive: Boolean(process.stderr.isTTY),
    signal: interrupt.signal,
    ...overrides,
  });
  // The first Ctrl-C lets the command stop at the next step and clean up; the second one does not wait.
  const unlisten = owner
    ? onStop({ stop: () => interrupt.abort(), stopAtOnce: () => process.exit(130) })
    : () => undefined;
  let names: FlagNames = {};
  try {
    const words = isPrompt(args[0]) ? ["generate", ...args] : [...args];
    const program = await buildProgram(words, context);
    const follow = (parent: Command): void => {
      parent.hook("preSubcommand", (_, command) => {
        names = flagNames(command);
        follow(command);
      });
    };
    follow(program);
    await program.parseAsync(words, { from: "user" });
    return 0;
  } catch (error) {
    return report(error, names, context);
  } finally {
    unlisten();
  }
}

/**
 * Whether the first word is no command but a text: `miro "a fox"` means `miro generate "a fox"`. What a terminal obeys
 * is none.
 */
function isPrompt(word: string | undefined): boolean {
  if (word === undefined || word.startsWith("-") || printable(word) !== word) return false;
  return /\s|\p{Extended_Pictographic}/u.test(word.trim());
}

/** Help is as wide as the terminal, and no wider than is easily read. */
const HELP_WIDTH = Math.min(110, process.stdout.columns ?? 110);

/**
 * Surroundings to which nothing is written that a terminal would obey; documents for programs go to stdout as they are.
 */
function forPeople(args: readonly string[], context: CliContext): CliContext {
  return {
    ...context,
    stdout: args.includes("--json") ? context.stdout : (text) => context.stdout(printable(text)),
    stderr: (text) => context.stderr(text === ERASE_LINE ? text : printable(text)),
  };
}

/** Runs the command line of this process, and sets its exit code. */
export async function main(): Promise<void> {
  const lostOutput = surviveLostOutput();
  const code = await run(process.argv.slice(2));
  await setImmediate(); // failures of what was written last
  const lost = lostOutput();
  if (lost !== null) writeSafely(process.stderr, `error: standard output cannot be written: ${systemReason(lost)}\n`);
  process.exitCode = code === 0 && lost !== null ? 1 : code;
}

/** The program with every command in full: for what is generated from all of them. */
export async function wholeProgram(): Promise<Command> {
  const unused = () => undefined;
  const signal = new AbortController().signal;
  return buildProgram(["completion"], { stdout: unused, stderr: unused, interactive: false, signal });
}

async function buildProgram(args: readonly string[], context: CliContext): Promise<Command> {
  const wanted = args.find((arg) => !arg.startsWith("-"));
  const program = new Command("miro")
    .description("Text-to-image with the qualities you ask for: MIRO in TypeScript.")
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help for a command")
    .addHelpText("after", EXAMPLES);
  configure(program, context);
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    const command = program.command(name).description(summary);
    configure(command, context);
    // Completion is about all commands.
    if (name === wanted || wanted === "completion" || (wanted === "help" && args.includes(name))) {
      (await load()).register(command, context);
    }
  }
  return program;
}

function configure(command: Command, context: CliContext): void {
  command
    .exitOverride()
    .showSuggestionAfterError(true)
    .configureOutput({ writeOut: context.stdout, writeErr: context.stderr, outputError: () => {} })
    .configureHelp({ helpWidth: HELP_WIDTH });
}

/** Prints what the user needs to know about `error` and returns the exit code. */
function report(error: unknown, names: FlagNames, context: CliContext): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    if (error.code === "commander.help") return 2;
    context.stderr(`${oneLine(error.message, " ")}\n`);
    return 2;
  }
  if (context.signal.aborted || error instanceof InterruptedError) {
    context.stderr("Interrupted.\n");
    return 130;
  }
  if (error instanceof MiroError) {
    context.stderr(`error: ${oneLine(withFlags(error.wording, names))}\n`);
    return isMissingFile(error) ? 2 : error.exitCode;
  }
  const { code, syscall, path } = error as NodeJS.ErrnoException;
  const message = error instanceof Error ? error.message : String(error);
  if (code && syscall) context.stderr(`error: ${path ? `${path}: ` : ""}${systemReason(error)}\n`);
  else context.stderr(`error: ${oneLine(message)}\n`);
  // A stack trace is of no use to a user; developers ask for it.
  if (process.env.MIRO_DEBUG && error instanceof Error) context.stderr(`${error.stack}\n`);
  return isMissingFile(error) ? 2 : 1;
}
