/**
 * Messages that mention options. A library does not know whether its caller writes TypeScript or flags, so a message
 * keeps the options that it mentions as data. Its plain text names them as TypeScript callers do (`overwrite: true`);
 * the command line writes the same message with its flags (`--overwrite`).
 */

/** An option in a message, where useful with the value to give it. */
export interface OptionMention {
  readonly option: string;
  readonly value?: boolean | number | string;
}

/** The parameter that a message is about: it stands first. */
export interface ParameterMention {
  readonly parameter: string;
}

export type MessagePart = string | OptionMention | ParameterMention;

/** A message in parts. The parts are plain data, so that they pass between processes. */
export class Message {
  readonly parts: readonly MessagePart[];

  constructor(parts: readonly MessagePart[]) {
    this.parts = parts;
  }

  /** The parameter that the message is about, if it is about one. */
  get parameter(): string | undefined {
    const [head] = this.parts;
    return typeof head === "object" && "parameter" in head ? head.parameter : undefined;
  }

  /** The text. @param write what stands for an option or a parameter; by default what TypeScript callers write */
  text(write: (mention: OptionMention | ParameterMention) => string = inTypeScript): string {
    return this.parts.map((part) => (typeof part === "string" ? part : write(part))).join("");
  }

  toString(): string {
    return this.text();
  }
}

/** An option, for {@link message}. @param value what to set it to, where the message says so */
export function option(name: string, value?: boolean | number | string): OptionMention {
  return value === undefined ? { option: name } : { option: name, value };
}

/** The parameter that a message is about, for the head of a {@link message}: `steps: …`. */
export function about(parameter: string): ParameterMention {
  return { parameter };
}

/**
 * Builds a message from a template: options are kept as data, other messages and errors in parts, all else as text.
 *
 * @example
 * message`${path}: exists already; choose another ${option("output")}, or ${option("overwrite", true)}`
 */
export function message(strings: TemplateStringsArray, ...values: readonly unknown[]): Message {
  const parts: MessagePart[] = [];
  strings.forEach((text, i) => {
    if (text !== "") parts.push(text);
    if (i >= values.length) return;
    for (const part of partsOf(values[i])) {
      // What an error inside of a longer message is about is no parameter of this caller.
      if (typeof part === "object" && "parameter" in part && parts.length > 0) parts.push(part.parameter);
      else if (part !== "") parts.push(part);
    }
  });
  return new Message(parts);
}

function partsOf(value: unknown): readonly MessagePart[] {
  if (value instanceof Message) return value.parts;
  if (typeof value === "object" && value !== null) {
    if ("wording" in value && value.wording instanceof Message) return value.wording.parts;
    if (value instanceof Error) return [value.message];
    if ("option" in value || "parameter" in value) return [value as OptionMention | ParameterMention];
  }
  return [String(value)];
}

function inTypeScript(mention: OptionMention | ParameterMention): string {
  if ("parameter" in mention) return mention.parameter;
  const { option, value } = mention;
  return value === undefined ? `\`${option}\`` : `\`${option}: ${JSON.stringify(value)}\``;
}
