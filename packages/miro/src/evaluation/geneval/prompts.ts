/**
 * The 553 prompts of GenEval, made as its authors made them: from the 80 names, ten colours and four relations with
 * `numpy.random.default_rng(43)`. The text that comes out is their `evaluation_metadata.jsonl`, byte for byte.
 */
import { InvalidInputError } from "../../errors.js";
import { repeatedKey } from "../../files/json-file.js";
import { pythonJson } from "../../files/python-json.js";
import { sha256 } from "../../files/sha256.js";
import { linesOf, readTextFile } from "../../files/text-file.js";
import { counted } from "../../numbers.js";
import { NumpyGenerator } from "../../random/numpy.js";
import { COLOURS, checkMetadata, type PromptMetadata, RELATIONS } from "./metadata.js";

/** The classes of the detector, in the order of COCO; three have other names than there. */
export const CLASS_NAMES: readonly string[] = (
  "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter," +
  "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee," +
  "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass," +
  "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch," +
  "potted plant,bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,microwave," +
  "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",");

/** Prompts with what their pictures have to show. */
export interface PromptSet {
  /** For people: the file, or `GenEval`. */
  readonly name: string;
  /** Of the text that the prompts were read from. */
  readonly sha256: string;
  readonly prompts: readonly PromptMetadata[];
}

/** Records that are drawn of each task but the first. */
const DRAWN = 100;
const SEED = 43;
const NUMBER_WORDS = ["", "", "two", "three", "four"];

/** `evaluation_metadata.jsonl` */
export function publishedMetadata(): string {
  const random = new NumpyGenerator(SEED);
  const repeated = (make: () => PromptMetadata) => Array.from({ length: DRAWN }, make);
  const of = (index: number) => CLASS_NAMES[index]!;
  const one = (name: string) => ({ class: name, count: 1 });
  const records: PromptMetadata[] = [
    ...random.choose(CLASS_NAMES.length, CLASS_NAMES.length).map((index) => ({
      tag: "single_object",
      include: [one(of(index))],
      prompt: `a photo of ${withArticle(of(index))}`,
    })),
    ...repeated(() => {
      const [a, b] = random.choose(CLASS_NAMES.length, 2).map(of) as [string, string];
      return {
        tag: "two_object",
        include: [one(a), one(b)],
        prompt: `a photo of ${withArticle(a)} and ${withArticle(b)}`,
      };
    }),
    ...repeated(() => {
      const name = of(random.integer(0, CLASS_NAMES.length - 1));
      const count = random.integer(2, 4);
      return {
        tag: "counting",
        include: [{ class: name, count }],
        exclude: [{ class: name, count: count + 1 }],
        prompt: `a photo of ${NUMBER_WORDS[count]} ${plural(name)}`,
      };
    }),
    // A person, the first of the classes, is asked for in no colour.
    ...repeated(() => {
      const name = of(random.integer(0, CLASS_NAMES.length - 2) + 1);
      const color = COLOURS[random.integer(0, COLOURS.length - 1)]!;
      return {
        tag: "colors",
        include: [{ ...one(name), color }],
        prompt: `a photo of ${withArticle(color)} ${name}`,
      };
    }),
    ...repeated(() => {
      const [a, b] = random.choose(CLASS_NAMES.length, 2).map(of) as [string, string];
      const relation = RELATIONS[random.integer(0, RELATIONS.length - 1)]!;
      return {
        tag: "position",
        include: [one(b), { ...one(a), position: [relation, 0] as [typeof relation, number] }],
        prompt: `a photo of ${withArticle(a)} ${relation} ${withArticle(b)}`,
      };
    }),
    ...repeated(() => {
      const [a, b] = random.choose(CLASS_NAMES.length - 1, 2).map((index) => of(index + 1)) as [string, string];
      const [c, d] = random.choose(COLOURS.length, 2).map((index) => COLOURS[index]!) as [
        (typeof COLOURS)[number],
        (typeof COLOURS)[number],
      ];
      return {
        tag: "color_attr",
        include: [
          { ...one(a), color: c },
          { ...one(b), color: d },
        ],
        prompt: `a photo of ${withArticle(c)} ${a} and ${withArticle(d)} ${b}`,
      };
    }),
  ];
  return [...new Set(records.map(pythonJson))].map((line) => `${line}\n`).join("");
}

function withArticle(name: string): string {
  return `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;
}

function plural(name: string): string {
  return name.endsWith("s") ? `${name}es` : `${name}s`;
}

/** The published prompts. */
export function publishedPrompts(): PromptSet {
  return promptSet(publishedMetadata(), "GenEval");
}

/**
 * Reads prompts of a file of JSON lines.
 *
 * @throws InvalidInputError naming file, line and field of what is wrong; MiroError when the file cannot be read
 */
export function readPromptSet(path: string): PromptSet {
  const set = promptSet(readTextFile(path), path);
  if (set.prompts.length === 0) throw new InvalidInputError(`${path}: holds no prompt`);
  return set;
}

/**
 * Reads longer texts for the published prompts, such as upstream's `evaluation_metadata_long.jsonl`: the same records
 * in the same order, each with another `prompt`.
 *
 * @throws InvalidInputError as {@link readPromptSet}, and for records that ask for something else
 */
export function readLongPrompts(path: string): PromptSet {
  const long = readPromptSet(path);
  const published = publishedPrompts().prompts;
  if (long.prompts.length !== published.length)
    throw new InvalidInputError(
      `${path}: holds ${counted(long.prompts.length, "prompt")}, expected ${published.length}`,
    );
  for (const [i, { prompt: _, ...record }] of long.prompts.entries()) {
    const { prompt, ...asked } = published[i]!;
    if (pythonJson(record) !== pythonJson(asked))
      throw new InvalidInputError(
        `${path}, line ${i + 1}: asks for something else than prompt ${i} of GenEval, ${JSON.stringify(prompt)}`,
      );
  }
  return long;
}

function promptSet(text: string, name: string): PromptSet {
  const prompts = linesOf(text).flatMap((line, i) =>
    line.trim() === "" ? [] : [parseMetadata(line, `${name}, line ${i + 1}`)],
  );
  return { name, sha256: sha256(text), prompts };
}

/**
 * A record of a line.
 *
 * @throws InvalidInputError as {@link checkMetadata}, and for what is no JSON
 */
export function parseMetadata(json: string, where: string): PromptMetadata {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new InvalidInputError(`${where}: not valid JSON: ${(error as Error).message.split("\n")[0]}`);
  }
  const key = repeatedKey(json);
  if (key !== null) throw new InvalidInputError(`${where}: the key ${JSON.stringify(key)} stands twice in one object`);
  return checkMetadata(value, where);
}
