// Generates src/ops.generated.ts: one typed wrapper for each aten operator of the dispatcher.
//   node packages/torch/scripts/generate-ops.mjs           writes the file
//   node packages/torch/scripts/generate-ops.mjs --check   exits 1 when the committed file is not current
// Needs the built addon. The committed file is made from libtorch 2.13.0 (CPU); --check is skipped on other versions.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const PINNED = "2.13.0";
const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "src", "ops.generated.ts");
const native = createRequire(import.meta.url)(join(here, "..", "build", "miro_torch.node"));
native.setup(Error, new Int32Array(4));

const version = native.buildInfo().torchVersion;
if (!version.startsWith(PINNED)) {
  console.error(`generate-ops: the addon uses libtorch ${version}; the wrappers are made from ${PINNED}, nothing done`);
  process.exit(0);
}

const RESERVED = new Set(
  "arguments await break case catch class const continue default delete do else enum eval export extends false finally for function if implements import in interface let new null package private protected public return static super switch this throw true try typeof var void while with yield".split(
    " ",
  ),
);
const SCALARS = {
  int: "number",
  SymInt: "number",
  float: "number",
  SymFloat: "number",
  bool: "boolean",
  SymBool: "boolean",
  str: "string",
  Scalar: "Scalar",
  ScalarType: "DType",
  Layout: '"strided"',
  Device: "Device",
  DeviceIndex: "number",
  MemoryFormat: "MemoryFormat",
  Generator: "GeneratorLike",
};

/** Splits at commas outside of brackets. */
function splitTop(text) {
  const parts = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if ("([".includes(text[i])) depth++;
    else if (")]".includes(text[i])) depth--;
    else if (text[i] === "," && depth === 0) {
      parts.push(text.slice(start, i).trim());
      start = i + 1;
    }
  }
  const last = text.slice(start).trim();
  if (last) parts.push(last);
  return parts;
}

/** "Tensor(a!)?" and the like -> { base, list, listOptional, optional, write } or null where JavaScript has no counterpart. */
function parseType(text) {
  const write = text.includes("!");
  let type = text.replace(/\([^)]*\)/g, "");
  let optional = false;
  if (type.endsWith("?")) {
    optional = true;
    type = type.slice(0, -1);
  }
  let list = false;
  let itemOptional = false;
  const brackets = /\[(\d*)\]$/.exec(type);
  let fixed = false;
  if (brackets) {
    list = true;
    fixed = brackets[1] !== "";
    type = type.slice(0, -brackets[0].length);
    if (type.endsWith("?")) {
      itemOptional = true;
      type = type.slice(0, -1);
    }
  }
  if (type !== "Tensor" && !(type in SCALARS)) return null;
  if (list && !["Tensor", "int", "SymInt", "float", "bool", "Scalar"].includes(type)) return null;
  return { base: type, list, fixed, itemOptional, optional, write };
}

function parse(schema) {
  const match = /^aten::([A-Za-z0-9_]+)(?:\.([A-Za-z0-9_]+))?\((.*)\) -> (.*)$/s.exec(schema);
  if (!match) return null;
  const [, name, overload = "", args, returns] = match;
  if (name.startsWith("__") && name.endsWith("__")) return null;
  const parameters = [];
  for (const part of splitTop(args)) {
    if (part === "*") continue;
    const equals = part.indexOf("=");
    const declared = equals < 0 ? part : part.slice(0, equals);
    const space = declared.lastIndexOf(" ");
    const type = parseType(declared.slice(0, space).trim());
    if (type === null) return null;
    let id = declared.slice(space + 1).replace(/_([a-z0-9])/g, (_, c) => c.toUpperCase());
    if (id === "self") id = "self";
    else if (RESERVED.has(id)) id = `${id}_`;
    parameters.push({ id, type, hasDefault: equals >= 0 });
  }
  if (overload === "out" || overload.endsWith("_out") || parameters.some((p) => p.type.write && p.id === "out"))
    return null;
  const results = (returns.startsWith("(") ? splitTop(returns.slice(1, -1)) : [returns]).map((r) => {
    const space = r.indexOf(" ");
    return parseType((space < 0 ? r : r.slice(0, space)).trim());
  });
  if (results.some((r) => r === null)) return null;
  if (name.endsWith("_out") || parameters.length > 38) return null;
  return { name, overload, parameters, results, schema };
}

function argumentType({ base, list, fixed, itemOptional, optional }) {
  const item = base === "Tensor" ? "Tensor" : SCALARS[base];
  let type = item;
  if (list)
    type = `readonly ${itemOptional ? `(${item} | null)` : item === "Scalar" ? "Scalar" : item}[]${fixed ? ` | ${item}` : ""}`;
  return optional ? `${type} | null` : type;
}
function passed({ id, type }) {
  if (type.base === "Tensor") return type.list ? `hs(${id})` : `h(${id})`;
  if (type.base === "Generator") return `g(${id})`;
  return id;
}
function resultType(r) {
  if (r.base === "Tensor") return r.list ? "Tensor[]" : r.optional ? "Tensor | null" : "Tensor";
  const item = r.base === "Scalar" ? "number" : SCALARS[r.base];
  return r.list ? `${item}[]` : item;
}
function converted(r, value) {
  if (r.base !== "Tensor") return value;
  return r.list ? `ws(${value})` : `w(${value})`;
}

const seen = new Set();
const lines = [];
const table = [];
for (const op of native.schemas().map(parse)) {
  if (op === null) continue;
  const key = op.overload === "" ? op.name : `${op.name}_${op.overload}`;
  if (seen.has(key)) continue;
  seen.add(key);
  const index = table.length;
  table.push(`${op.name}${op.overload === "" ? "" : `.${op.overload}`}`);
  let lastRequired = -1;
  op.parameters.forEach((p, i) => {
    if (!p.hasDefault) lastRequired = i;
  });
  const signature = op.parameters
    .map((p, i) =>
      i > lastRequired
        ? `${p.id}?: ${argumentType(p.type)}`
        : `${p.id}: ${argumentType(p.type)}${p.hasDefault ? " | undefined" : ""}`,
    )
    .join(", ");
  const call = `c(${[`id(${index})`, ...op.parameters.map(passed)].join(", ")})`;
  const writesOnly = op.results.length > 0 && op.results.every((r) => r.write);
  const written = op.parameters.filter((p) => p.type.write);
  let result;
  let body;
  if (op.results.length === 0) {
    result = "void";
    body = `${call};`;
  } else if (writesOnly) {
    const targets = written.slice(0, op.results.length).map((p) => p.id);
    result =
      targets.length === 1
        ? written[0].type.list
          ? "readonly Tensor[]"
          : "Tensor"
        : `[${targets.map(() => "Tensor").join(", ")}]`;
    const changed = written
      .filter((p) => !p.type.list)
      .map((p) => `${p.id}.changed();`)
      .join(" ");
    body = `${call}; ${changed} return ${targets.length === 1 ? targets[0] : `[${targets.join(", ")}]`};`;
  } else if (op.results.length === 1) {
    result = resultType(op.results[0]);
    body = `return ${converted(op.results[0], call)};`;
  } else {
    result = `[${op.results.map(resultType).join(", ")}]`;
    body = `const r = ${call}; return [${op.results.map((r, i) => converted(r, `r[${i}]`)).join(", ")}];`;
  }
  lines.push(`  /** \`${op.schema.replaceAll("*/", "* /")}\` */\n  ${key}(${signature}): ${result} { ${body} },`);
}

const text = `// Generated by scripts/generate-ops.mjs from libtorch ${PINNED}'s schemas. Do not edit.
// ${lines.length} operators: \`aten.<name>_<overload>\`, positional arguments in schema order, trailing defaults optional.
import type { Device, DType } from "./dtype.js";
import { native } from "./native.js";
import { handleOf as h, handlesOf as hs, type Scalar, type Tensor, wrap } from "./tensor.js";

type MemoryFormat = "contiguous_format" | "preserve_format" | "channels_last" | "channels_last_3d";
type GeneratorLike = { readonly generatorHandle: number };

const NAMES = ${JSON.stringify(table.join(" "))}.split(" ");
const ids = new Int32Array(NAMES.length).fill(-1);
function id(i: number): number {
  const known = ids[i] as number;
  if (known >= 0) return known;
  const [name, overload = ""] = (NAMES[i] as string).split(".");
  const found = native.operator(\`aten::\${name}\`, overload);
  ids[i] = found;
  return found;
}
const c = native.call;
const g = (generator: GeneratorLike | null | undefined) => generator?.generatorHandle;
const w = (handle: number | null): any => (handle === null ? null : wrap(handle));
const ws = (handles: (number | null)[]): Tensor[] => handles.map(w);

/** Every aten operator by its schema name and overload: \`aten.add_Tensor(a, b)\`, \`aten.conv2d(x, weight)\`. */
export const aten = {
${lines.join("\n")}
};
`;

if (process.argv.includes("--check")) {
  if (readFileSync(target, "utf8") !== text) {
    console.error("generate-ops: src/ops.generated.ts is not current; run npm run generate:ops");
    process.exit(1);
  }
  console.error(`generate-ops: ${lines.length} wrappers are current`);
} else {
  writeFileSync(target, text);
  console.error(`generate-ops: wrote ${lines.length} wrappers`);
}
