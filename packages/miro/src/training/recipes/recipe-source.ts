/**
 * Reads a recipe from its files, the command line and the environment, and remembers where every value comes from.
 *
 *   extends: [base/data, base/released]    other recipes, applied in order before this file
 *   dir: ${MIRO_DATA_DIR:-datasets} a variable of the environment or of .env, with a value for when it is not set
 *
 * Mappings are merged key by key; anything else, lists included, replaces what was there. A recipe is named by its
 * path, or by its name: `NAME.yaml` beside the file that names it (on the command line: in the working directory), else
 * in the folder `recipes` of the working directory, else among those that come with the program, which have
 * `recipes/NAME.yaml` for a path too. Overrides `a.b.c=value` come last; a value is read as YAML (`3`, `true`, `[a,
 * b]`, `text`). `extends=NAME` as an override applies another recipe on top, before the other overrides.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parse as parseYaml } from "yaml";
import { checkList, checkName, isObject, isText } from "../../arguments.js";
import { InvalidInputError, invalid } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { checkKey, checkPlainData } from "../../files/plain-data.js";
import { readYamlFile, shownPath } from "../../files/yaml-file.js";
import { nearest } from "../../nearest.js";
import { type Environment, mayBeInRecipe, readEnvironment } from "./environment.js";

/** Where values come from by their path (`trainer.max_steps`): `FILE:LINE`, `command line`, `environment NAME`. */
export type Origins = ReadonlyMap<string, string>;

/** A recipe put together from its parts, not checked yet. */
export interface ComposedRecipe {
  json: Record<string, unknown>;
  origins: Origins;
  /** The file that was asked for. */
  path: string;
}

type Json = Record<string, unknown>;

/** Extension that recipe files have. */
const extension = /\.ya?ml$/;

/** Where recipes find the models that come with the program, unless it is set: `${MIRO_MODELS}/miro-emoji/vae`. */
const MODELS_VARIABLE = "MIRO_MODELS";

/** The folder of the models that come with the program, or null when they are not there. */
function shippedModels(): string | null {
  const candidates = ["../../../models", "../../../../../models"].map((path) => new URL(path, import.meta.url));
  const folder = candidates.find((candidate) => existsSync(candidate));
  return folder === undefined ? null : fileURLToPath(folder);
}

/** The recipes that come with the program, or null when they are not there. */
function bundledRecipes(): string | null {
  for (const candidate of ["../../../recipes", "../../../../../recipes"]) {
    const folder = fileURLToPath(new URL(candidate, import.meta.url));
    if (existsSync(join(folder, "base"))) return folder;
  }
  return null;
}

/**
 * Puts a recipe together.
 * @throws InvalidInputError naming file and line, or the override, that is wrong; MiroError for a file that cannot be
 *   read
 */
export function composeRecipe(
  name: string,
  overrides: readonly string[] = [],
  environment: Environment = readEnvironment(),
): ComposedRecipe {
  checkName("recipe", name, "a recipe: its name or file");
  checkList("overrides", overrides, "a list of overrides, each name=value", isText);
  if (typeof environment !== "function") throw invalid("environment", "what readEnvironment gives", environment);
  const composer = new Composer();
  const path = composer.apply(name, ".", []);
  const pairs = overrides.map(parseOverride);
  for (const { path: place, value, text } of pairs)
    if (place === "extends") for (const part of extended(value, text)) composer.apply(part, ".", []);
  for (const { path: place, value, text } of pairs) if (place !== "extends") composer.override(place, value, text);
  composer.fill(environment);
  return { json: composer.json, origins: composer.origins, path };
}

class Composer {
  readonly json: Json = {};
  readonly origins = new Map<string, string>();

  /** Merges a file, after what it extends. Returns its path. @param where the file is asked for, for an error */
  apply(name: string, folder: string, parents: readonly string[], where = ""): string {
    const path = locate(name, folder, where);
    const real = existsSync(path) ? realpathSync(path) : path;
    if (parents.includes(real))
      throw new InvalidInputError(
        `${shownPath(path)}: extends itself (by way of ${parents.map(shownPath).join(", ")})`,
      );
    const { json, placeOf } = readYamlFile(path);
    const { extends: parts, ...own } = json;
    const place = placeOf("extends");
    for (const part of parts === undefined ? [] : extended(parts, place))
      this.apply(part, dirname(path), [...parents, real], `${place}: extends: `);
    this.#merge(this.json, own, "", placeOf);
    return path;
  }

  override(place: string, value: unknown, text: string): void {
    const path = place.split(".");
    const last = path.pop()!;
    let inside = this.json;
    for (const key of path) {
      if (inside[key] === undefined) inside[key] = {};
      if (!isObject(inside[key])) throw new InvalidInputError(`${text}: ${key} is a value, it has no parts`);
      inside = inside[key];
    }
    this.#forget(place);
    inside[last] = undefined;
    this.#merge(inside, { [last]: value }, path.map((key) => `${key}.`).join(""), () => "command line");
  }

  /** Puts variables in their places. */
  fill(environment: Environment): void {
    const filled = (value: unknown, place: string): unknown => {
      if (Array.isArray(value)) return value.map((item) => filled(item, place));
      if (isObject(value)) {
        for (const [key, item] of Object.entries(value))
          value[key] = filled(item, place === "" ? key : `${place}.${key}`);
        return value;
      }
      if (typeof value !== "string") return value;
      // Behind the last } there is no variable, however many begin there: so each that begins is looked through once.
      const end = value.lastIndexOf("}") + 1;
      const filledIn = value
        .slice(0, end)
        .replace(/\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}/g, (_, name: string, otherwise?: string) => {
          if (!mayBeInRecipe(name))
            throw new InvalidInputError(
              `${this.origins.get(place)}: ${place} asks for the variable ${name}, which no recipe may read; give ${place}=VALUE, or set a variable whose name begins with MIRO_`,
            );
          const variable = environment(name);
          if (variable === undefined && name === MODELS_VARIABLE && shippedModels() !== null) return shippedModels()!;
          if (variable === undefined && otherwise === undefined)
            throw new InvalidInputError(
              `${this.origins.get(place)}: ${place} needs the variable ${name}; set it in the environment or in .env, or give ${place}=VALUE`,
            );
          if (variable !== undefined) this.origins.set(place, `${variable.origin} ${name}`);
          return variable?.value ?? otherwise!;
        });
      return filledIn + value.slice(end);
    };
    filled(this.json, "");
  }

  #merge(into: Json, from: Json, prefix: string, origin: (place: string) => string): void {
    for (const [key, value] of Object.entries(from)) {
      const place = `${prefix}${key}`;
      const before = into[key];
      if (isObject(value) && Object.keys(value).length > 0) {
        if (!isObject(before)) {
          this.#forget(place);
          into[key] = {};
        }
        this.#merge(into[key] as Json, value, `${place}.`, origin);
      } else {
        if (isObject(value) && isObject(before)) continue; // nothing to add
        this.#forget(place);
        into[key] = value;
        this.origins.set(place, origin(place));
      }
    }
  }

  #forget(place: string): void {
    for (const known of this.origins.keys())
      if (known === place || known.startsWith(`${place}.`)) this.origins.delete(known);
  }
}

/** The file of a recipe; see the top. */
function locate(name: string, folder: string, where: string): string {
  const beside = resolve(folder, extension.test(name) ? name : `${name}.yaml`);
  if (existsSync(beside)) return beside;
  const libraries = ["recipes", bundledRecipes()].filter((library) => library !== null);
  const found = libraries
    .map((library) => join(library, `${name.replace(/^(?:\.\/)?recipes\//, "").replace(extension, "")}.yaml`))
    .find((path) => existsSync(path));
  if (found !== undefined) return found;
  const own = isFolder(dirname(beside)) ? readdirSync(dirname(beside)).filter((other) => extension.test(other)) : [];
  if (extension.test(name)) {
    const near = nearest(basename(name), own).map((other) => join(dirname(name), other));
    const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : "";
    throw new InvalidInputError(`${where}${name}: no such file or directory${hint}`);
  }
  const near = nearest(name, [...own.map((other) => other.replace(extension, "")), ...recipeNames()]);
  const hint = near.length > 0 ? `did you mean ${near.join(" or ")}?` : `there are ${recipeNames().join(", ")}`;
  throw new InvalidInputError(`${where}${name}: no recipe of this name; ${hint}`);
}

/** Names of the recipes that `miro train NAME` finds without a path. */
export function recipeNames(): string[] {
  const libraries = ["recipes", bundledRecipes()].filter((library) => library !== null && existsSync(library));
  const names = libraries.flatMap((library) => readdirSync(library!).filter((name) => extension.test(name)));
  return [...new Set(names.map((name) => name.replace(extension, "")))].sort();
}

function extended(value: unknown, where: string): string[] {
  const names = Array.isArray(value) ? value : [value];
  if (names.every((name): name is string => typeof name === "string" && name !== "")) return names;
  throw new InvalidInputError(`${where}: extends: expected the name of a recipe or a list of names`);
}

function parseOverride(text: string): { path: string; value: unknown; text: string } {
  const at = text.indexOf("=");
  const path = text.slice(0, at);
  if (at < 1) throw new InvalidInputError(`${text}: expected key=value, for example trainer.max_steps=1000`);
  const keys = path.split(".");
  if (keys.includes("")) throw new InvalidInputError(`${text}: ${path} is not the path of a value`);
  for (const key of keys) checkKey(key, text);
  let value: unknown;
  try {
    value = parseYaml(text.slice(at + 1));
  } catch {
    throw new InvalidInputError(`${text}: the value is not valid YAML`);
  }
  checkPlainData(value, () => text);
  return { path, value, text };
}
