/**
 * Errors in the words of the command line: options that a message mentions become flags. The libraries know no flags.
 */
import type { Command } from "commander";
import { Message, type OptionMention, type ParameterMention } from "../message.js";

/** What the command line calls the options of a command, where that is not their name with dashes: `--guidance`. */
export type FlagNames = Readonly<Record<string, string>>;

const namesOf = new WeakMap<Command, FlagNames>();

/** Tells what a command calls its options; may be called several times. */
export function nameFlags(command: Command, names: FlagNames): void {
  namesOf.set(command, { ...namesOf.get(command), ...names });
}

/** What a command calls its options. */
export function flagNames(command: Command): FlagNames {
  return namesOf.get(command) ?? {};
}

/** A message with the flags of the command that it is about. */
export function withFlags(wording: Message, names: FlagNames): string {
  return wording.text((mention) => ("parameter" in mention ? parameterName(mention, names) : flag(mention, names)));
}

/** A JSON document whose messages are written with flags. */
export function jsonWithFlags(value: unknown): string {
  return JSON.stringify(value, (_, part) => (part instanceof Message ? withFlags(part, {}) : part));
}

/**
 * `rewardTargets.clip_score` → `--reward clip_score`, `sbatch.0` → `--sbatch.0`, the first of a repeated flag. What is
 * no option of the command stays.
 */
function parameterName({ parameter }: ParameterMention, names: FlagNames): string {
  const whole = names[parameter];
  if (whole !== undefined) return whole;
  const [head, ...rest] = parameter.split(".");
  const flag = names[head!];
  if (flag === undefined) return parameter;
  return rest.reduce((text, part) => `${text}${/^\d+$/.test(part) ? "." : " "}${part}`, flag);
}

/** `--resume 6`, `--overwrite`, `--no-synthetic`. */
function flag({ option, value }: OptionMention, names: FlagNames): string {
  const name = names[option] ?? `--${kebabCase(option)}`;
  if (value === undefined || value === true) return name;
  if (value === false) return name.startsWith("--no-") ? name : name.replace("--", "--no-");
  return `${name} ${value}`;
}

/** `guidanceType` → `guidance-type`, `vae256` → `vae-256`. */
export function kebabCase(key: string): string {
  return key.replace(/[A-Z]|(?<=[a-z])\d+/g, (part) => `-${part.toLowerCase()}`);
}
