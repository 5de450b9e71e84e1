/**
 * What the tasks of a job array train: `key=a,b,c` gives the key one value in each task, several keys all combinations,
 * the first changing slowest. Each task has a folder of its own, named after its values.
 */
import { parseDocument } from "yaml";
import { InvalidInputError } from "../../errors.js";
import { about, message } from "../../message.js";

/** What distinguishes one task of an array. */
export interface ArrayTask {
  /** `key=value` for each key. */
  overrides: string[];
  /** Name of its folder inside the run's. */
  folder: string;
}

/**
 * The tasks of an array in their order.
 * @param choices `key=a,b,c`; values are YAML, so lists and quoted texts keep their commas
 * @throws InvalidInputError for a text that is not of this form, and for values that differ in nothing a folder's name
 *   can show
 */
export function arrayTasks(choices: readonly string[]): ArrayTask[] {
  const overrides = choices.reduce<string[][]>(
    (tasks, choice) => tasks.flatMap((task) => overridesOf(choice).map((override) => [...task, override])),
    [[]],
  );
  const tasks = overrides.map((task) => ({ overrides: task, folder: folderOf(task) }));
  const byFolder = new Map<string, ArrayTask>();
  for (const task of tasks) {
    const other = byFolder.get(task.folder);
    if (other !== undefined)
      throw new InvalidInputError(
        message`${about("array")}: ${other.overrides.join(" ")} and ${task.overrides.join(" ")} would share the folder ${task.folder}; leave one out`,
      );
    byFolder.set(task.folder, task);
  }
  return tasks;
}

function overridesOf(choice: string): string[] {
  const at = choice.indexOf("=");
  const values = at < 1 ? null : valuesOf(choice.slice(at + 1));
  if (values === null)
    throw new InvalidInputError(
      message`${about("array")} ${choice}: expected key=value,value,…, for example optimizer.lr=1e-3,2e-3`,
    );
  return values.map((value) => `${choice.slice(0, at)}=${value}`);
}

/** The items of a YAML list without its brackets, as they are written; null where it is none. */
function valuesOf(text: string): string[] | null {
  const list = `[${text}]`;
  const document = parseDocument(list);
  const { contents } = document;
  if (document.errors.length > 0 || contents === null || !("items" in contents)) return null;
  const values = contents.items.map((item) => {
    const [start, end] = (item as { range?: [number, number, number] }).range ?? [0, 0];
    return list.slice(start, end).trim();
  });
  return values.length === 0 || values.includes("") ? null : values;
}

function folderOf(overrides: readonly string[]): string {
  return overrides.map((override) => override.replace(/[^\w.+=-]+/g, "_")).join(",");
}
