/** JSON files of a model: small ones, however large a hostile file is. */
import { readFileSync, statSync } from "node:fs";
import { describeStandIn } from "@miro-t2i/torch/stand-in"; // without loading libtorch
import { MiroError, systemReason } from "../errors.js";

/** No configuration or index of a model comes near this. */
const MAX_JSON_BYTES = 32 * 2 ** 20;

/** @throws MiroError naming the file when it is too large to be what it should be, or no regular file */
export function checkJsonSize(path: string): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat && !stat.isFile()) throw new MiroError(`${path}: not a regular file`);
  if (stat && stat.size > MAX_JSON_BYTES) {
    throw new MiroError(`${path}: ${stat.size} bytes are too many for this file (at most ${MAX_JSON_BYTES})`);
  }
}

/** Reads a JSON file. @throws MiroError naming the file, and for a syntax error the place */
export function readJson(path: string): unknown {
  checkJsonSize(path);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const standIn = describeStandIn(Buffer.from(text));
    if (standIn !== null) throw new MiroError(`${path}: ${standIn}`, { cause: error });
    throw new MiroError(`${path}: not valid JSON: ${(error as Error).message.split("\n")[0]}`, { cause: error });
  }
}
