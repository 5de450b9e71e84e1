/**
 * Declaration files as they are published. TypeScript writes the types of options without the comments above them,
 * which editors show to callers: they are put back. What speaks of Node's own types says where they come from, since
 * newer releases of TypeScript no longer look for them by themselves. Typed arrays are written as all releases read
 * them.
 */
import { readFileSync } from "node:fs";
import { listFiles } from "../setup/report.mjs";

const SCHEMA = /^(?:export )?const (\w+) = z\.(?:strictObject|looseObject|object)\(\{/;
const OTHER = /\b(\w+)\.shape\b/g;

/**
 * The schemas of options that a source file declares, by name: the comment above each option, as lines without their
 * indentation, and the names of the schemas whose options the file takes over.
 */
export function declaredOptions(source) {
  const schemas = new Map();
  let schema = null;
  let comment = null;
  const others = new Set([...source.matchAll(OTHER)].map(([, name]) => name));
  for (const line of source.split("\n")) {
    const name = SCHEMA.exec(line)?.[1];
    if (name !== undefined) {
      schema = { comments: new Map(), others };
      schemas.set(name, schema);
    }
    if (schema === null) continue;
    if (/^ {2}\/\*\*/.test(line)) comment = [];
    comment?.push(line.slice(2));
    const option = /^ {2}(\w+): /.exec(line)?.[1];
    if (option !== undefined) {
      if (comment !== null) schema.comments.set(option, comment.slice(0, -1));
      comment = null;
    }
    if (/^\}\)|\}\);$/.test(line) && !line.startsWith(" ")) schema = null;
  }
  return schemas;
}

/**
 * The schemas of a folder of sources.
 * @returns those that a file sees, by name: its own, and those of others
 */
export function optionsOfFolder(folder) {
  const isSource = (file) => file.endsWith(".ts") && !file.endsWith(".test.ts");
  const byFile = new Map(
    listFiles(folder, isSource).map((file) => [file, declaredOptions(readFileSync(file, "utf8"))]),
  );
  const all = [...byFile.values()].flatMap((schemas) => [...schemas]);
  return (file) => new Map([...all, ...(byFile.get(file) ?? [])]);
}

function commentOf(schemas, name, option, seen = new Set()) {
  const schema = schemas.get(name);
  if (schema === undefined || seen.has(name)) return undefined;
  seen.add(name);
  const own = schema.comments.get(option);
  if (own !== undefined) return own;
  return [...schema.others]
    .map((other) => commentOf(schemas, other, option, seen))
    .find((found) => found !== undefined);
}

/** What of Node's types a declaration uses. */
const OF_NODE = /\b(?:Buffer|NodeJS\.\w+|AbortSignal|Symbol\.(?:asyncDispose|dispose)|from "node:\w+")/;
const REFERENCE = '/// <reference types="node" />\n';

/** Typed arrays as TypeScript 5.7 and later write them; earlier ones know them without a parameter. */
const GENERIC_ARRAY = /\b(\w+Array)<ArrayBuffer(?:Like)?>/g;

/**
 * A declaration file as it is published.
 *
 * @param text as TypeScript wrote it
 * @param schemas what its source sees, of {@link optionsOfFolder}
 */
export function publishedDeclaration(text, schemas) {
  let name;
  const lines = text.split("\n").flatMap((line) => {
    name =
      /^(?:export )?declare const (\w+): z\.ZodObject<\{$/.exec(line)?.[1] ?? (line.startsWith("}") ? undefined : name);
    const option = name === undefined ? undefined : /^ {4}(\w+): /.exec(line)?.[1];
    const comment = option === undefined ? undefined : commentOf(schemas, name, option);
    return [...(comment ?? []).map((words) => `    ${words}`), line];
  });
  const documented = lines.join("\n").replaceAll(GENERIC_ARRAY, "$1");
  return OF_NODE.test(documented) && !documented.includes(REFERENCE) ? REFERENCE + documented : documented;
}
