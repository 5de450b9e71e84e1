/** The two files of an autoencoder's folder: `config.json` and its weights. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { MiroError, systemReason } from "../errors.js";

const CONFIG = "config.json";
const WEIGHTS = [
  "diffusion_pytorch_model.safetensors",
  "diffusion_pytorch_model.fp16.safetensors",
  "model.safetensors",
];

/** The folder's `config.json`. @throws MiroError naming the file */
export function readConfig(folder: string): Record<string, unknown> {
  const file = path.join(folder, CONFIG);
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new MiroError(`${file}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new MiroError(`${file}: not valid JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new MiroError(`${file}: expected a JSON object`);
  }
  return json as Record<string, unknown>;
}

/** The folder's file of weights. @throws MiroError that lists the names it may have */
export function weightsFile(folder: string): string {
  const found = WEIGHTS.map((name) => path.join(folder, name)).find((file) => existsSync(file));
  if (found === undefined) throw new MiroError(`${folder}: no weights found, expected one of ${WEIGHTS.join(", ")}`);
  return found;
}
