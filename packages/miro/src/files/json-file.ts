/**
 * JSON files of a model: small ones, however large a hostile file is. Texts are read as everywhere (text-file.ts); a
 * key that stands twice in an object is refused, as readers differ in which of its values counts.
 */
import { readFileSync, statSync } from "node:fs";
import { describeStandIn, STAND_IN_BYTES } from "@miro-t2i/torch/stand-in"; // without loading libtorch
import type { z } from "zod";
import { describe, InvalidInputError, MiroError, systemReason } from "../errors.js";
import { checkContent } from "../expectations.js";
import { decodeText } from "./text-file.js";

/** No configuration or index of a model comes near this. */
const MAX_JSON_BYTES = 32 * 2 ** 20;

/** Reads a JSON file. @throws MiroError naming the file, and for a syntax error the place */
export function readJson(path: string, maxBytes = MAX_JSON_BYTES): unknown {
  let bytes: Buffer;
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw new MiroError(`${path}: not a regular file`);
    if (stat.size > maxBytes) {
      throw new MiroError(`${path}: ${stat.size} bytes are too many for this file (at most ${maxBytes})`);
    }
    bytes = readFileSync(path);
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
  return parseJson(bytes, path);
}

/**
 * Parses the content of a JSON file.
 *
 * @throws InvalidInputError naming the file, and what it is instead, where its JSON breaks, or the key that stands
 *   twice
 */
export function parseJson(bytes: Uint8Array, path: string): unknown {
  const standIn = (): string | null => describeStandIn(Buffer.from(bytes.subarray(0, STAND_IN_BYTES)));
  let text: string;
  let value: unknown;
  try {
    text = decodeText(bytes, path);
    value = JSON.parse(text);
  } catch (error) {
    const instead = standIn();
    if (instead !== null) throw new InvalidInputError(`${path}: ${instead}`, { cause: error });
    if (error instanceof MiroError) throw error;
    throw new InvalidInputError(`${path}: not valid JSON: ${(error as Error).message.split("\n")[0]}`, {
      cause: error,
    });
  }
  const key = repeatedKey(text);
  if (key !== null)
    throw new InvalidInputError(`${path}: the key ${describe(key)} stands twice in one object; leave one`);
  return value;
}

/** Where strings begin and end, an escape in one, and what opens, closes and separates outside of them. */
const TOKEN = /\\.|["{}[\]:]/g;

/** The first key that stands twice in an object of a text that is known to be JSON, or null. */
export function repeatedKey(json: string): string | null {
  const open: Set<unknown>[] = [];
  let start = -1; // of the string that is open
  let last = "";
  for (const { 0: token, index } of json.matchAll(TOKEN)) {
    if (token === '"') {
      if (start >= 0) last = json.slice(start, index + 1);
      start = start < 0 ? index : -1;
    } else if (start >= 0) continue;
    else if (token === "{" || token === "[") open.push(new Set());
    else if (token === "}" || token === "]") open.pop();
    else {
      const key = JSON.parse(last) as string;
      const keys = open.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return null;
}

/** What a JSON file holds, checked. @throws MiroError naming the file and, where its content is wrong, the field */
export function parseJsonFile<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  return checkContent(schema, readJson(path), path);
}
