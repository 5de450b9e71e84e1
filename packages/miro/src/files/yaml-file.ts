/** YAML files from strangers: one mapping of plain data, with the line of every key. */
import { relative } from "node:path";
import { Composer, type Document, isCollection, isMap, isScalar, LineCounter, Parser, visit } from "yaml";
import { isObject } from "../arguments.js";
import { describe, InvalidInputError, MiroError, systemReason } from "../errors.js";
import { readBounded } from "./bounded-read.js";
import { checkPlainData } from "./plain-data.js";
import { decodeText } from "./text-file.js";

/** No recipe comes near either: what it is merged and compared with may take time for each pair of keys. */
const MAX_YAML_BYTES = 4 * 2 ** 20;
const MAX_KEYS = 10_000;
/** The parser calls itself for each level; V8 ends the process where it has no stack left for a regular expression. */
const MAX_DEPTH = 100;

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
  const tokens = [...new Parser(counter.addNewLine).parse(text)];
  const keys = countKeys(tokens, (reason, offset) => refuse(counter.linePos(offset).line, reason));
  if (keys > MAX_KEYS)
    throw new InvalidInputError(`${shownPath(path)}: has more than ${MAX_KEYS} keys; at most so many are read`);
  let documents: Document.Parsed[];
  try {
    // It compares every key with every other one of its mapping.
    documents = [...new Composer({ uniqueKeys: false }).compose(tokens, true, text.length)] as Document.Parsed[];
  } catch (error) {
    throw invalidYaml(error);
  }
  const document = documents[0]!;
  if (documents.length > 1) refuse(counter.linePos(documents[1]!.range[0]).line, "a second document in one file");
  const fault = document.errors[0];
  if (fault !== undefined) {
    const reason = fault.message.split("\n")[0]!;
    refuse(counter.linePos(fault.pos[0]).line, /call stack/.test(reason) ? "nested too deep" : reason);
  }
  visit(document, {
    Map: (_, { items }) => {
      const keys = new Set<unknown>();
      for (const { key } of items) {
        if (isCollection(key))
          refuse(counter.linePos(key.range![0]).line, "a list or a mapping stands where a key should");
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

/** The number of keys, before anything is made of the tokens. @param refuse called where they are nested too deeply */
function countKeys(tokens: unknown[], refuse: (reason: string, offset: number) => never): number {
  let keyCount = 0;
  let level = tokens;
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) refuse("nested too deep", (level[0] as { offset?: number }).offset ?? 0);
    const parts: unknown[] = [];
    for (const token of level) {
      // A document holds its value, a collection its items, an item its key and value.
      const { items, key, value } = token as { items?: unknown[]; key?: unknown; value?: unknown };
      if (key !== undefined) keyCount++;
      for (const part of [...(items ?? []), key, value]) if (isObject(part)) parts.push(part);
    }
    level = parts;
  }
  return keyCount;
}

/** A path as a reader of the working directory would write it. */
export function shownPath(path: string): string {
  const short = relative(".", path);
  return short.startsWith("..") ? path : short;
}
