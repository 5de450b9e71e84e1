/** `data.kind: emoji`: scenes of emoji, rendered and encoded once into a cache of latents. */
import { existsSync } from "node:fs";
import { compiledModule } from "../../compiled-module.js";
import { MiroError } from "../../errors.js";
import { VOCABULARY_FILE } from "../../text/vocabulary.js";
import type { DataCheck } from "../../training/batches/finding.js";
import { recipeFault } from "../../training/batches/recipe-fault.js";
import type { SourceSpec } from "../../training/batches/sources.js";
import { EMOJI_REWARD_KEYS } from "../scenes/scene-options.js";
import { type EmojiData, emojiDataSchema } from "./emoji-data.js";

export const emojiSource: SourceSpec<EmojiData> = {
  schema: emojiDataSchema,
  module: compiledModule("emoji/register.js"),
  // The emoji pictures are packages that a copy of the program is made without.
  needsClone: true,
  faults(_, { network: { coherenceKeys } }) {
    const known: readonly string[] = EMOJI_REWARD_KEYS;
    const unknown = coherenceKeys.filter((key) => !known.includes(key));
    return unknown.length === 0
      ? []
      : [
          recipeFault(
            "network.coherence_keys",
            `emoji scenes have no ${unknown.join(", ")}; they have ${known.join(", ")}`,
          ),
        ];
  },
  facts: ({ maxTextLen, autoencoder, textEncoder, scenes }) => ({
    textTokens: maxTextLen,
    autoencoder,
    textEncoder,
    release: {
      imgResolution: scenes.size,
      files: async () => {
        const { releaseVocabulary } = await import("../scenes/vocabulary-file.js");
        return { [VOCABULARY_FILE]: releaseVocabulary(scenes.vocabulary) };
      },
    },
  }),
  async check({ samples, scenes, autoencoder, textEncoder }) {
    const { checkScenes } = await import("./part-checks.js");
    return {
      samples,
      checks: [
        checkScenes(scenes, "data.scenes"),
        folderCheck("data.autoencoder", autoencoder, "emoji-autoencoder"),
        folderCheck("data.text_encoder", textEncoder, "emoji-text"),
      ],
    };
  },
  async open(data, { makesFiles, ...context }) {
    for (const [name, folder] of [
      ["data.autoencoder", data.autoencoder],
      ["data.text_encoder", data.textEncoder],
    ] as const)
      if (!existsSync(folder))
        throw new MiroError(`${name}: ${folder} is not there; train it first or name another folder`);
    const { EmojiBatches } = await import("./emoji-batches.js");
    return EmojiBatches.open({ ...context, data, makesScenes: makesFiles });
  },
};

function folderCheck(setting: string, folder: string, recipe: string): DataCheck {
  return existsSync(folder)
    ? { status: "ok", subject: setting, finding: folder }
    : { status: "missing", subject: setting, finding: `${folder} is not there`, remedy: `miro train ${recipe}` };
}
