/** The parameters of every typed operator, read from the dispatcher's schemas. */
import { aten, schemas } from "@miro-t2i/torch";

export interface OperatorParameter {
  /** `Tensor`, `int`, `ScalarType`, … as the schema has it. */
  base: string;
  list: boolean;
  optional: boolean;
}

/** Every name of `aten`, sorted, with the parameters of the operator behind it. */
export function typedOperators(): Map<string, OperatorParameter[]> {
  const found = new Map<string, OperatorParameter[]>();
  for (const schema of schemas()) {
    const match = /^aten::(\w+)(?:\.(\w+))?\((.*)\) -> /s.exec(schema);
    if (!match) continue;
    const [, name, overload, parameters] = match;
    const key = overload === undefined ? name! : `${name}_${overload}`;
    if (!Object.hasOwn(aten, key) || found.has(key)) continue;
    found.set(
      key,
      parameters === ""
        ? []
        : splitTop(parameters!)
            .filter((text) => text !== "*")
            .map(parameter),
    );
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** `Tensor(a!)? self`, `int[2] stride=1`, `Tensor?[] indices`. */
function parameter(text: string): OperatorParameter {
  const type = text.replace(/\([^)]*\)/g, "").split(" ")[0]!;
  const list = type.includes("[");
  return { base: /^\w+/.exec(type)![0], list, optional: type.endsWith("?") };
}

/** Splits at commas outside of brackets. */
function splitTop(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if ("([".includes(text[i]!)) depth++;
    else if (")]".includes(text[i]!)) depth--;
    else if (text[i] === "," && depth === 0) {
      parts.push(text.slice(start, i).trim());
      start = i + 1;
    }
  }
  parts.push(text.slice(start).trim());
  return parts;
}
