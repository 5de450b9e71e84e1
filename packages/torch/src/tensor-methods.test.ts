/**
 * Every method of scripts/tensor-methods.mjs, called in each form that it accepts, against the generated wrapper of its
 * operator: the arguments are those of the operator's lines in tests/reference/ops.table.jsonl, whose values are
 * compared with PyTorch's by ops.conformance.test.ts. A method without lines, or with an option that no line gives a
 * value other than its default, is an error here.
 */
import { describe, expect, test } from "vitest";
import { aten, Generator, schemas, scope, setNumThreads, Tensor } from "./index.js";
import { type ArgumentSpec, type Case, makeArguments, table } from "./testing/op-table.js";

interface Parameter {
  id: string;
  hasDefault: boolean;
  /** As the schema writes it: `None`, `False`, `1`, `0.5`. */
  default: string;
  keywordOnly: boolean;
}
interface Operator {
  key: string;
  /** Those of the schema, `self` first. */
  parameters: Parameter[];
  /** What the table fixes, by the schema's name. */
  constants: Map<string, string>;
}
interface Shape {
  operators: Operator[];
  parameters: Parameter[];
  /** The method's name of each parameter of an operator. */
  of(operator: Operator): { id: string; parameter: Parameter }[];
  lists: boolean;
}
type Row = [method: string, operators: string, doc: string];

const script = (name: string): Promise<any> => import(new URL(`../scripts/${name}`, import.meta.url).href);
const { parseOperator } = await script("schemas.mjs");
const { byKey, methodShape } = await script("generate-tensor.mjs");
const { TENSOR_METHODS } = await script("tensor-methods.mjs");

const known = byKey(schemas().map(parseOperator).filter(Boolean));
const rows = Object.values<Row[]>(TENSOR_METHODS).flat();

/** Stands for a generator of its own, at the start of its stream in every call. */
const GENERATOR = "generator";
/** Draws have no line: what they give depends on the generator. Their values are compared in random.test.ts. */
const DRAWS: Record<string, ArgumentSpec[][]> = {
  normal_: [[{ t: [2, 3] }, 0.5, 2, GENERATOR]],
  uniform_: [[{ t: [2, 3] }, -1, 2, GENERATOR]],
  "bernoulli_.float": [[{ t: [2, 3] }, 0.25, GENERATOR]],
};
const cases = new Map<string, Case[]>();
for (const spec of table.map((line) => JSON.parse(line) as Case)) {
  const key = spec.op.replace("aten::", "");
  cases.set(key, [...(cases.get(key) ?? []), spec]);
}
for (const [key, lines] of Object.entries(DRAWS))
  cases.set(
    key,
    lines.map((args) => ({ op: `aten::${key}`, args })),
  );

setNumThreads(1);

/** Dtypes, shapes and values of what a call gives; a method's named results as the wrapper's list. */
function described(result: unknown): unknown {
  const tensors = result instanceof Tensor ? [result] : Object.values(result as Record<string, Tensor>);
  return tensors.map((t) => [t.dtype, t.shape, t.strides, t.toList()]);
}

/** Runs a call on fresh arguments. */
function outcome(spec: Case, run: (args: unknown[]) => unknown): unknown {
  return scope(() => {
    const { args } = makeArguments(spec, spec.dtypes === "integer" ? "int64" : "float64", "cpu");
    return described(run(args.map((arg) => (arg === GENERATOR ? new Generator().manualSeed(5) : arg))));
  });
}

/** What a line gives to the parameters of a method, by their names; null where it is not a call of the method. */
function givenBy(spec: Case, operator: Operator, shape: Shape): Map<string, number> | null {
  const names = new Map(shape.of(operator).map(({ id, parameter }) => [parameter.id, id]));
  const given = new Map<string, number>();
  for (let i = 1; i < spec.args.length; i++) {
    const { id } = operator.parameters[i]!;
    const fixed = operator.constants.get(id);
    if (fixed === undefined) given.set(names.get(id)!, i);
    else if (String(spec.args[i]) !== fixed) return null;
  }
  return given;
}

/** Whether an argument is another than the parameter's default: a form that drops a default cannot be told. */
function differs(argument: ArgumentSpec, parameter: Parameter): boolean {
  if (!parameter.hasDefault) return true;
  const value = argument !== null && typeof argument === "object" && "f" in argument ? argument.f : argument;
  const defaults: Record<string, unknown> = { None: null, False: false, True: true };
  const usual = Object.hasOwn(defaults, parameter.default) ? defaults[parameter.default] : Number(parameter.default);
  return value !== usual;
}

/** The forms of a call: optional parameters by place, by name, and the first few by place with the rest by name. */
function forms({ parameters, lists }: Shape, given: Map<string, number>): ((args: unknown[]) => unknown[])[] {
  const value = (args: unknown[], { id }: Parameter) => (given.has(id) ? args[given.get(id)!] : undefined);
  if (lists) {
    const [only] = parameters.filter((p) => !p.hasDefault) as [Parameter];
    return [(args) => value(args, only) as number[], (args) => [value(args, only)]];
  }
  const required = parameters.filter((p) => !p.hasDefault);
  const optional = parameters.filter((p) => p.hasDefault);
  const byPlace = (args: unknown[]) => [...required, ...optional].map((p) => value(args, p));
  const positional = optional.filter((p) => !p.keywordOnly).length;
  const cuts = [...new Set([0, 1, positional])].filter((cut) => cut < optional.length);
  return [
    byPlace,
    ...cuts.map((cut) => (args: unknown[]) => [
      ...[...required, ...optional.slice(0, cut)].map((p) => value(args, p)),
      Object.fromEntries(optional.slice(cut).flatMap((p) => (given.has(p.id) ? [[p.id, value(args, p)]] : []))),
    ]),
  ];
}

describe.each(rows)("%s calls %s", (...row) => {
  const [method] = row;
  const shape: Shape = methodShape(row, known);
  const told = new Set<string>();

  test("in every form, as the generated wrapper does", () => {
    for (const operator of shape.operators) {
      const wrapper = (aten as unknown as Record<string, (...args: unknown[]) => unknown>)[
        operator.key.replace(".", "_")
      ]!;
      const lines = (cases.get(operator.key) ?? []).flatMap((spec) => {
        const given = givenBy(spec, operator, shape);
        return given === null ? [] : [{ spec, given }];
      });
      expect(lines.length, `lines of the table for ${operator.key}`).toBeGreaterThan(0);
      for (const { spec, given } of lines) {
        const expected = outcome(spec, (args) => wrapper(...args));
        for (const [id, i] of given) if (differs(spec.args[i]!, operator.parameters[i]!)) told.add(id);
        for (const [i, form] of forms(shape, given).entries()) {
          const got = outcome(spec, (args) => {
            const self = args[0] as Tensor;
            return (self as unknown as Record<string, (...args: unknown[]) => unknown>)[method]!(...form(args));
          });
          expect(got, `form ${i} of ${JSON.stringify(spec)}`).toEqual(expected);
        }
      }
    }
    const required = shape.parameters.filter((p) => !shape.lists || !p.hasDefault);
    const untold = required.map(({ id }) => id).filter((id) => !told.has(id));
    expect(untold, "parameters that no line of the table gives, or none but their defaults").toEqual([]);
  });
});
