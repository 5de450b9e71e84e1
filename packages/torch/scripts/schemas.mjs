// Reads the dispatcher's schemas, for the programs that generate code from them.
export const RESERVED = new Set(
  "arguments await break case catch class const continue default delete do else enum eval export extends false finally for function if implements import in interface let new null package private protected public return static super switch this throw true try typeof var void while with yield".split(
    " ",
  ),
);
export const SCALARS = {
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

/**
 * "Tensor(a!)?" and the like -> { base, list, listOptional, optional, write } or null where JavaScript has no
 * counterpart.
 */
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

export function parseOperator(schema) {
  const match = /^aten::([A-Za-z0-9_]+)(?:\.([A-Za-z0-9_]+))?\((.*)\) -> (.*)$/s.exec(schema);
  if (!match) return null;
  const [, name, overload = "", args, returns] = match;
  if (name.startsWith("__") && name.endsWith("__")) return null;
  const parameters = [];
  let keywordOnly = false;
  for (const part of splitTop(args)) {
    if (part === "*") {
      keywordOnly = true;
      continue;
    }
    const equals = part.indexOf("=");
    const declared = equals < 0 ? part : part.slice(0, equals);
    const space = declared.lastIndexOf(" ");
    const type = parseType(declared.slice(0, space).trim());
    if (type === null) return null;
    let id = declared.slice(space + 1).replace(/_([a-z0-9])/g, (_, c) => c.toUpperCase());
    if (id === "self") id = "self";
    else if (RESERVED.has(id)) id = `${id}_`;
    parameters.push({ id, type, keywordOnly, hasDefault: equals >= 0, default: part.slice(equals + 1) });
  }
  if (overload === "out" || overload.endsWith("_out") || parameters.some((p) => p.type.write && p.id === "out"))
    return null;
  const results = (returns.startsWith("(") ? splitTop(returns.slice(1, -1)) : [returns]).map((r) => {
    const space = r.indexOf(" ");
    const type = parseType((space < 0 ? r : r.slice(0, space)).trim());
    return type === null ? null : { ...type, name: space < 0 ? "" : r.slice(space + 1).trim() };
  });
  if (results.some((r) => r === null)) return null;
  if (name.endsWith("_out") || parameters.length > 38) return null;
  return { name, overload, parameters, results, schema };
}
