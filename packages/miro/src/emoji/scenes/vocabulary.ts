/**
 * The things that scenes show: Microsoft's Fluent emoji in the 3D style (npm `@lobehub/fluent-emoji-3d`, MIT) with the
 * English names of CLDR (npm `emojibase-data`, MIT). Sampling needs neither: a clone has both, an application installs
 * them beside `miro-t2i`.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { InvalidInputError, invalid } from "../../errors.js";
import { message } from "../../message.js";
import { articleOf, pluralOf, takesArticle } from "./grammar.js";

/** One thing that can be drawn and named. */
export interface EmojiEntry {
  /** File name of the picture without its ending: lower-case code points, `1f34e`. */
  readonly code: string;
  /** CLDR's English name, the word a caption normally uses. */
  readonly label: string;
  /** Other names used now and then in captions ("apple"); each belongs to this entry only. */
  readonly aliases: readonly string[];
  /** "a", "an", or "" for names that take none (plurals and materials: "cherries", "bread"). */
  readonly article: "a" | "an" | "";
  /** "red apples"; used by counts of two to five. Equal to the label where `article` is "". */
  readonly plural: string;
  readonly group: number;
  /** What people look for it by, and captions do not say: "puppy". */
  readonly tags: readonly string[];
}

/** Where a vocabulary comes from: a named list or explicit labels. */
export type VocabularySelection = "everyday" | "animals" | "core" | readonly string[];

/** Everyday things with outlines that differ at a glance. Value: other names. */
const EVERYDAY: Readonly<Record<string, readonly string[]>> = {
  "red apple": ["apple"],
  lemon: [],
  banana: [],
  pineapple: [],
  grapes: [],
  watermelon: ["slice of watermelon"],
  strawberry: [],
  cherries: [],
  "kiwi fruit": ["kiwi"],
  avocado: [],
  eggplant: ["aubergine"],
  carrot: [],
  "ear of corn": ["corn on the cob", "corn"],
  "hot pepper": ["chili pepper"],
  broccoli: [],
  mushroom: ["toadstool"],
  croissant: [],
  pretzel: [],
  "cheese wedge": ["cheese"],
  hamburger: ["burger"],
  "french fries": ["fries"],
  pizza: ["slice of pizza"],
  "hot dog": [],
  popcorn: [],
  doughnut: ["donut"],
  cookie: [],
  "birthday cake": ["cake"],
  cupcake: [],
  "soft ice cream": ["ice cream cone", "ice cream"],
  lollipop: [],
  "beer mug": ["mug of beer"],
  "dog face": ["dog"],
  "cat face": ["cat"],
  fox: [],
  lion: [],
  "tiger face": ["tiger"],
  unicorn: [],
  "cow face": ["cow"],
  "pig face": ["pig"],
  "rabbit face": ["rabbit", "bunny"],
  bear: ["brown bear"],
  panda: [],
  koala: [],
  "monkey face": ["monkey"],
  frog: [],
  elephant: [],
  penguin: [],
  owl: [],
  turtle: ["tortoise"],
  snake: [],
  "spouting whale": ["whale"],
  "tropical fish": ["fish"],
  octopus: [],
  crab: [],
  snail: [],
  butterfly: [],
  honeybee: ["bee"],
  "lady beetle": ["ladybug", "ladybird"],
  spider: [],
  flamingo: [],
  cactus: [],
  sunflower: [],
  tulip: [],
  "palm tree": [],
  "four leaf clover": ["clover"],
  "maple leaf": [],
  automobile: ["car", "red car"],
  bus: [],
  sailboat: ["sailing boat"],
  airplane: ["plane"],
  rocket: [],
  "flying saucer": ["ufo"],
  house: [],
  castle: [],
  "crescent moon": ["moon"],
  sun: [],
  star: [],
  cloud: [],
  rainbow: [],
  umbrella: [],
  snowman: [],
  fire: ["flame"],
  droplet: ["drop of water"],
  snowflake: [],
  "high voltage": ["lightning bolt"],
  "jack-o-lantern": ["pumpkin"],
  "Christmas tree": [],
  balloon: ["red balloon"],
  "wrapped gift": ["gift", "present"],
  trophy: [],
  "soccer ball": [],
  basketball: [],
  bullseye: ["target", "dartboard"],
  "pool 8 ball": ["8 ball"],
  "game die": ["die"],
  "artist palette": ["palette"],
  crown: [],
  "top hat": [],
  "gem stone": ["diamond", "gem"],
  bell: [],
  guitar: ["electric guitar"],
  camera: [],
  television: ["tv"],
  "light bulb": [],
  key: [],
  pencil: [],
  scissors: [],
  magnet: [],
  anchor: [],
  "t-shirt": ["shirt"],
  ghost: [],
  robot: [],
  alien: [],
  skull: [],
  "red heart": ["heart"],
  "grinning face": ["smiley face"],
};

/** Whether a label is one of the everyday names. */
export const isEveryday = (label: string): boolean => Object.hasOwn(EVERYDAY, label);

/** CLDR groups of the core: smileys, animals and nature, food, travel and places, activities, objects. */
const CORE_GROUPS = new Set([0, 3, 4, 5, 6, 7]);
/** Clock faces: 24 pictures that differ by the hands. */
const CLOCK_SUBGROUP = 58;

interface EmojibaseRecord {
  hexcode: string;
  label: string;
  tags?: string[];
  group?: number;
  subgroup?: number;
}

const require = createRequire(import.meta.url);

/** The packages that scenes are made from, with the releases whose emoji and names the bundled model knows. */
const PACKAGES = { pictures: "@lobehub/fluent-emoji-3d", names: "emojibase-data" };
const INSTALLATION = `npm install ${PACKAGES.pictures}@1 ${PACKAGES.names}@17`;

function resolvePackage(name: string): string {
  try {
    return dirname(require.resolve(`${name}/package.json`));
  } catch {
    throw new InvalidInputError(`emoji scenes are made from ${name}, which is not installed; run: ${INSTALLATION}`);
  }
}

/** Folder with the pictures, one `<code>.webp` of 256 × 256 with alpha for each emoji. */
export function spriteFolder(): string {
  return join(resolvePackage(PACKAGES.pictures), "assets");
}

/** Every CLDR emoji of the core groups that has a picture, in CLDR's order. 984 entries. */
export function coreVocabulary(): EmojiEntry[] {
  const folder = spriteFolder();
  const records: EmojibaseRecord[] = JSON.parse(
    readFileSync(join(resolvePackage(PACKAGES.names), "en", "data.json"), "utf8"),
  );
  const core: { record: EmojibaseRecord; code: string }[] = [];
  const tagUses = new Map<string, number>();
  for (const record of records) {
    if (!CORE_GROUPS.has(record.group ?? -1) || record.subgroup === CLOCK_SUBGROUP) continue;
    const hex = record.hexcode.toLowerCase();
    const code = [hex, hex.replaceAll("-fe0f", ""), `${hex}-fe0f`].find((c) => existsSync(join(folder, `${c}.webp`)));
    if (code === undefined) continue;
    core.push({ record, code });
    for (const tag of new Set([...(record.tags ?? []), record.label])) tagUses.set(tag, (tagUses.get(tag) ?? 0) + 1);
  }
  return core.map(({ record, code }) => {
    const { label } = record;
    const bare = !takesArticle(label);
    const ownTags = (record.tags ?? []).filter((tag) => tag.length > 2 && tagUses.get(tag) === 1);
    return {
      code,
      label,
      aliases: EVERYDAY[label] ?? ownTags,
      article: bare ? "" : articleOf(label),
      plural: bare ? label : pluralOf(label),
      group: record.group!,
      tags: (record.tags ?? []).filter((tag) => tag.length > 2),
    };
  });
}

/** The entries of a selection, in the selection's order (CLDR's for `animals` and `core`). */
export function loadVocabulary(selection: VocabularySelection): EmojiEntry[] {
  const core = coreVocabulary();
  if (selection === "core") return core;
  if (selection === "animals") return core.filter((entry) => entry.group === 3);
  const labels = selection === "everyday" ? Object.keys(EVERYDAY) : selection;
  const byLabel = new Map(core.map((entry) => [entry.label, entry]));
  const missing = labels.filter((label) => !byLabel.has(label));
  if (missing.length > 0) throw invalid("vocabulary", "labels of the core emoji", missing.join(", "));
  const repeated = labels.find((label, i) => labels.indexOf(label) !== i);
  if (repeated !== undefined) throw invalid("vocabulary", "each label once", message`"${repeated}" twice`);
  return labels.map((label) => byLabel.get(label)!);
}
