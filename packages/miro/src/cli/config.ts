/** `miro config`: the settings files that are read, and which value comes from where. */
import type { Command } from "commander";
import { z } from "zod";
import { invalid } from "../errors.js";
import { defaultOf, field, isFlag, otherwiseOf } from "../options.js";
import { type DeclaredOption, declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { helpText } from "./help-text.js";
import {
  checkSetting,
  commandPath,
  leavesOf,
  PROJECT_FILE,
  readSettings,
  type Setting,
  settableOptions,
  settingsFor,
} from "./settings.js";
import { textTable } from "./text-table.js";

const EXAMPLES = `
Examples:
  miro config                    the values of the files, and whose options they are
  miro config generate           every option of a command, its value, and where that comes from
  miro config evaluate geneval --json

Defaults of options stand in ${PROJECT_FILE}, in the working folder or the nearest one above that has it, and for all
projects of a user in ~/.config/miro/config.yaml (XDG_CONFIG_HOME); the first overrides the second, and flags
override both. MIRO_CONFIG names one file instead of the two; MIRO_CONFIG= reads none. Options are called as their flags
are, --no-x is x: false; they stand at the top, for all commands that have them, or below the name of a command:

  device: cuda
  generate:
    steps: 30
    reward: { sharpness: 0.3 }
  evaluate:
    geneval: { n-samples: 1 }

A picture that is drawn again with --from keeps its own settings, whatever these files say.
`;

const schema = z.strictObject({
  command: field(z.array(z.string()).default([]), {
    expected: "a command",
    help: "a command, such as generate or evaluate geneval",
    flag: "[command...]",
  }),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => show(options, command.parent!, context)).addHelpText(
    "after",
    helpText(EXAMPLES),
  );
};

async function show({ command: names, json }: z.output<typeof schema>, program: Command, context: CliContext) {
  const { files } = await readSettings();
  if (names.length > 0) {
    const command = commandOf(program, names);
    const given = new Map<string, { value: unknown; place: string }>();
    for (const { option, setting } of settingsFor(files, command))
      given.set(option.key, { value: checkSetting(option, setting), place: setting.place });
    const options = [...settableOptions(command)].map(([key, option]) => {
      const own = given.get(key);
      return { option: key, value: own ? own.value : unless(option), from: own?.place ?? "default" };
    });
    if (json) context.stdout(`${JSON.stringify({ command: names.join(" "), options })}\n`);
    else
      print(
        options.map(({ option, value, from }) => [option, words(value), from]),
        context,
      );
    return;
  }
  const settings = allSettings(files, program);
  if (json) {
    context.stdout(`${JSON.stringify({ files: files.map(({ path }) => path), settings })}\n`);
    return;
  }
  if (files.length === 0) context.stdout(`no ${PROJECT_FILE} here or above, and none of the user\n`);
  for (const { path } of files) context.stdout(`${path}\n`);
  print(
    settings.map(({ option, value, from, commands }) => [option, words(value), from, commands]),
    context,
  );
}

/** Every value of the files that counts for some command, checked by the options of all of them. */
function allSettings(files: Awaited<ReturnType<typeof readSettings>>["files"], program: Command) {
  const uses = new Map<string, { setting: Setting; value: unknown; commands: string[]; refusal: unknown }>();
  for (const command of leavesOf(program)) {
    for (const { option, setting } of settingsFor(files, command)) {
      const use = uses.get(setting.place + setting.key) ?? { setting, value: undefined, commands: [], refusal: null };
      uses.set(setting.place + setting.key, use);
      try {
        use.value = checkSetting(option, setting);
        use.commands.push(commandPath(command).join(" "));
      } catch (error) {
        use.refusal = error;
      }
    }
  }
  return [...uses.values()].map(({ setting: { section, key, place }, value, commands, refusal }) => {
    if (commands.length === 0) throw refusal;
    return { option: [...section, key].join("."), value, from: place, commands: commands.join(", ") };
  });
}

function commandOf(program: Command, names: readonly string[]): Command {
  const found = names.reduce<Command | undefined>(
    (above, name) => above?.commands.find((one) => one.name() === name),
    program,
  );
  if (found !== undefined && found.commands.length === 0) return found;
  const known = leavesOf(program).map((one) => commandPath(one).join(" "));
  throw invalid("command", `one of ${known.join(", ")}`, names.join(" "));
}

/** What holds where an option is not given. */
function unless({ schema, isNeeded }: DeclaredOption): unknown {
  if (isNeeded) return "has to be given";
  return isFlag(schema) ? defaultOf(schema) : otherwiseOf(schema);
}

/** A value as one would write it. */
function words(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function print(rows: readonly (readonly string[])[], { stdout }: CliContext): void {
  for (const line of textTable(rows)) stdout(`${line}\n`);
}
