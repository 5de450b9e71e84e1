/**
 * The card of the bundled model: a text with names in double braces, in place of which the figures come that the
 * evaluation and the recipes of the parts have measured. What the text tells of how an edition came about is prose,
 * and whoever makes an edition writes its part of it.
 */
import { join } from "node:path";
import { z } from "zod";
import { InvalidInputError } from "../../errors.js";
import { parseJsonFile } from "../../files/json-file.js";
import type { ReleaseConfig } from "../../pipeline/loading/release-config.js";
import { table } from "../../release/card.js";
import type { WholeFigures } from "./figures.js";

/** What a card is made of. */
export interface EmojiCardOptions {
  config: ReleaseConfig;
  /** Things that the model knows. */
  things: number;
  /** Elements of the network. */
  parameters: number;
  figures: WholeFigures;
  /** What the recipes of the parts measured. */
  parts: PartFigures;
}

const partSchema = <S extends z.ZodRawShape>(shape: S) => z.object({ figures: z.object(shape) });
const autoencoderSchema = partSchema({ psnr: z.number(), background_error: z.number() });
const textSchema = partSchema({
  retrieval_of_512: z.number(),
  wrong_caption_told: z.number(),
  one_found: z.number(),
  first_found: z.number(),
  second_found: z.number(),
});
const classifierSchema = partSchema({ top1: z.number(), top5: z.number() });

/** Figures of the parts, by part. */
export interface PartFigures {
  autoencoder: z.output<typeof autoencoderSchema>["figures"];
  text: z.output<typeof textSchema>["figures"];
  classifier: z.output<typeof classifierSchema>["figures"];
}

/** What `training.json` beside each part's weights says. @throws InvalidInputError naming the file */
export function readPartFigures(model: string, classifier: string): PartFigures {
  return {
    autoencoder: figuresIn(join(model, "vae"), autoencoderSchema),
    text: figuresIn(join(model, "text_encoder"), textSchema),
    classifier: figuresIn(classifier, classifierSchema),
  };
}

function figuresIn<T>(folder: string, schema: z.ZodType<{ figures: T }>): T {
  return parseJsonFile(join(folder, "training.json"), schema).figures;
}

const ORDINALS = [
  "zeroth",
  "first",
  "second",
  "third",
  "fourth",
  "fifth",
  "sixth",
  "seventh",
  "eighth",
  "ninth",
  "tenth",
];
const NUMBERS = ["", "one", "two", "three", "four", "five"];

const ordinal = (n: number) => ORDINALS[n] ?? `${n}th`;
const percent = (share: number) => `${Math.round(100 * share)} %`;
const percent1 = (share: number) => `${(100 * share).toFixed(1)} %`;
const list = (items: readonly string[]) => items.join(", ");
const stepsAcross = ({ borders }: { borders: Record<string, number> }) =>
  list(["8", "16", "32"].map((side) => borders[side]!.toFixed(2)));
const FRACTIONS = ["", "all", "half", "a third", "a quarter", "a fifth", "a sixth", "a seventh", "an eighth"];

/** Fills the names in double braces. @throws InvalidInputError for a name that there is no value for */
export function fillCard(template: string, options: EmojiCardOptions): string {
  const values = cardValues(options);
  return template.replace(/\{\{([\w.]+)\}\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new InvalidInputError(`the card's text: there is no figure {{${name}}}`);
    return value;
  });
}

/** Every figure that the text may name, as it stands in the card. */
function cardValues({ config, things, parameters, figures, parts }: EmojiCardOptions): Record<string, string> {
  const { network, settings } = config;
  const { edition, earlier, parts: found } = figures;
  const { autoencoder, text, classifier } = parts;
  const { everyThird, everyday, hundred, counts, relations, aliases, rewards, edges, samples, detector } = found;
  const ofForm = (form: "plain" | "coloured") => ({
    [`${form}.top1`]: percent1(everyThird[form].top1),
    [`${form}.top5`]: percent1(everyThird[form].top5),
    [`${form}.background`]: percent(everyThird[form].background),
    [`${form}.distance`]: everyThird[form].backgroundDistance.toFixed(1),
    [`everyday.${form}.top1`]: percent(everyday[form].top1),
    [`everyday.${form}.top5`]: percent(everyday[form].top5),
    ...(earlier && { [`earlier.${form}`]: `${percent1(earlier[form].top1)}, ${percent1(earlier[form].top5)}` }),
  });
  const each = (of: "right" | "counted") =>
    list(Object.entries(counts.counts).map(([count, one]) => `${NUMBERS[Number(count)]} ${percent(one[of])}`));
  const groups = Object.entries(everyThird.plain.groups)
    .filter(([name]) => name !== "everyday")
    .sort(([, a], [, b]) => b.top1 - a.top1);
  const [weakest] = groups.at(-1)!;
  const renders = edges.renders.sharpness / edges.drawn.sharpness;
  return {
    ...ofForm("plain"),
    ...ofForm("coloured"),
    side: String(settings.img_resolution),
    things: String(things),
    latents: `${network.numInputChannels} × ${network.dataSize} × ${network.dataSize}`,
    tokens: String((network.dataSize / network.patchSize) ** 2),
    parameters: (parameters / 1e6).toFixed(1),
    edition: ordinal(edition),
    "autoencoder.psnr": autoencoder.psnr.toFixed(1),
    "autoencoder.background": autoencoder.background_error.toFixed(1),
    "text.retrieval": percent(text.retrieval_of_512),
    "text.wrong_told": percent(text.wrong_caption_told),
    "text.one": percent(text.one_found),
    "text.first": percent(text.first_found),
    "text.second": percent(text.second_found),
    "classifier.top1": percent1(classifier.top1),
    "classifier.top5": percent1(classifier.top5),
    "classifier.top1_rounded": percent(classifier.top1),
    steps: String(figures.settings.steps),
    shift: String(figures.settings.shift),
    guidance: String(figures.settings.guidanceScale),
    seed: String(figures.settings.seed),
    "edges.drawn.steps": stepsAcross(edges.drawn),
    "edges.drawn.coherence": edges.drawn.coherence.toFixed(2),
    "edges.renders.steps": stepsAcross(edges.renders),
    "edges.renders.coherence": edges.renders.coherence.toFixed(2),
    detail: FRACTIONS[Math.round(renders)] ?? percent(1 / renders),
    "hundred.top1": percent(hundred.plain.top1),
    "hundred.top5": percent(hundred.plain.top5),
    groups: list(groups.map(([name, { top1 }]) => `${name} ${percent(top1)}`)),
    weakest: `${weakest[0]!.toUpperCase()}${weakest.slice(1)}`,
    "everyday.things": String(everyday.plain.pictures),
    "counts.names": String(counts.counts["1"]!.pictures),
    "counts.counted": percent(counts.counted),
    "counts.counted.each": each("counted"),
    "counts.right": percent(counts.right),
    "counts.right.each": each("right"),
    "relations.pairs": String(Object.values(relations.relations)[0]!.pictures),
    "relations.placed": percent(relations.placed),
    "relations.both": percent(relations.both),
    "detector.counted": percent(detector.counts.counted),
    "detector.right": percent(detector.counts.right),
    "detector.placed": percent(detector.relations.placed),
    "detector.both": percent(detector.relations.both),
    "aliases.names": String(aliases.aliases.pictures),
    "aliases.top1": percent(aliases.aliases.top1),
    "aliases.top5": percent(aliases.aliases.top5),
    "sentences.top1": percent(aliases.sentences.top1),
    "sentences.top5": percent(aliases.sentences.top5),
    ...(earlier && {
      "earlier.edition": ordinal(edition - 1),
      "earlier.counts": percent(earlier.counts.right),
      "earlier.both": percent(earlier.relations.both),
    }),
    "rewards.summary": rewardsSummary(rewards),
    "rewards.table": rewardsTable(rewards),
    unchosen: String(samples.prompts.length),
  };
}

type Rewards = WholeFigures["parts"]["rewards"];

function rewardsSummary(rewards: Rewards): string {
  const axes = Object.entries(rewards);
  if (axes.every(([, { monotone, rises }]) => monotone && rises)) return "No measure ever falls:";
  const falls = axes.map(
    ([key, axis]) =>
      `\`${key}\` ${axis.rises ? "rises" : "does not rise"}, and falls by at most ${percent(axis.largestFall)} of its range on the way`,
  );
  return `${falls.join("; ")}:`;
}

function rewardsTable(rewards: Rewards): string {
  const [first] = Object.values(rewards);
  const rows = Object.entries(rewards).map(([key, { measure, values }]) => [
    `\`${key}\` → ${measure}`,
    ...values.map((value) =>
      Math.max(...values) <= 1 ? percent(value) : value.toFixed(Math.max(...values) < 20 ? 1 : 0),
    ),
  ]);
  return table(["target", ...first!.targets.map(String)], rows);
}
