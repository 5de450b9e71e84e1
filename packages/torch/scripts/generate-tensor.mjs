// Makes the text of src/tensor.generated.ts: the class Tensor with one method for each line of tensor-methods.mjs.
import { RESERVED, SCALARS } from "./schemas.mjs";
import { TENSOR_METHODS } from "./tensor-methods.mjs";

/** `"sum | sum.dim_IntList"`, `"linalg_vector_norm(ord=2)"` → the operators, with what the table fixes. */
function operatorsOf(method, text, schemas) {
  return text.split(" | ").map((item) => {
    const [, key, fixed = ""] = /^([\w.]+)(?:\((.*)\))?$/.exec(item) ?? [];
    const operator = schemas.get(key);
    if (operator === undefined)
      throw new Error(`tensor-methods: ${method}: no operator "${item}" that JavaScript can call`);
    const constants = new Map(fixed === "" ? [] : fixed.split(", ").map((pair) => pair.split("=")));
    return { ...operator, key, constants };
  });
}

/** The parameters after `self` of all operators of a method, one a name; required ones are told by place too. */
function mergedParameters(operators, names, places) {
  const merged = [];
  const placesOf = new Map();
  for (const operator of operators) {
    const own = operator.parameters.slice(1).filter((p) => !operator.constants.has(p.id));
    placesOf.set(
      operator,
      own.map((parameter, i) => {
        let place = merged.findIndex((m) => m.id === parameter.id);
        if (place < 0 && i < merged.length && !parameter.hasDefault && !merged[i].hasDefault && !merged[i].keywordOnly)
          place = i;
        if (place < 0) {
          place = merged.length;
          merged.push({ ...parameter, types: [] });
        }
        merged[place].types.push(parameter.type);
        merged[place].keywordOnly &&= parameter.keywordOnly;
        return { place, parameter };
      }),
    );
  }
  for (const [i, m] of merged.entries()) {
    m.hasDefault ||= m.types.length < operators.length;
    m.id = names[i] ?? m.id;
    if (RESERVED.has(m.id)) m.id = `${m.id}_`;
  }
  // In the order of the longest schema: what is required first, then positional, then keyword-only.
  const rank = (m) => (m.hasDefault ? (m.keywordOnly ? 2 : 1) : 0);
  const order = [...merged.keys()].sort(
    (a, b) => places.indexOf(merged[a].id) - places.indexOf(merged[b].id) || rank(merged[a]) - rank(merged[b]) || a - b,
  );
  return {
    parameters: order.map((i) => merged[i]),
    of: (operator) => placesOf.get(operator).map(({ place, parameter }) => ({ id: merged[place].id, parameter })),
  };
}

function typeText({ base, list, fixed, itemOptional, optional }) {
  const item = base === "Tensor" ? "Tensor" : SCALARS[base];
  const items = list ? `readonly ${itemOptional ? `(${item} | null)` : item}[]` : item;
  return [items, ...(list && fixed ? [item] : []), ...(optional ? ["null"] : [])];
}
function parameterType(parameter, types = {}) {
  if (types[parameter.id] !== undefined) return types[parameter.id];
  const parts = new Set(parameter.types.flatMap(typeText));
  if (parts.delete("null")) parts.add("null");
  return [...parts].join(" | ");
}
function passed(id, { base, list }, index) {
  if (base === "Tensor") return `${list ? "hs" : "h"}(${id}, ${index}, "${id}")`;
  if (base === "Generator") return `g(${id})`;
  if (base === "ScalarType") return `d(${id})`;
  return id;
}

function resultOf({ results, parameters }) {
  if (results.length === 1 && results[0].write) return { type: "this", from: (call) => `${call}; return this;` };
  if (results.length === 1 && parameters[0].type.write) throw new Error("writes, but gives another tensor");
  if (results.length === 1 && results[0].list) return { type: "Tensor[]", from: (call) => `return ${call}.map(wrap);` };
  if (results.length === 1) return { type: "Tensor", from: (call) => `return wrap(${call});` };
  return {
    type: `{ ${results.map((r) => `${r.name}: Tensor`).join("; ")} }`,
    from: (call) => `const r = ${call}; return { ${results.map((r, i) => `${r.name}: wrap(r[${i}])`).join(", ")} };`,
  };
}

/** What tells an operator from those after it: a tensor, a list, or a parameter that it does not have. */
function condition(operator, later, of) {
  const own = of(operator);
  for (const other of later) {
    const theirs = of(other);
    const extra = theirs.find((t) => !own.some((o) => o.id === t.id));
    if (extra) return `${extra.id} === undefined || ${extra.id} === null`;
    for (const { id, parameter } of own) {
      const their = theirs.find((t) => t.id === id)?.parameter;
      if (parameter.type.base === "Tensor" && their?.type.base !== "Tensor") return `${id} instanceof Tensor`;
      if (parameter.type.list && !their?.type.list) return `typeof ${id} === "object"`;
    }
  }
  throw new Error(`tensor-methods: nothing tells ${operator.key} from ${later.map((o) => o.key)}`);
}

/** What a line of the table makes: its operators, the method's parameters, and whether it takes sizes one by one. */
export function methodShape([method, text, , { names = [], order = [] } = {}], schemas) {
  const operators = operatorsOf(method, text, schemas);
  const { parameters, of } = mergedParameters(operators, names, order);
  const required = parameters.filter((p) => !p.hasDefault);
  const lists = required.length === 1 && required[0].types.every((t) => t.list && !t.fixed && t.base !== "Tensor");
  return { operators, parameters, of, required, lists };
}

/** The declarations (one an accepted form) and the body of a method. */
function methodText(row, schemas, indexOf) {
  const [method, , doc, { types, example = [] } = {}] = row;
  const { operators, parameters, of, required, lists } = methodShape(row, schemas);
  const comment = (lines) =>
    `  /**\n${lines.map((line) => `   *${line === "" ? "" : ` ${line}`}`).join("\n")}\n   */\n`;
  const described = comment([
    doc,
    "",
    ...operators.map((o) => `\`${o.schema}\``),
    ...(example.length > 0 ? ["", "@example", "```ts", ...example, "```"] : []),
  ]);

  if (lists) {
    const [{ id }] = required;
    const operator = operators[0];
    const result = resultOf(operator);
    return `${described}  ${method}(...${id}: number[] | [readonly number[]]): ${result.type} { ${result.from(`native.call(id(${indexOf(operator.key)}), this.handle, sizes(${id}))`)} }`;
  }

  const optional = parameters.filter((p) => p.hasDefault);
  const positional = optional.filter((p) => !p.keywordOnly).length;
  const declared = (p) => `${p.id}${p.hasDefault ? "?" : ""}: ${parameterType(p, types)}`;
  const forms = (group) => {
    // Optional parameters by place, by name, or some by place (one, or all that PyTorch takes so) and the rest by name.
    const present = optional.filter((p) => group.some((o) => of(o).some(({ id }) => id === p.id)));
    const mustHave = present.filter((p) =>
      group.every((o) => of(o).some((q) => q.id === p.id && !q.parameter.hasDefault)),
    );
    const form = (p) =>
      mustHave.includes(p) ? `${p.id}: ${parameterType(p, types).replace(" | null", "")}` : declared(p);
    const texts = [[...required, ...present].map(form).join(", ")];
    const cuts = new Set([0, 1, positional].filter((cut) => cut < present.length));
    for (const cut of cuts) {
      const byPlace = [...required, ...present.slice(0, cut)].map((p) => form(p).replace("?:", ": undefined |"));
      const byName = present.slice(cut).map((p) => form(p).replace("?:", "?: undefined |"));
      texts.push([...byPlace, `options: { ${byName.join("; ")} }`].join(", "));
    }
    return texts;
  };
  const groups = new Map();
  for (const o of operators) groups.set(resultOf(o).type, [...(groups.get(resultOf(o).type) ?? []), o]);
  const declarations = [...groups]
    .flatMap(([type, group]) => forms(group).map((form) => `  ${method}(${form}): ${type};\n`))
    .map((declaration, i) => `${i === 0 ? described : comment([doc])}${declaration}`);

  const callOf = (operator, known = "") => {
    const own = new Map(of(operator).map(({ id, parameter }) => [parameter.id, { id, parameter }]));
    const args = operator.parameters.slice(1).map((p) => {
      if (operator.constants.has(p.id)) return { text: operator.constants.get(p.id), always: true };
      const { id, parameter } = own.get(p.id);
      const handle =
        known === `${id} instanceof Tensor` ? `${id}.handle` : passed(id, parameter.type, indexOf(operator.key));
      return { id, text: handle, always: !parameter.hasDefault };
    });
    const call = (list) =>
      `native.call(${[`id(${indexOf(operator.key)})`, "this.handle", ...list.map((a) => a.text)].join(", ")})`;
    // Trailing arguments that were left out are not passed at all: each costs as much as a comparison a hundred times.
    let last = args.length;
    while (last > 0 && !args[last - 1].always) last--;
    const from = resultOf(operator).from;
    if (last === args.length) return from(call(args));
    const left = args.slice(last).map((a) => `${a.id} === undefined`);
    return `if (${left.join(" && ")}) { ${from(call(args.slice(0, last)))} } ${from(call(args))}`;
  };
  let body = "";
  if (optional.length > 0) {
    const ids = optional.map((p) => p.id);
    body += `${ids.map((id, i) => `if (isOptions(${id})) ({ ${ids.slice(i).join(", ")} } = options("${method}", ${id}, ${JSON.stringify(ids.slice(i))}));`).join(" else ")} `;
  }
  operators.forEach((operator, i) => {
    const later = operators.slice(i + 1);
    const test = later.length > 0 ? condition(operator, later, of) : "";
    body += test === "" ? callOf(operator) : `if (${test}) { ${callOf(operator, test)} } `;
  });
  const implementation = parameters.map((p) => `${p.id}${p.hasDefault ? "?" : ""}: any`).join(", ");
  return declarations.length === 1 && optional.length === 0
    ? `${declarations[0].slice(0, -2)} { ${body} }`
    : `${declarations.join("")}  ${method}(${implementation}): any { ${body} }`;
}

/** Parsed schemas by name and overload: `add.Tensor`, `exp`. */
export function byKey(operators) {
  return new Map(operators.map((o) => [o.overload === "" ? o.name : `${o.name}.${o.overload}`, o]));
}

/** The whole file; `operators` are the parsed schemas. */
export function tensorText(operators, pinned) {
  const schemas = byKey(operators);
  const names = [];
  const indexOf = (key) => (names.includes(key) ? names.indexOf(key) : names.push(key) - 1);
  const sections = Object.entries(TENSOR_METHODS).map(
    ([title, rows]) => `  // ---- ${title} ----\n\n${rows.map((row) => methodText(row, schemas, indexOf)).join("\n")}`,
  );
  return `// Generated by scripts/generate-tensor.mjs from scripts/tensor-methods.mjs and libtorch ${pinned}'s schemas. Do not edit.
import { type GeneratorLike, generatorId as g, handleOf, handlesOf, optionalDtype as d, sizes } from "./arguments.js";
import type { DType, MemoryFormat } from "./dtype.js";
import { indexed, type IndexedBy } from "./indexing.js";
import { isOptions, options } from "./named-options.js";
import { type Handle, native } from "./native.js";
import { operators } from "./operators.js";
import type { Scalar } from "./scalar.js";
import { scopeDepth } from "./scope-stack.js";
import { followed, TensorBase } from "./tensor-base.js";

const { id, name } = operators(${JSON.stringify(names.join(" "))});
const h = (value: unknown, index: number, argument: string) => handleOf(value, name, index, argument);
const hs = (values: unknown, index: number, argument: string) => handlesOf(values, name, index, argument);

/**
 * An array of numbers of one dtype on one device, as PyTorch's. Methods have PyTorch's names in camelCase and its
 * meaning. What PyTorch takes by keyword may be given by name in one object at the end:
 * \`x.sum({ dim: 1, keepdim: true })\` is \`x.sum(1, true)\`. Methods that end in \`_\` write into this tensor and
 * give it back. Every method throws a TorchError that names the operator where arguments, shapes, dtypes or devices
 * do not fit.
 *
 * A tensor lives until \`dispose()\`, until the end of the \`scope()\` it was made in, or until it is forgotten.
 *
 * @example
 * \`\`\`ts
 * import { ones, scope, tensor } from "@miro-t2i/torch";
 *
 * const sums = scope(() => tensor([[1, 2], [3, 4]]).matmul(ones([2, 2])).sum(1).toList()); // [6, 14]
 * \`\`\`
 */
export class Tensor extends TensorBase<Tensor> {
  // ---- indexing ----

  /**
   * Indexing as \`x[...]\` in Python: numbers, null (new axis), ":", \`[start, end, step?]\`, tensors of int64 or bool.
   *
   * @example
   * \`\`\`ts
   * x.index(0, ":", [1, null]); // x[0, :, 1:]
   * x.index(x.gt(0)); // x[x > 0]
   * \`\`\`
   */
  index(...items: IndexedBy<Tensor>[]): Tensor { return indexed(this, items, wrap); }

${sections.join("\n\n")}
}

/** Gives a fresh handle its JavaScript object. */
export function wrap(handle: Handle): Tensor {
  const tensor = new Tensor(handle);
  if (scopeDepth() === 0) followed(tensor);
  return tensor;
}
`;
}
