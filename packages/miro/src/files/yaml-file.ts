/** YAML files from strangers: one mapping of plain data, with the line of every key. */

import { relative } from "node:path";
import { type Document, isMap, isScalar, LineCounter, parseDocument, visit } from "yaml";
import { isObject } from "../arguments.js";
import { describe, InvalidInputError, MiroError, systemReason } from "../errors.js";
import { readBounded } from "./bounded-read.js";
import { checkPlainData } from "./plain-data.js";
import { decodeText } from "./text-file.js";

/** No recipe comes near either: what it is merged and compared with may take time for each pair of keys. */
const MAX_YAML_BYTES = 4 * 2 ** 20;
const MAX_KEYS = 10_000;

/** What a YAML file holds. */
export interface YamlFile {
  json: Record<string, unknown>;
  /** File and line of a key (`recipe.yaml:3`) by its path in the mapping: `trainer.batch_size`. */
  placeOf(key: string): string;
}

/**
 * Reads a YAML file.
 *
 * @param expected what the file is a mapping of, for the error
 * @param mayBeEmpty whether a file of comments alone is a mapping of nothing
 * @throws InvalidInputError naming file and line of what is wrong; MiroError when the file cannot be read
 */
export function readYamlFile(path: string, expected = "sections", mayBeEmpty = false): YamlFile {
  let bytes: Buffer;
  try {
    bytes = readBounded(path, MAX_YAML_BYTES);
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new MiroError(`${path}: ${systemReason(error)}`, { cause: error });
  }
  const counter = new LineCounter();
  const text = decodeText(bytes, shownPath(path));
  const invalidYaml = (error: unknown) => {
    const reason = error instanceof RangeError ? "nested too deep" : (error as Error).message.split("\n")[0];
    return new InvalidInputError(`${shownPath(path)}: not valid YAML: ${reason}`);
  };
  const refuse = (line: number, reason: string): never => {
    throw new InvalidInputError(`${shownPath(path)}:${line}: not valid YAML: ${reason}`);
  };
  let document: Document.Parsed;
  try {
    // The parser compares every key with every other one of its mapping.
    document = parseDocument(text, { lineCounter: counter, uniqueKeys: false });
  } catch (error) {
    throw invalidYaml(error);
  }
  const fault = document.errors[0];
  if (fault !== undefined) {
    const reason = fault.message.split("\n")[0]!.split(" at line ")[0]!;
    refuse(fault.linePos?.[0].line ?? 1, /call stack/.test(reason) ? "nested too deep" : reason);
  }
  let keyCount = 0;
  visit(document, {
    Map: (_, { items }) => {
      keyCount += items.length;
      if (keyCount > MAX_KEYS)
        throw new InvalidInputError(`${shownPath(path)}: has more than ${MAX_KEYS} keys; at most so many are read`);
      const keys = new Set<unknown>();
      for (const { key } of items) {
        const value = isScalar(key) ? key.value : key;
        if (keys.has(value))
          refuse(isScalar(key) ? counter.linePos(key.range![0]).line : 1, `the key ${describe(value)} stands twice`);
        keys.add(value);
      }
    },
  });
  let json: unknown;
  try {
    json = document.toJS();
  } catch (error) {
    throw invalidYaml(error);
  }
  if (json === null && mayBeEmpty) json = {};
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
  const placeOf = (key: string) => `${shownPath(path)}:${lines.get(key) ?? 1}`;
  checkPlainData(json, placeOf);
  return { json, placeOf };
}

/** A path as a reader of the working directory would write it. */
export function shownPath(path: string): string {
  const short = relative(".", path);
  return short.startsWith("..") ? path : short;
}
