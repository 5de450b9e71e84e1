/**
 * The `miro` command: finds the sub-command, loads its file alone, runs it, and turns whatever it throws into one line
 * and an exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
 */
import { addAbortSignal } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setImmediate } from "node:timers/promises";
import { Command, CommanderError } from "commander";
import { exitCodeOf, InterruptedError, MiroError, systemReason } from "../errors.js";
import { surviveLostOutput, writeSafely } from "../lost-output.js";
import { ERASE_LINE, oneLine, printable } from "../printable.js";
import { onStop } from "../stop-requests.js";
import { version } from "../version.js";
import { addOptions } from "./add-options.js";
import { quietOptions } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { failureText } from "./failure.js";
import { flagNames, withFlags } from "./flag-names.js";
import { helpSettings, helpText, paintHelp } from "./help-text.js";
import { hasColours, paintHead } from "./paint.js";
import { leavesOf, Settings } from "./settings.js";
import { meantWords } from "./words.js";

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
  config: {
    summary: "show the settings files that are read, and which value comes from where",
    load: () => import("./config.js"),
  },
  completion: {
    summary: "print what makes bash, zsh or fish complete commands and options",
    load: () => import("./completion.js"),
  },
};

/** Commands that are about all commands. */
const ABOUT_ALL = ["completion", "config"];

const EXAMPLES = `
Examples:
  miro "a fox"                                            short for: miro generate "a fox"
  miro generate "a red apple on a light blue background"
  miro generate "a fox" --images 4 --seed 7 --reward sharpness=0.3
  miro info pictures/a-fox-seed7.png
  miro doctor

Defaults of all options can be written into miro.config.yaml, here or in a folder above, and ~/.config/miro/config.yaml
(see: miro config --help).
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
  const context = forPeople({
    stdout: (text) => writeSafely(process.stdout, text),
    stderr: (text) => writeSafely(process.stderr, text),
    stdin: () => buffer(addAbortSignal(context.signal, process.stdin)),
    interactive: Boolean(process.stderr.isTTY),
    colours: {
      stdout: overrides.stdout === undefined && hasColours(process.stdout),
      stderr: overrides.stderr === undefined && hasColours(process.stderr),
    },
    signal: interrupt.signal,
    ...overrides,
  });
  // The first Ctrl-C lets the command stop at the next step and clean up; the second one does not wait.
  const unlisten = owner
    ? onStop({ stop: () => interrupt.abort(), stopAtOnce: () => process.exit(130) })
    : () => undefined;
  let called: Command | null = null;
  const settings = new Settings();
  try {
    const words = meantWords(args);
    const program = await buildProgram(asked(words), context);
    const follow = (parent: Command): void => {
      parent.hook("preSubcommand", (_, command) => {
        called = command;
        follow(command);
      });
    };
    follow(program);
    program.hook("preAction", async (_, command) => {
      for (const warning of await settings.apply(command)) context.stderr(`warning: ${warning}\n`);
      // Documents for programs are written as they are.
      if (command.getOptionValue("json") === true) context.stdout = context.terminal;
      if (command.getOptionValue("quiet") !== true) return;
      context.interactive = false;
      context.note = () => {};
    });
    await program.parseAsync(unknownCommand(program, words) ?? words, { from: "user" });
    return 0;
  } catch (error) {
    return report(error, called, settings, context);
  } finally {
    unlisten();
  }
}

/** Surroundings to which nothing is written that a terminal would obey, but by `terminal`. */
function forPeople(context: Omit<CliContext, "note" | "terminal"> & Partial<CliContext>): CliContext {
  const head = context.colours.stderr ? paintHead : (text: string) => text;
  const stderr = (text: string) => context.stderr(text === ERASE_LINE ? text : head(printable(text)));
  return {
    ...context,
    stdout: (text) => context.stdout(printable(text)),
    stderr,
    note: context.note ?? stderr,
    terminal: context.terminal ?? context.stdout,
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
export function wholeProgram(): Promise<Command> {
  const unused = () => undefined;
  const writing = { stdout: unused, stderr: unused, note: unused, terminal: unused };
  const colours = { stdout: false, stderr: false };
  const signal = new AbortController().signal;
  const stdin = async () => new Uint8Array();
  return buildProgram(() => true, { ...writing, stdin, colours, interactive: false, signal });
}

/** The commands that a command line needs in full. */
function asked(args: readonly string[]): (name: string) => boolean {
  const wanted = args.find((arg) => !arg.startsWith("-"));
  const isAboutAll = ABOUT_ALL.includes(wanted ?? "");
  return (name) => isAboutAll || name === wanted || (wanted === "help" && args.includes(name));
}

async function buildProgram(isWanted: (name: string) => boolean, context: CliContext): Promise<Command> {
  const program = new Command("miro")
    .description("Text-to-image with the qualities you ask for: MIRO in TypeScript.")
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help for a command")
    .addHelpText("after", helpText(EXAMPLES));
  configure(program, context);
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    const command = program.command(name).description(summary);
    configure(command, context);
    if (isWanted(name)) {
      (await load()).register(command, context);
      for (const leaf of leavesOf(command)) addOptions(leaf, quietOptions);
    }
  }
  return program;
}

/**
 * Of a question for the help of a command that there is not, the words without the question, which are refused; else
 * null. Commander would answer with the help of what stands above.
 */
function unknownCommand(program: Command, words: readonly string[]): string[] | null {
  const end = words.findIndex((word) => word.startsWith("-"));
  const leading = end < 0 ? words : words.slice(0, end);
  if (!leading.includes("help") && !words.includes("--help") && !words.includes("-h")) return null;
  const names = leading.filter((word) => word !== "help");
  let above = program;
  for (const [i, name] of names.entries()) {
    if (above.commands.length === 0) return null;
    const command = above.commands.find((one) => one.name() === name);
    if (command === undefined) return names.slice(0, i + 1);
    above = command;
  }
  return null;
}

function configure(command: Command, context: CliContext): void {
  command
    .exitOverride()
    .showSuggestionAfterError(true)
    .configureOutput({
      writeOut: context.colours.stdout ? (text) => context.terminal(paintHelp(printable(text))) : context.stdout,
      writeErr: context.stderr,
      outputError: () => {},
    })
    // Names alone leave room for what commands do.
    .configureHelp({ ...helpSettings(), subcommandTerm: (one) => one.name() });
}

/** A single word in the place of a command may be meant as a prompt; texts of several words are taken for one. */
function promptHint(message: string): string {
  const word = /^error: unknown command '([^']+)'$/.exec(message)?.[1];
  return word === undefined ? "" : `; to draw it: miro generate ${JSON.stringify(word)}`;
}

/** What is wrong with a command line. Commander calls a flag with a value unknown, which it is not to who typed it. */
function usageText({ message, code }: CommanderError, called: Command | null): string {
  const flag = /^error: unknown option '(--[^=']+)=/.exec(message)?.[1];
  const isKnown = called?.options.some(({ long }) => long === flag);
  if (isKnown) return `error: option '${flag}' takes no value`;
  const takesSettings = called?.registeredArguments.some((one) => one.name() === "key=value");
  const isOther = code === "commander.unknownOption" && !message.includes("Did you mean");
  const hint =
    called === null
      ? "; options stand behind a command, see: miro --help"
      : takesSettings
        ? "; settings of the recipe are written without dashes, such as trainer.max_steps=1000"
        : "";
  return `${oneLine(message, " ")}${isOther ? hint : ""}`;
}

/** Prints what the user needs to know about `error` and returns the exit code. */
function report(error: unknown, called: Command | null, settings: Settings, context: CliContext): number {
  const names = called === null ? {} : flagNames(called);
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    if (error.code === "commander.help") return 2;
    const hint = error.code === "commander.unknownCommand" && called === null ? promptHint(error.message) : "";
    context.stderr(`${usageText(error, called)}${hint}\n`);
    return 2;
  }
  if (context.signal.aborted || error instanceof InterruptedError) {
    const what = error instanceof InterruptedError ? oneLine(withFlags(error.wording, names)) : null;
    // Nothing to say: another process says it.
    if (what !== "") context.stderr(what === null ? "Interrupted.\n" : `Interrupted: ${what}\n`);
    return 130;
  }
  const place = error instanceof MiroError ? settings.placeOf(error.wording.parameter) : "";
  context.stderr(`error: ${place}${failureText(error, names)}\n`);
  // A stack trace is of no use to a user; developers ask for it.
  if (process.env.MIRO_DEBUG && error instanceof Error) context.stderr(`${error.stack}\n`);
  return exitCodeOf(error);
}
