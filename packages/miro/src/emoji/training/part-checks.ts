/**
 * What a dry run looks at in the recipes of the bundled model and its parts: the scenes, the parts that they build on,
 * and the network, through which one blank picture goes, so that sizes that do not fit each other are found. Nothing is
 * drawn and no weights are initialised.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { nn, noGrad, ones, scope, type Tensor, zeros } from "@miro-t2i/torch";
import type { Autoencoder } from "../../autoencoder/autoencoder.js";
import { PatchAutoencoder } from "../../autoencoder/patch-autoencoder.js";
import { MiroError } from "../../errors.js";
import { readJson } from "../../files/whole-files.js";
import { modelOrBundled } from "../../pipeline/loading/bundled.js";
import { cachedModel, isRepositoryName } from "../../pipeline/loading/hub.js";
import { locateModel } from "../../pipeline/loading/located-model.js";
import { DEFAULT_TEXT_ENCODER } from "../../pipeline/loading/parts.js";
import { fetchTextEncoder } from "../../pipeline/loading/sources.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { type DataCheck, finding, findingLater } from "../../training/batches/finding.js";
import type { TaskReport } from "../../training/loop/tasks.js";
import { EmojiClassifier } from "../evaluation/classifier.js";
import type { ResolvedSceneOptions } from "../scenes/scene-options.js";
import { vocabularyOf } from "../scenes/scenes.js";
import { decoderOf } from "./autoencoder.js";
import { clipNetwork } from "./clip.js";
import type { AutoencoderRecipe, ClassifierRecipe, ClipRecipe, TextEncoderRecipe } from "./recipes.js";
import { checkLatents } from "./redrawing.js";
import { textEncoderNetwork } from "./text-encoder.js";

const FLOAT = 4;

/** Looks at a recipe of kind `autoencoder`. */
export async function checkAutoencoder(recipe: AutoencoderRecipe): Promise<TaskReport> {
  const { scenes, network: sizes, refineDecoderOf: from, loss } = recipe;
  const checks = [checkScenes(scenes)];
  let network: PatchAutoencoder | null = null;
  if (from !== undefined) {
    const check = finding(
      "refine_decoder_of",
      () => {
        if (!existsSync(from)) throw new MiroError(`${from} is not there`);
        network = decoderOf(from, sizes);
        return from;
      },
      "miro train emoji-autoencoder makes one: refine_decoder_of=runs/emoji-autoencoder/export",
    );
    checks.push(check);
    if (network === null) return report(checks, null, scenes);
  }
  const made = passing(scenes, () => {
    network ??= new PatchAutoencoder(sizes);
    return [network, (x) => void network!.decode(network!.encode(x).mean)];
  });
  checks.push(made.check);
  if (loss.redrawn !== undefined && made.check.status === "ok")
    checks.push(await checkRedrawing(loss.redrawn.model, { autoencoder: made.network!, size: scenes.size }));
  return report(checks, made.network, scenes);
}

/**
 * The diffusion network that redraws scenes: that it and its text encoder are there, and that it knows such latents.
 */
async function checkRedrawing(model: string, latents: { autoencoder: Autoencoder; size: number }): Promise<DataCheck> {
  const subject = "loss.redrawn.model";
  const remedy = "miro train emoji makes one: loss.redrawn.model=runs/emoji";
  const name = modelOrBundled(model);
  if (!existsSync(name) && isRepositoryName(name) && (await cachedModel(name, subject)) === null) {
    const absent = `the repository ${name} is not in the cache; the start downloads it`;
    return { status: "note", subject, finding: absent, remedy };
  }
  const check = async () => {
    if (!existsSync(name) && !isRepositoryName(name)) throw new MiroError(`${name} is not there`);
    const located = await locateModel(name, {});
    try {
      using files = located.open();
      checkLatents(files.config.network, latents, model);
      await fetchTextEncoder(located.part("textEncoder", undefined, DEFAULT_TEXT_ENCODER), {});
    } finally {
      located.close();
    }
    return model;
  };
  const found = await findingLater(subject, check, remedy);
  // To the recipe it is one key, whichever option of the loading is meant.
  return { ...found, finding: found.finding.replace(/^(?:model|textEncoder): /, "") };
}

/** Looks at a recipe of kind `text-encoder`. */
export function checkTextEncoder(recipe: TextEncoderRecipe): TaskReport {
  const { scenes, tokenizer } = recipe;
  const { check, network } = passing(scenes, () => {
    const network = textEncoderNetwork(recipe, tokenizer.vocabSize);
    const text = () => network.text.forward(zeros([1, 1], { dtype: "int64" }), ones([1, 1], { dtype: "bool" }));
    return [
      network,
      (x) => {
        network.embedPictures(x);
        network.embedStates(text(), ones([1, 1], { dtype: "bool" }));
      },
    ];
  });
  return report([checkScenes(scenes), check], network, scenes);
}

/** Looks at a recipe of kind `clip`. */
export async function checkClip(recipe: ClipRecipe): Promise<TaskReport> {
  const { scenes, textEncoder } = recipe;
  const text = await checkText(textEncoder);
  const checks = [checkScenes(scenes), text];
  if (text.status === "missing") return report(checks, null, scenes);
  const { check, network } = passing(scenes, () => {
    const { dModel } = textConfig(textEncoder);
    const network = clipNetwork(recipe, dModel, "0".repeat(64));
    return [
      network,
      (x) => {
        network.clip.embedPictures(x);
        network.clip.embedTexts(zeros([1, 1, dModel]), ones([1, 1], { dtype: "bool" }));
      },
    ];
  });
  return report([...checks, check], network, scenes);
}

/** Looks at a recipe of kind `classifier`. */
export function checkClassifier({ scenes }: ClassifierRecipe): TaskReport {
  const found = checkScenes(scenes);
  if (found.status === "missing") return report([found], null, scenes);
  const { check, network } = passing(scenes, () => {
    const network = new EmojiClassifier({ labels: vocabularyOf(scenes).map(({ label }) => label) });
    return [network, (x) => void network.forward(x)];
  });
  return report([found, check], network, scenes);
}

/** Looks at the scenes of a recipe. @param setting where they stand in it */
export function checkScenes(scenes: ResolvedSceneOptions, setting = "scenes"): DataCheck {
  return finding(setting, () => `${vocabularyOf(scenes).length} things, in pictures of ${scenes.size} pixels`);
}

/** The frozen text encoder: that it has a tokenizer, and weights that fit its configuration. */
function checkText(folder: string): Promise<DataCheck> {
  const check = async () => {
    if (!existsSync(folder)) throw new MiroError(`${folder} is not there`);
    await Tokenizer.fromFile(folder);
    (await T5Encoder.fromPretrained(folder)).dispose();
    return folder;
  };
  const remedy = "miro train emoji-text makes one: text_encoder=runs/emoji-text/export";
  return findingLater("text_encoder", check, remedy);
}

function textConfig(folder: string) {
  const path = join(folder, "config.json");
  return T5Encoder.configFromJson(readJson(path), path);
}

/** Makes a network and lets one blank picture through. */
function passing<N extends nn.Module>(
  { size }: ResolvedSceneOptions,
  make: () => [network: N, pass: (pictures: Tensor) => void],
): { check: DataCheck; network: N | null } {
  let network: N | null = null;
  const check = finding("network", () => {
    const [made, pass] = scope(() => nn.init.skipped(make));
    network = made;
    noGrad(() => scope(() => pass(zeros([1, 3, size, size]))));
    return `takes pictures of ${size} pixels`;
  });
  return { check, network };
}

/** Of a picture itself and the noisy one that the network sees. */
function report(checks: DataCheck[], network: nn.Module | null, { size }: ResolvedSceneOptions): TaskReport {
  return { checks, network, sampleBytes: 2 * 3 * FLOAT * size ** 2 };
}
