/** Whether the frozen models of a recipe are there, and fit its network; nothing of their weights is read. */
import { join } from "node:path";
import { MiroError } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { readJson } from "../../files/whole-files.js";
import type { RinConfig } from "../../networks/config.js";
import { cachedModel, isRepositoryName } from "../../pipeline/loading/hub.js";
import { fetchTextEncoder, fetchVae, type PartSource } from "../../pipeline/loading/sources.js";
import { T5Encoder } from "../../text/t5.js";
import type { DataCheck } from "./finding.js";
import { type SourceData, sourceFacts } from "./sources.js";

/** A frozen model, and how it is looked at. */
interface Part {
  setting: string;
  name: string | undefined;
  /** Its folder, where its files are there. */
  fetch(part: PartSource): Promise<string>;
  /** What in its folder does not fit the network. */
  fault(folder: string): string | null;
}

/** Looks at the text encoder and the autoencoder that a recipe names. */
export async function checkFrozenParts(data: SourceData, network: RinConfig): Promise<DataCheck[]> {
  const { textEncoder, autoencoder } = sourceFacts(data, network);
  const parts: Part[] = [
    {
      setting: "data.text_encoder",
      name: textEncoder,
      fetch: (part) => fetchTextEncoder(part, {}),
      fault: (folder) => widthFault(folder, network),
    },
    {
      setting: "data.autoencoder",
      name: autoencoder,
      fetch: (part) => fetchVae(part, {}),
      fault: (folder) => channelsFault(folder, network),
    },
  ];
  const checks: DataCheck[] = [];
  for (const part of parts) if (part.name !== undefined) checks.push(await checkPart(part, part.name));
  return checks;
}

async function checkPart({ setting, fetch, fault }: Part, name: string): Promise<DataCheck> {
  const isLocal = isFolder(name);
  const remedy = `${setting}=DIR names another folder`;
  if (!isLocal && !isRepositoryName(name))
    return { status: "missing", subject: setting, finding: `${name} is not there`, remedy };
  const source = isLocal ? null : await cachedModel(name, setting);
  const absent: DataCheck = {
    status: "note",
    subject: setting,
    finding: `the repository ${name} is not in the cache; the start downloads it`,
    remedy: `${setting}=DIR names a folder; without a network, fetch it into the cache before`,
  };
  if (!isLocal && source === null) return absent;
  let folder: string;
  try {
    folder = await fetch({ name, parameter: setting, source, prefix: "" });
  } catch (error) {
    if (!(error instanceof MiroError)) throw error;
    if (!isLocal) return absent;
    return { status: "missing", subject: setting, finding: error.message.replace(`${setting}: `, ""), remedy };
  }
  try {
    const found = fault(folder);
    if (found === null) return { status: "ok", subject: setting, finding: name };
    return { status: "missing", subject: setting, finding: `${name}: ${found}`, remedy };
  } catch (error) {
    if (!(error instanceof MiroError)) throw error;
    return { status: "missing", subject: setting, finding: error.message, remedy };
  }
}

function widthFault(folder: string, { labelDim }: RinConfig): string | null {
  const path = join(folder, "config.json");
  const { dModel } = T5Encoder.configFromJson(readJson(path), path);
  return dModel === labelDim ? null : `its states are ${dModel} wide, network.label_dim is ${labelDim}`;
}

function channelsFault(folder: string, { numInputChannels }: RinConfig): string | null {
  const config = readJson(join(folder, "config.json")) as { latent_channels?: unknown } | null;
  const channels = config?.latent_channels ?? 4;
  return channels === numInputChannels
    ? null
    : `its latents have ${String(channels)} channels, network.num_input_channels is ${numInputChannels}`;
}
