// Tensors and the operators on them: what the other files of the engine import.
import { generatorId, handleOf, handlesOf } from "./arguments.js";
import { shown, TorchError } from "./errors.js";
import type { IndexedBy } from "./indexing.js";
import { type Handle, native } from "./native.js";
import { operatorId } from "./operators.js";
import { Tensor, wrap } from "./tensor.generated.js";

export { FloatScalar, float, type Scalar } from "./scalar.js";
export type { NestedValues, ToOptions } from "./tensor-base.js";
export { Tensor, wrap };

/**
 * One position of {@link Tensor.index}: an index, a new axis (null), a whole dimension (`":"`), all dimensions that the
 * others leave (`"..."`), a slice `[start, end, step?]`, or a tensor.
 */
export type IndexItem = IndexedBy<Tensor>;

/**
 * Calls any operator of the dispatcher by its schema name. Arguments come in the schema's order; trailing ones may be
 * left out where the schema has defaults. Tensors come back as {@link Tensor}; an operator that writes into arguments
 * gives these back.
 *
 * @throws TorchError where there is no such operator, or an argument is not what its schema says
 *
 * @example
 * ```ts
 * call("aten::add.Tensor", a, b, 2); // a + 2 b
 * ```
 */
export function call(name: string, ...args: any[]): any {
  if (typeof name !== "string") throw new TorchError(`call: expected an operator's name, got ${shown(name)}`);
  const { id, parameters, results } = signature(name);
  const plain = args.map((value, i) => plainArgument(value, name, parameters[i]));
  const result = native.call(id, ...plain);
  for (const [i, { written }] of parameters.entries())
    if (written !== null && args[i] instanceof Tensor) args[i].changed();
  if (result !== undefined) return wrapResults(result, results);
  const given = results.map(({ written }) => args[parameters.findIndex((parameter) => parameter.written === written)]);
  return given.length > 1 ? given : given[0];
}

/** Handles are numbers too: only the schema tells where one is meant, so that a number is never taken for a tensor. */
function plainArgument(value: unknown, operator: string, parameter: Parameter | undefined): unknown {
  if (!parameter?.type.startsWith("Tensor")) return generatorId(value);
  const convert = parameter.type.includes("[]") ? handlesOf : handleOf;
  return convert(value, () => operator, 0, parameter.name);
}

/** A parameter or a result. */
interface Parameter {
  /** Such as `Tensor`, `Tensor?[]`, `int`, `str`. */
  type: string;
  name: string;
  /** What is written into: the letter that a parameter has in common with the result that it becomes. */
  written: string | null;
}
interface Signature {
  /** The dispatcher's number. */
  id: number;
  parameters: Parameter[];
  results: Parameter[];
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
      results: declaredIn(/^\(.*\)$/.test(outcome) ? outcome.slice(1, -1) : outcome),
    };
    signatures.set(name, found);
  }
  return found;
}

/** A comma-separated list of `type name=default`, where `Tensor(a!)` is written into. */
function declaredIn(list: string): Parameter[] {
  return list
    .split(/, (?![^[]*\])/)
    .map((item) => {
      const [type = "", name = ""] = item.replace(/\([^()]*\)/g, "").split(/[ =]/);
      return { type, name, written: /\((\w+)!/.exec(item)?.[1] ?? null };
    })
    .filter(({ type }) => type !== "*" && type !== "");
}

function wrapResults(result: unknown, declared: Parameter[]): unknown {
  const one = (value: unknown, { type }: Parameter): unknown => {
    if (value === null) return null;
    if (type === "Tensor" || type === "Tensor?") return wrap(value as Handle);
    if (type.startsWith("Tensor")) return (value as Handle[]).map(wrap);
    return value;
  };
  return declared.length === 1
    ? one(result, declared[0] as Parameter)
    : (result as unknown[]).map((v, i) => one(v, declared[i] as Parameter));
}
