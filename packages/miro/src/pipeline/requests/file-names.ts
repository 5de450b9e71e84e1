/**
 * File names of pictures from templates: `{prompt}-seed{seed}`, `{model}/{index}-{reward.sharpness}`.
 *
 * What a field stands for can never leave the folder or hide a file: a value loses everything but letters, digits,
 * emoji and `. _ = + -`, and leading dots; only the template itself can name sub-folders. Every part of a path is cut
 * to a length that file systems take, at a character. Names that fall together get a number: `fox.png`, `fox-2.png`.
 */
import { join } from "node:path";
import { InvalidInputError } from "../../errors.js";
import { trimEnd } from "../../files/trim.js";
import { localTime } from "../../local-time.js";
import { about, message } from "../../message.js";
import type { RewardTargets } from "../picture-options.js";

/** What the fields of a template stand for. */
export interface NameValues {
  prompt: string;
  /** Null when the noise was given. */
  seed: number | null;
  /** What the noise of the seed is blended with; undefined where nothing is. */
  variationSeed: number | undefined;
  /** Place of the picture in the command, from 0, and the number of pictures. */
  index: number;
  count: number;
  steps: number;
  guidance: number;
  sampler: string;
  shift: number;
  model: string;
  variant: string;
  /** When the command began. */
  began: Date;
  reward: RewardTargets;
  negativeReward: RewardTargets;
}

const FIELDS: Record<string, (values: NameValues, template: string) => string> = {
  prompt: ({ prompt }) => slug(prompt),
  seed: ({ seed }, template) => {
    if (seed !== null) return String(seed);
    throw new InvalidInputError(
      message`${about("name")}: ${JSON.stringify(template)} uses {seed}, but pictures drawn from supplied noise have no seed`,
    );
  },
  variation_seed: ({ variationSeed }) => String(variationSeed ?? "none"),
  index: ({ index, count }) => String(index).padStart(String(count - 1).length, "0"),
  steps: ({ steps }) => String(steps),
  guidance: ({ guidance }) => String(guidance),
  sampler: ({ sampler }) => sampler,
  shift: ({ shift }) => String(shift),
  model: ({ model }) => model,
  variant: ({ variant }) => variant,
  date: ({ began }) => localTime(began).day,
  time: ({ began }) => localTime(began).time,
};

/** The fields of a template, for help and errors. */
export const NAME_FIELDS = [...Object.keys(FIELDS), "reward.KEY", "negative_reward.KEY"];

/** Fields that do not depend on the checkpoint. */
const KNOWN_EARLY = ["prompt", "seed", "variation_seed", "index", "date", "time"];

/** Most bytes of one part of a path, its extension included. */
const MAX_BYTES = 200;

/** A template of file names, checked. */
export class NameTemplate {
  /**
   * @param text literal text with `{field}` in it; `/` separates folders. An extension is not part of it
   * @param rewards keys that `{reward.KEY}` may name; null when they are not known yet
   * @throws InvalidInputError naming the fields there are, or what is wrong with the path
   */
  constructor(
    readonly text: string,
    rewards: readonly string[] | null = null,
  ) {
    const refuse = (what: string): never => {
      throw new InvalidInputError(message`${about("name")}: ${JSON.stringify(text)} ${what}`);
    };
    for (const [, name] of text.matchAll(/\{([^{}]*)\}/g)) {
      const reward = /^(?:negative_)?reward\.(.+)$/.exec(name!)?.[1];
      if (reward !== undefined && rewards && !rewards.includes(reward)) {
        refuse(`names the reward ${reward}; this checkpoint has ${rewards.join(", ") || "none"}`);
      }
      if (reward === undefined && !Object.hasOwn(FIELDS, name!)) {
        refuse(`has an unknown field {${name}}; there are ${NAME_FIELDS.map((field) => `{${field}}`).join(", ")}`);
      }
    }
    const literal = text.replace(/\{[^{}]*\}/g, "x");
    if (/[{}]/.test(literal)) refuse("has a { or } without its other half");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what no file name should hold
    if (/[\x00-\x1f\x7f\\]/.test(literal)) refuse("has a character that file names cannot have");
    if (literal.split("/").some((part) => part.trim() === "" || /^\.+$/.test(part))) {
      refuse("has an empty part, or one of dots alone: expected a path below the output folder");
    }
  }

  /** Whether it names what only the checkpoint decides: its name, its rewards, its defaults. */
  get needsSettings(): boolean {
    return [...this.text.matchAll(/\{([^{}]*)\}/g)].some(([, name]) => !KNOWN_EARLY.includes(name!));
  }

  /** A path below the output folder, without extension; parts separated by `/`. */
  fill(values: NameValues): string {
    return this.text
      .split("/")
      .map((part) => part.replace(/\{([^{}]*)\}/g, (_, name: string) => this.#value(name, values)))
      .map((part) => trimEnd(part, (c) => ". ".includes(c)).trimStart() || "picture")
      .join("/");
  }

  #value(name: string, values: NameValues): string {
    const reward = /^(negative_)?reward\.(.+)$/.exec(name);
    const value = reward
      ? String((reward[1] ? values.negativeReward : values.reward)[reward[2]!] ?? (reward[1] ? 0 : 1))
      : FIELDS[name]!(values, this.text);
    return value
      .normalize("NFKC")
      .replace(/[^\p{L}\p{M}\p{N}\p{Extended_Pictographic}._=+-]+/gu, "-")
      .replace(/^\.+/, "");
  }
}

/** Gives each picture a path of its own. */
export class NameAllocator {
  readonly #taken = new Set<string>();
  readonly #folder: string;
  readonly #isFree: (path: string) => boolean;

  /**
   * @param folder where the paths lie
   * @param isFree whether a path may be used, apart from those given out already
   */
  constructor(folder: string, isFree: (path: string) => boolean = () => true) {
    this.#folder = folder;
    this.#isFree = isFree;
  }

  /** The first free one of `NAME.png`, `NAME-2.png`, … Names that differ in case only count as one. */
  take(name: string, extension: string): string {
    for (let n = 1; ; n++) {
      const end = `${n === 1 ? "" : `-${n}`}${extension}`;
      const parts = name.split("/");
      const last = `${shorten(parts.pop()!, MAX_BYTES - Buffer.byteLength(end))}${end}`;
      const path = join(this.#folder, ...parts.map((part) => shorten(part, MAX_BYTES)), last);
      const key = path.toLowerCase().normalize("NFC");
      if (this.#taken.has(key) || !this.#isFree(path)) continue;
      this.#taken.add(key);
      return path;
    }
  }
}

/** The longest beginning of at most `bytes` bytes of UTF-8 that ends with a whole code point. */
function shorten(text: string, bytes: number): string {
  let length = 0;
  let end = 0;
  for (const character of text) {
    length += Buffer.byteLength(character);
    if (length > bytes) return trimEnd(text.slice(0, end), (c) => "-. ".includes(c));
    end += character.length;
  }
  return text;
}

/** A prompt as a file name: letters and digits of any script, and emoji, at most 60 characters. */
export function slug(prompt: string): string {
  const words = prompt
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}\p{Extended_Pictographic}]+/gu, "-")
    .replace(/^-/, "");
  const first = Array.from(words.slice(0, 120)).slice(0, 60).join("");
  return trimEnd(first, (c) => c === "-") || "picture";
}
