/** YAML files from strangers: one mapping of plain data, with the line of every key. */

import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { isMap, isScalar, LineCounter, parseDocument } from "yaml";
import { isObject } from "../arguments.js";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { checkPlainData } from "./plain-data.js";
import { decodeText } from "./text-file.js";

/** What a YAML file holds. */
export interface YamlFile {
  json: Record<string, unknown>;
  /** The line of every key, from 1, by its path: `trainer.batch_size`. */
  lines: Map<string, number>;
}

/**
 * Reads a YAML file.
 *
 * @param expected what the file is a mapping of, for the error
 * @throws InvalidInputError naming file and line of what is wrong; MiroError when the file cannot be read
 */
export function readYamlFile(path: string, expected = "sections"): YamlFile {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new MiroError(`${path}: ${systemReason(error)}`, { cause: error });
  }
  const counter = new LineCounter();
  const text = decodeText(bytes, shownPath(path));
  const invalidYaml = (error: unknown) => {
    const reason = error instanceof RangeError ? "nested too deep" : (error as Error).message.split("\n")[0];
    return new InvalidInputError(`${shownPath(path)}: not valid YAML: ${reason}`);
  };
  let document: ReturnType<typeof parseDocument>;
  try {
    document = parseDocument(text, { lineCounter: counter });
  } catch (error) {
    throw invalidYaml(error);
  }
  const fault = document.errors[0];
  if (fault !== undefined)
    throw new InvalidInputError(
      `${shownPath(path)}:${fault.linePos?.[0].line ?? 1}: not valid YAML: ${fault.message.split("\n")[0]!.split(" at line ")[0]}`,
    );
  let json: unknown;
  try {
    json = document.toJS();
  } catch (error) {
    throw invalidYaml(error);
  }
  if (!isObject(json)) throw new InvalidInputError(`${shownPath(path)}: expected a mapping of ${expected}`);
  const lines = new Map<string, number>();
  const walk = (node: unknown, prefix: string): void => {
    if (!isMap(node)) return;
    for (const { key, value } of node.items) {
      if (!isScalar(key)) continue;
      const place = `${prefix}${String(key.value)}`;
      lines.set(place, counter.linePos(key.range?.[0] ?? 0).line);
      walk(value, `${place}.`);
    }
  };
  walk(document.contents, "");
  checkPlainData(json, (place) => `${shownPath(path)}:${lines.get(place) ?? 1}`);
  return { json, lines };
}

/** A path as a reader of the working directory would write it. */
export function shownPath(path: string): string {
  const short = relative(".", path);
  return short.startsWith("..") ? path : short;
}
