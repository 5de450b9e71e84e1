/**
 * A Dockerfile as a list of steps: the stages that a target needs, with arguments filled in, as `docker build` reads
 * it.
 */
import { DockerfileParser } from "dockerfile-ast";

/** PATH of Debian's images. */
export const BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * The steps of a target, from its base image on.
 *
 * @param {string} text the Dockerfile
 * @param {Record<string, string>} given build arguments, as `--build-arg`
 * @returns {{ image: string, steps: { keyword: string, text: string, env: Record<string, string> }[] }} env: what ENV
 *   and ARG have set so far
 */
export function stepsOf(text, given = {}) {
  const stages = [];
  const global = {};
  for (const instruction of DockerfileParser.parse(text).getInstructions()) {
    const keyword = instruction.getKeyword();
    const raw = (instruction.getRawArgumentsContent() ?? "").replace(/\\\r?\n\s*/g, "");
    if (keyword === "FROM") {
      const [, image, name] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(filled(raw, { ...global, ...pick(given, global) }));
      stages.push({ image, name, instructions: [] });
    } else if (stages.length === 0) {
      if (keyword !== "ARG") throw new Error(`${keyword} before the first FROM`);
      const [name, value = ""] = raw.split(/=(.*)/s);
      global[name] = value;
    } else stages.at(-1).instructions.push({ keyword, raw });
  }
  const chain = [];
  for (let stage = stages.at(-1); stage; stage = stages.find(({ name }) => name === chain[0].image))
    chain.unshift(stage);
  const steps = [];
  const env = { PATH: BASE_PATH };
  for (const { instructions } of chain) {
    const args = {};
    for (const { keyword, raw } of instructions) {
      const known = { ...args, ...env };
      if (keyword === "ARG") {
        const [name, value] = raw.split(/=(.*)/s);
        args[name] = given[name] ?? (value === undefined ? (global[name] ?? "") : filled(value, known));
      } else if (keyword === "ENV") {
        for (const [, name, value] of raw.matchAll(/(\w+)=("[^"]*"|\S+)/g))
          env[name] = filled(value.replaceAll('"', ""), known);
      } else {
        // The shell of a RUN fills in variables by itself.
        const isShell = keyword === "RUN" || /^\[/.test(raw);
        steps.push({ keyword, text: isShell ? raw : filled(raw, known), env: { ...args, ...env } });
      }
    }
  }
  return { image: chain[0].image, steps };
}

function pick(given, known) {
  return Object.fromEntries(Object.entries(given).filter(([name]) => name in known));
}

/** `${NAME}` and `$NAME` by their values. */
function filled(text, values) {
  return text.replace(/\$\{(\w+)\}|\$(\w+)/g, (_, braced, bare) => values[braced ?? bare] ?? "");
}
