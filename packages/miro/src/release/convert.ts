/**
 * A checkpoint as a release folder: `config.json`, `model.safetensors`, `uncond_embedding.npy`, `release.json` and the
 * card `README.md`. Tensors pass one at a time; the finished file is read again for one forward pass. The folder
 * appears as a whole or not at all.
 */
import { readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { buildInfo, memory, scope } from "@miro-t2i/torch";
import { writeNpy } from "@miro-t2i/torch/io";
import { InvalidInputError } from "../errors.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { replaceFolder } from "../files/whole-folders.js";
import { message, option } from "../message.js";
import { counted } from "../numbers.js";
import { breathe } from "../pipeline/interruption.js";
import { countParameters } from "../pipeline/loading/checkpoint.js";
import { releaseConfigToJson } from "../pipeline/loading/release-config.js";
import { version } from "../version.js";
import { type CardOptions, writeCard } from "./card.js";
import { factsFile, type ReleaseFacts } from "./facts.js";
import { type ForwardCheck, forwardCheck } from "./forward-check.js";
import { isReleaseFolder } from "./open-folder.js";
import type { ReleaseSource } from "./source.js";
import { checkWeights, expectedTensors, type OnBytes } from "./weights.js";
import { type ReleaseDType, writeWeights } from "./write-weights.js";

/** Options of {@link convertToRelease}. */
export interface ConvertOptions {
  output: string;
  dtype: ReleaseDType;
  maxShardBytes: number;
  /** Replace a release that is there. */
  overwrite: boolean;
  card: Omit<CardOptions, "folder">;
  onMessage?: (message: string) => void;
  /** Told how much of the weights is written. */
  onBytes?: OnBytes;
  /** Stops between two tensors and between two parts of the work. */
  signal?: AbortSignal;
  /** Called with the finished folder before it gets its name. */
  onFilled?: (folder: string) => Promise<void>;
}

/** What was written. */
export interface Converted {
  output: string;
  files: string[];
  tensors: number;
  parameters: number;
  check: ForwardCheck;
}

/** Writes a release. @throws MiroError when the tensors do not fit the configuration; nothing is there then */
export async function convertToRelease(source: ReleaseSource, options: ConvertOptions): Promise<Converted> {
  const { output, dtype, onMessage = () => {}, signal } = options;
  checkOutput(output, options.overwrite, source.path);
  const { config, weights } = source;
  const expected = expectedTensors(config, weights);
  checkWeights(source.path, weights, expected);
  let check: ForwardCheck | undefined;
  let files: string[] = [];
  let parameters = 0;
  await replaceFolder(
    output,
    async (folder) => {
      onMessage(`writing ${counted(expected.size, "tensor")} as ${dtype}`);
      await writeWeights(folder, weights, expected, options);
      scope(() => writeNpy(join(folder, "uncond_embedding.npy"), source.uncondEmbedding.float().contiguous()));
      const { network, preconditioning, ...rest } = releaseConfigToJson(config);
      const json = { network, preconditioning, ...rest, dtype };
      writeFileAtomic(join(folder, "config.json"), `${JSON.stringify(json, null, 2)}\n`, { overwrite: true });
      await breathe(signal);
      await source.copyParts(folder, dtype, signal);
      await breathe(signal);
      onMessage("checking the network by one forward pass");
      memory.emptyCache(); // what the tensors left, one after the other, is not what the network wants
      check = forwardCheck(folder, dtype);
      parameters = countParameters(folder);
      const facts = factsFile(factsOf(source, { dtype, check, parameters }));
      writeFileAtomic(join(folder, facts.name), facts.text, { overwrite: true });
      await breathe(signal);
      await options.onFilled?.(folder);
      writeCard({ ...options.card, folder });
      files = readdirSync(folder, { recursive: true, encoding: "utf8" })
        .filter((name) => statSync(join(folder, name)).isFile())
        .sort();
    },
    options,
  );
  return { output, files, tensors: expected.size, parameters, check: check! };
}

function factsOf(
  { average, step, training }: ReleaseSource,
  figures: Pick<ReleaseFacts, "dtype" | "check" | "parameters">,
): ReleaseFacts {
  const versions = { miro: version(), torch: buildInfo().torchVersion };
  return { ...figures, average, step, training, versions, samples: null };
}

/**
 * A folder is replaced only where it is an earlier release, and that was asked for.
 * @param source what the release is made of, which must not go with the earlier one
 */
export function checkOutput(output: string, overwrite: boolean, source: string): void {
  const stat = statSync(output, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) throw new InvalidInputError(message`${option("output")}: ${output} is a file`);
  if (readdirSync(output).length === 0) return;
  if (!isReleaseFolder(output))
    throw new InvalidInputError(
      message`${option("output")}: ${output} holds files and is no release; name a new folder`,
    );
  if (!overwrite)
    throw new InvalidInputError(
      message`${option("output")}: ${output} holds a release; ${option("overwrite", true)} replaces it`,
    );
  if (realpathSync(source).startsWith(`${realpathSync(output)}/`))
    throw new InvalidInputError(
      message`${option("output")}: ${output} holds ${source}, which would go with it; name another folder`,
    );
}
