import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { field } from "../../options.js";
import {
  checkSamplerOptions,
  evaluationsOf,
  registerSampler,
  samplerMethod,
  samplerNames,
  samplerOptionsOfAll,
  samplerTitle,
  stepsWithin,
  withOptionsOf,
} from "./index.js";

const builtIn = samplerNames();
const twice = {
  order: 1,
  title: "Euler twice",
  options: z.strictObject({
    coarse: field(z.boolean().default(false), { expected: "true or false", help: "skip the second half" }),
    eta: field(z.number().default(0.5), { expected: "a number", help: "noise" }),
  }),
  evaluations: (steps: number) => 3 * steps,
  step: ({ x }: { x: import("@miro-t2i/torch").Tensor }) => x,
};

describe("the registry of samplers", () => {
  it("takes a sampler from outside: name, evaluations, title and options are known everywhere", () => {
    registerSampler("euler_twice", twice);
    expect(samplerNames()).toEqual([...builtIn, "euler_twice"]);
    expect(samplerMethod("euler_twice").order).toBe(1);
    expect(evaluationsOf("euler_twice", 5)).toBe(15);
    expect(stepsWithin("euler_twice", 16)).toBe(5);
    expect(stepsWithin("euler_twice", 2)).toBe(1);
    expect(samplerTitle("euler_twice")).toBe("Euler twice");
    const options = samplerOptionsOfAll();
    expect(options.map(({ key, samplers }) => [key, samplers])).toEqual([
      ["eta", ["euler_ancestral", "euler_twice"]],
      ["coarse", ["euler_twice"]],
    ]);
    expect(checkSamplerOptions("euler_twice", { coarse: true })).toEqual({ coarse: true, eta: 0.5 });
    expect(withOptionsOf("euler_ancestral", { coarse: true, eta: 0.1 })).toEqual({ eta: 0.1 });
    expect(withOptionsOf("euler", { eta: 0.1 })).toBeUndefined();
  });

  it("refuses names that are taken or could not be a file's, and options without defaults", () => {
    expect(() => registerSampler("euler", twice)).toThrow("sampler: expected a name that no sampler has");
    expect(() => registerSampler("Euler 2", twice)).toThrow(
      'sampler: expected a name of lower-case letters, digits and _, received "Euler 2"',
    );
    const needed = { ...twice, options: z.strictObject({ rho: z.number() }) };
    expect(() => registerSampler("needy", needed)).toThrow("needy.options.rho: expected a schema with a default");
    expect(() => registerSampler("needy", { ...twice, options: { rho: z.number() } as never })).toThrow(
      "needy.options: expected z.object({ … }) of options",
    );
    expect(samplerNames()).not.toContain("needy");
  });

  it("names the option that a sampler does not have, or that is out of range", () => {
    expect(() => checkSamplerOptions("euler", { eta: 1 })).toThrow(
      "samplerOptions.eta: expected an option of the sampler euler (it has no options)",
    );
    expect(() => checkSamplerOptions("euler_ancestral", { rho: 1 })).toThrow(
      "samplerOptions.rho: expected an option of the sampler euler_ancestral (its options are eta)",
    );
    expect(() => checkSamplerOptions("euler_ancestral", { eta: "much" })).toThrow(
      'samplerOptions.eta: expected a number from 0 to 1, received "much"',
    );
    expect(() => samplerMethod("magic")).toThrow("sampler: expected one of euler, heun,");
  });

  it("agrees with the documentation's table", () => {
    const page = readFileSync(path.join(import.meta.dirname, "../../../../../docs/sampling.md"), "utf8");
    const rows = [...page.matchAll(/^\| `(\w+)` +\| ([^|]+?) +\| (\d) +\| ([^|]*?) *\|$/gm)].map((row) =>
      row.slice(1, 5),
    );
    const words = ["", "one per step", "two per step"];
    expect(
      rows.map(([name, evaluations, order, options]) => [name, evaluations!.split(/[,;]/)[0], order, options]),
    ).toEqual(
      builtIn.map((name) => [
        name,
        words[Math.round(evaluationsOf(name, 1000) / 1000)],
        String(samplerMethod(name).order),
        Object.keys(samplerMethod(name).options?.shape ?? {})
          .map((key) => `\`--${key}\``)
          .join(", "),
      ]),
    );
  });
});
