/** The little English that captions need: articles and plurals of names such as "face with tears of joy". */

/** Names that take no article and no count although they do not look like plurals: materials, and what is no noun. */
const WITHOUT_ARTICLE = new Set([
  ..."bread bacon popcorn butter salt sushi spaghetti soap broccoli garlic ice coral bowling tennis".split(" "),
  ...[
    "cooked rice",
    "curry rice",
    "rolling on the floor laughing",
    "locked with pen",
    "locked with key",
    "money with wings",
  ],
]);

const IRREGULAR_PLURALS: Readonly<Record<string, string>> = {
  wolf: "wolves",
  fish: "fish",
  sheep: "sheep",
  mouse: "mice",
  goose: "geese",
  ox: "oxen",
  deer: "deer",
  leaf: "leaves",
  die: "dice",
  foot: "feet",
  knife: "knives",
  man: "men",
  snowman: "snowmen",
  bison: "bison",
};

/** Where the noun ends that counts: a face *with tears*, a leaf *fluttering in wind*. */
const AFTER_THE_NOUN =
  / (?:of|with|without|in|on|at|over|behind|from|blowing|holding|showing|screaming|fluttering|increasing) /;

/** Whether a name takes "a" or "an" and can be counted; plurals and materials do not. */
export function takesArticle(name: string): boolean {
  return !WITHOUT_ARTICLE.has(name) && !nounsOf(name).some(isPlural);
}

/** English plural of a name; of names that are plurals or materials, the name itself. */
export function pluralOf(name: string): string {
  if (!takesArticle(name)) return name;
  const nouns = nounsOf(name);
  return nouns.map(pluralOfNoun).join(" and ") + name.slice(nouns.join(" and ").length);
}

/** "a" or "an", by sound for the few words whose spelling misleads. */
export function articleOf(name: string): "a" | "an" {
  if (/^(uni|eu|one|use|uk|ufo)/i.test(name)) return "a";
  if (/^(hour|x-ray|8)/i.test(name)) return "an";
  return /^[aeiou]/i.test(name) ? "an" : "a";
}

/** "hammer and wrench" has two nouns, "cloud with lightning and rain" one. */
function nounsOf(name: string): string[] {
  const end = AFTER_THE_NOUN.exec(name)?.index;
  return name.slice(0, end).split(" and ");
}

/** Whether the last word is a plural: "clinking glasses"; not "bus", "glass" or "rhinoceros". */
function isPlural(noun: string): boolean {
  return /s$/.test(noun) && !/(?:ss|us|sis|['’]s|rhinoceros|canvas|lens|atlas|gas)$/.test(noun);
}

function pluralOfNoun(noun: string): string {
  const start = noun.lastIndexOf(" ") + 1;
  const word = noun.slice(start);
  return noun.slice(0, start) + (IRREGULAR_PLURALS[word] ?? regularPlural(word));
}

function regularPlural(word: string): string {
  if (/[^aeiou]y$/.test(word)) return `${word.slice(0, -1)}ies`;
  if (/(?:s|x|z|ch|sh|tomato|potato|volcano|mango)$/.test(word)) return `${word}es`;
  return `${word}s`;
}
