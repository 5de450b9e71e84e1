/** The two files of an autoencoder's folder: `config.json` and its weights. */
import { existsSync } from "node:fs";
import path from "node:path";
import { nn, scope } from "@miro-t2i/torch";
import { loadModuleInPieces, SafetensorsFile, type StoredTensor } from "@miro-t2i/torch/io";
import type { z } from "zod";
import { checkName } from "../arguments.js";
import { InvalidInputError, MiroError } from "../errors.js";
import { expectedAndReceived } from "../expectations.js";
import { readJson } from "../files/json-file.js";
import { filled, type Pieces } from "../pieces.js";
import type { LoadAutoencoderOptions } from "./autoencoder.js";

const CONFIG = "config.json";
const WEIGHTS = [
  "diffusion_pytorch_model.safetensors",
  "diffusion_pytorch_model.fp16.safetensors",
  "model.safetensors",
];

/** The folder's `config.json`. @throws MiroError naming the file */
export function readConfig(folder: string): Record<string, unknown> {
  checkName("folder", folder, "the name of a folder");
  const file = path.join(folder, CONFIG);
  const json = readJson(file);
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new MiroError(`${file}: expected a JSON object`);
  }
  return json as Record<string, unknown>;
}

/**
 * Checks the content of a `config.json`.
 *
 * @param source the file, for messages
 * @throws InvalidInputError naming every field that is missing or wrong
 */
export function parseConfig<S extends z.ZodType>(schema: S, json: unknown, source: string): z.output<S> {
  checkName("source", source, "the name of a file");
  const result = schema.safeParse(json, { error: expectedAndReceived });
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join(".") || "config"}: ${issue.message}`);
  throw new InvalidInputError(`${source}: ${problems.join("; ")}`);
}

/** The folder's file of weights. @throws MiroError that lists the names it may have */
function weightsFile(folder: string): string {
  const found = WEIGHTS.map((name) => path.join(folder, name)).find((file) => existsSync(file));
  if (found === undefined) throw new MiroError(`${folder}: no weights found, expected one of ${WEIGHTS.join(", ")}`);
  return found;
}

/**
 * Number of values in the folder's file of weights, from its header.
 * @throws MiroError or TorchError naming the file
 */
export function countStoredWeights(folder: string): number {
  checkName("folder", folder, "the name of a folder");
  using file = SafetensorsFile.open(weightsFile(folder));
  return file.keys().reduce((sum, key) => sum + file.info(key).shape.reduce((product, size) => product * size, 1), 0);
}

/** How to make the autoencoder that a `config.json` describes. */
export interface Plan<M extends nn.Module> {
  /** Weights that it has at least: a file that holds fewer is refused before anything is allocated. */
  leastWeights: number;
  create: () => M;
  /** What a stored tensor is called now, and the shape to see it in. */
  rename?: (key: string, shape: readonly number[]) => { name: string; shape?: readonly number[] };
}

/**
 * The autoencoder of a folder, in evaluation mode and without gradients.
 * @throws MiroError or TorchError naming the file and what is wrong with it
 */
export function* loadWeights<M extends nn.Module>(
  folder: string,
  { leastWeights, create, rename = (name) => ({ name }) }: Plan<M>,
  options: LoadAutoencoderOptions,
): Pieces<M> {
  const weights = weightsFile(folder);
  using file = SafetensorsFile.open(weights);
  const stored = new Map<string, StoredTensor>();
  let held = 0;
  for (const key of file.keys()) {
    const shapeInFile = file.info(key).shape;
    held += shapeInFile.reduce((product, size) => product * size, 1);
    const { name, ...shape } = rename(key, shapeInFile);
    stored.set(name, { file, key, ...shape });
  }
  if (leastWeights > held) {
    throw new MiroError(
      `${path.join(folder, CONFIG)}: describes at least ${leastWeights} weights, ${weights} holds ${held}`,
    );
  }
  const fresh = () => scope(() => nn.init.skipped(create));
  const model = yield* filled(fresh, function* (model) {
    try {
      yield* loadModuleInPieces(model, stored, options);
    } catch (error) {
      if ((error as Error).message.includes(weights)) throw error;
      throw new MiroError(`${weights}: ${(error as Error).message}`, { cause: error });
    }
  });
  return model.requiresGrad_(false).eval();
}
