/** What reads texts of strangers takes time in proportion to their length, whatever they hold. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { parseScores } from "./data/preprocess/scores-csv.js";
import { parseMetadata } from "./data/shards/metadata.js";
import { parseTable } from "./files/table-file.js";
import { linesOf } from "./files/text-file.js";
import { makeExif, readUserComment, readXmp } from "./pictures/exif.js";
import { bundledModel } from "./pipeline/loading/bundled.js";
import { NameTemplate, slug } from "./pipeline/requests/file-names.js";
import { readPromptFile } from "./pipeline/requests/prompt-file.js";
import { oneLine, printable } from "./printable.js";
import { AddedTokenFinder, specialToken } from "./text/added-tokens.js";
import { fixText } from "./text/fix-text.js";
import { Vocabulary } from "./text/vocabulary.js";
import { readEnvironment } from "./training/recipes/environment.js";
import { composeRecipe } from "./training/recipes/recipe-source.js";

const folder = mkdtempSync(join(tmpdir(), "miro-linear-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

const attempt = (work: () => unknown): void => {
  try {
    work();
  } catch {
    // Many of these texts are refused; the time until then counts.
  }
};

/** Processor time of the fastest of a few runs, so that other work on the machine does not count. */
function cost(work: () => unknown): number {
  let least = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 3; run++) {
    const before = process.cpuUsage();
    attempt(work);
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, user + system);
  }
  return least;
}

const cases: [string, (repeat: (text: string) => string) => () => unknown][] = [
  [
    "a run of spaces, each a token that takes the white space beside it along",
    (n) => {
      const space = specialToken(1, " ");
      const both = [
        new AddedTokenFinder([{ ...space, rstrip: true }]),
        new AddedTokenFinder([{ ...space, lstrip: true, rstrip: true }]),
      ];
      const text = `a${n(" ")}b`;
      return () => both.map((finder) => finder.split(text));
    },
  ],
  [
    "an EXIF comment of NULs and a letter",
    (n) => {
      const exif = makeExif("x", `${n("\0")}a`);
      return () => readUserComment(exif);
    },
  ],
  [
    "XMP of beginnings",
    (n) => {
      const packets = [
        n("<miro:settings>"),
        n(" miro:settings="),
        ` miro:settings="${n(" miro:settings='")}`,
        n("&#x1"),
      ];
      return () => packets.map((packet) => readXmp(packet));
    },
  ],
  [
    "XMP with entities",
    (n) => {
      const packet = `<miro:settings>${n("&#12")}</miro:settings>`;
      return () => readXmp(packet);
    },
  ],
  [
    "a caption whose ampersand was written out again and again",
    (n) => {
      const caption = `&${n("amp;")}`;
      return () => fixText(caption);
    },
  ],
  [
    "metadata with a string that has no end",
    (n) => {
      const bytes = [Buffer.from(`{"a": NaN, "${n('\\"')}`), Buffer.from(`{"${n('\\"')}\\`), Buffer.from(n('"a\\'))];
      return () => {
        for (const one of bytes) attempt(() => parseMetadata(one));
      };
    },
  ],
  [
    "a score of digits",
    (n) => {
      const text = `key,a\r\nx,${n("1")}x\r\n`;
      return () => parseScores(text, "s.csv");
    },
  ],
  [
    "a site's variable with space in it",
    (n) => {
      const path = file("site.env", `MIRO_A='x'${n(" ")}x\nMIRO_B=${n(" ")}x\nMIRO_C=${n(" #\u2028")}\n${n("'")}\n`);
      return () => {
        const environment = readEnvironment(path, {});
        for (const name of ["MIRO_A", "MIRO_B", "MIRO_C"]) attempt(() => environment(name));
      };
    },
  ],
  [
    "quotes that stay open in a site's file",
    (n) => {
      const path = file("open.env", n("A='x\n"));
      return () => readEnvironment(path, {})("MIRO_A");
    },
  ],
  [
    "variables without their end in a recipe",
    (n) => {
      const path = file("recipe.yaml", `a: '${n("$" + "{A:-")}'\n`);
      return () => composeRecipe(path, [], () => ({ value: "x", origin: "test" }));
    },
  ],
  [
    "a prompt of dashes, dots and space",
    (n) => {
      const prompt = `${n("-. ")}a${n("-. ")}`;
      return () => slug(prompt);
    },
  ],
  [
    "a prompt of characters that mean names",
    (n) => {
      const known = Vocabulary.of(bundledModel()!)!;
      const prompts = [n("🦊🐱"), n("🦊 of "), n("🦊,")];
      return () => prompts.map((prompt) => known.named(prompt));
    },
  ],
  [
    "words that a model does not know",
    (n) => {
      const known = Vocabulary.of(bundledModel()!)!;
      const prompts = [n("w"), n("qx ").replaceAll("x", () => String(Math.random())), n("🦊ww")];
      return () => prompts.map((prompt) => known.warning([prompt], "model"));
    },
  ],
  [
    "a name of dots and space",
    (n) => {
      const name = `a${n(". ")}b`;
      return () => new NameTemplate(name).fill({} as never);
    },
  ],
  [
    "a message of space",
    (n) => {
      const message = `a${n(" ")}b${n("\n ")}c`;
      return () => printable(oneLine(message));
    },
  ],
  [
    "lines that end in every way",
    (n) => {
      const text = n("\r\n\r\n\n\r");
      return () => linesOf(text);
    },
  ],
  [
    "prompts as a table of quotes",
    (n) => {
      const path = file("a.csv", `prompt\n"${n('""')}"x`);
      return () => readPromptFile(path);
    },
  ],
  [
    "a table of columns",
    (n) => {
      let column = 0;
      const text = n("x").replaceAll("x", () => `c${column++},`);
      return () => parseTable(text, "a.csv");
    },
  ],
  [
    "prompts as JSON of quotes",
    (n) => {
      const path = file("a.jsonl", `{"prompt": "${n('\\"')}", "a": [${n("[],")}[]]}`);
      return () => readPromptFile(path);
    },
  ],
];

it.each(cases)("%s", (_, make) => {
  const length = 20_000;
  const [small, large] = [1, 8].map((times) => cost(make((text) => text.repeat(times * length)))) as [number, number];
  // Eight times the text is eight times the work, or sixty-four times where each part is looked at again for every
  // other one. What takes less than some milliseconds even so is not worth telling apart.
  expect(large).toBeLessThan(24 * small + 30_000);
});
