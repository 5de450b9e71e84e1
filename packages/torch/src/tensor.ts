// Tensors and the operators on them: what the other files of the engine import.
import { generatorId, handleOf, handlesOf } from "./arguments.js";
import type { IndexedBy } from "./indexing.js";
import { type Handle, native } from "./native.js";
import { operatorId } from "./operators.js";
import { Tensor, wrap } from "./tensor.generated.js";

export { FloatScalar, float, type Scalar } from "./scalar.js";
export { followed, type NestedValues, type ToOptions } from "./tensor-base.js";
export { Tensor, wrap };

/**
 * One position of {@link Tensor.index}: an index, a new axis (null), a whole dimension (`":"`), all dimensions that the
 * others leave (`"..."`), a slice `[start, end, step?]`, or a tensor.
 */
export type IndexItem = IndexedBy<Tensor>;

/**
 * Calls any operator of the dispatcher by its schema name. Arguments come in the schema's order; trailing ones may be
 * left out where the schema has defaults. Tensors come back as {@link Tensor}; an operator that writes into an argument
 * gives that argument back.
 *
 * @throws TorchError where there is no such operator, or an argument is not what its schema says
 *
 * @example
 * ```ts
 * call("aten::add.Tensor", a, b, 2); // a + 2 b
 * ```
 */
export function call(name: string, ...args: any[]): any {
  const { id, parameters, results } = signature(name);
  const plain = args.map((value, i) => plainArgument(value, name, parameters[i]));
  const result = native.call(id, ...plain);
  if (result === undefined) {
    const written = args.find((a): a is Tensor => a instanceof Tensor);
    return written?.changed();
  }
  return wrapResults(result, results);
}

/** Handles are numbers too: only the schema tells where one is meant, so that a number is never taken for a tensor. */
function plainArgument(value: unknown, operator: string, parameter: Parameter | undefined): unknown {
  if (!parameter?.type.startsWith("Tensor")) return generatorId(value);
  const convert = parameter.type.includes("[]") ? handlesOf : handleOf;
  return convert(value, () => operator, 0, parameter.name);
}

interface Parameter {
  /** Such as `Tensor`, `Tensor?[]`, `int`, `str`. */
  type: string;
  name: string;
}
interface Signature {
  /** The dispatcher's number. */
  id: number;
  parameters: Parameter[];
  /** Types of the results. */
  results: string[];
}
const signatures = new Map<string, Signature>();

/** What an operator's schema says: `aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor`. */
function signature(name: string): Signature {
  let found = signatures.get(name);
  if (found === undefined) {
    const id = operatorId(name);
    const schema = native.schema(name);
    const arrow = schema.lastIndexOf(" -> ");
    const outcome = schema.slice(arrow + 4);
    found = {
      id,
      parameters: declaredIn(schema.slice(schema.indexOf("(") + 1, arrow - 1)),
      results: declaredIn(outcome.startsWith("(") ? outcome.slice(1, -1) : outcome).map(({ type }) => type),
    };
    signatures.set(name, found);
  }
  return found;
}

/** A comma-separated list of `type name=default`; alias marks such as `(a!)` are dropped. */
function declaredIn(list: string): Parameter[] {
  return list
    .replace(/\([^()]*\)/g, "")
    .split(/, (?![^[]*\])/)
    .map((item) => item.split(/[ =]/))
    .map(([type = "", name = ""]) => ({ type, name }))
    .filter(({ type }) => type !== "*" && type !== "");
}

function wrapResults(result: unknown, types: string[]): unknown {
  const one = (value: unknown, type: string): unknown => {
    if (value === null) return null;
    if (type === "Tensor" || type === "Tensor?") return wrap(value as Handle);
    if (type.startsWith("Tensor")) return (value as Handle[]).map(wrap);
    return value;
  };
  return types.length === 1
    ? one(result, types[0] as string)
    : (result as unknown[]).map((v, i) => one(v, types[i] as string));
}
