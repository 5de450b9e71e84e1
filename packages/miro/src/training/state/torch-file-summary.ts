/** What files of `torch.save` hold, for people: of any such file, not only of checkpoints of the published code. */
import { Opaque, PickledBytes, type PickleValue, TorchCheckpoint } from "@miro-t2i/torch/io";
import { isTensor, readMoments } from "./published-checkpoint.js";

/**
 * What a file of `torch.save` holds, for people: plain values as they are, of dictionaries of tensors their modules,
 * dtypes and parameters, of the optimizer its groups. Values are not read.
 */
export function describeTorchFile(path: string): Record<string, unknown> {
  using checkpoint = TorchCheckpoint.open(path);
  const { root } = checkpoint;
  if (!(root instanceof Map)) return { file: path, value: summary(root) };
  const isState = !(root.get("state_dict") instanceof Map) && [...root.values()].some(isTensor);
  const entries = isState
    ? { tensors: describeTensors(root) }
    : Object.fromEntries(
        [...root].map(([key, value]): [string, unknown] => {
          if (value instanceof Map && [...value.values()].some(isTensor)) return [String(key), describeTensors(value)];
          if (key === "optimizer_states" && Array.isArray(value))
            return [String(key), value.map((state) => describeOptimizer(checkpoint, state))];
          return [String(key), summary(value)];
        }),
      );
  return { file: path, ...entries };
}

function describeTensors(dictionary: ReadonlyMap<PickleValue, PickleValue>): Record<string, unknown> {
  const modules = new Map<string, { tensors: number; parameters: number }>();
  const dtypes: Record<string, number> = {};
  let others = 0;
  for (const [key, value] of dictionary) {
    if (!isTensor(value)) {
      others++;
      continue;
    }
    const parts = String(key)
      .split(".")
      .filter((part) => part !== "_orig_mod");
    const name = parts[0] === "postprocessing" && parts[1] === "vae" ? "postprocessing.vae" : parts[0]!;
    const module = modules.get(name) ?? { tensors: 0, parameters: 0 };
    modules.set(name, module);
    module.tensors++;
    if (value.formatDtype.includes("float")) module.parameters += value.numel;
    dtypes[value.formatDtype] = (dtypes[value.formatDtype] ?? 0) + 1;
  }
  return { modules: Object.fromEntries(modules), dtypes, ...(others > 0 && { "not tensors": others }) };
}

function describeOptimizer(file: TorchCheckpoint, value: PickleValue): unknown {
  if (!(value instanceof Map)) return summary(value);
  const [groups, state] = [value.get("param_groups"), value.get("state")];
  if (!Array.isArray(groups)) return summary(value);
  const steps = state instanceof Map ? [...state.values()].map((entry) => readMoments(file, entry)?.step ?? 0) : [];
  return {
    steps: steps.reduce((most, step) => Math.max(most, step), 0),
    "tensors with moments": steps.length,
    groups: groups.map((group) =>
      group instanceof Map
        ? Object.fromEntries(
            [...group].map(([key, item]) => [
              String(key),
              key === "params" && Array.isArray(item) ? item.length : summary(item),
            ]),
          )
        : summary(group),
    ),
  };
}

/** A value in JSON, cut where it becomes long. */
function summary(value: PickleValue | undefined, depth = 0): unknown {
  if (value === undefined || value === null || typeof value === "boolean" || typeof value === "number")
    return value ?? null;
  if (typeof value === "string") return value.length > 200 ? `${value.slice(0, 200)}…` : value;
  if (typeof value === "bigint") return summary(String(value));
  if (isTensor(value)) return `tensor (${value.shape.join(", ")}) ${value.formatDtype}`;
  if (value instanceof Opaque) return `${value.description}, not read`;
  if (value instanceof PickledBytes) return `${value.bytes.length} bytes`;
  if (value instanceof Set) return `a set of ${value.size}`;
  if (Array.isArray(value))
    return depth > 2 || value.length > 20 ? `${value.length} values` : value.map((item) => summary(item, depth + 1));
  if (value instanceof Map)
    return depth > 2 || value.size > 20
      ? `${value.size} entries`
      : Object.fromEntries([...value].map(([key, item]) => [String(key), summary(item, depth + 1)]));
  return "a value of its own kind";
}
