/** The samplers of this package, each a file. */
import { invalid } from "../../errors.js";
import { namesInThreads } from "../../extension-modules.js";
import { ab2 } from "./ab2.js";
import { dpmpp2m } from "./dpmpp-2m.js";
import { euler } from "./euler.js";
import { eulerAncestral } from "./euler-ancestral.js";
import { heun } from "./heun.js";
import { midpoint } from "./midpoint.js";
import { registerSampler, samplerNames, samplers } from "./registry.js";

registerSampler("euler", euler);
registerSampler("heun", heun);
registerSampler("midpoint", midpoint);
registerSampler("ab2", ab2);
registerSampler("dpmpp_2m", dpmpp2m);
registerSampler("euler_ancestral", eulerAncestral);

const builtIn: readonly string[] = samplerNames();

/** Names of the samplers that pipelines in threads can draw with. */
export function samplersInThreads(): string[] {
  return namesInThreads(samplers(), builtIn);
}

/**
 * Checks in a thread what the thread that calls it knows.
 * @throws InvalidInputError for a sampler that is registered there alone
 */
export function checkInThread(sampler: string | undefined): void {
  if (sampler === undefined || samplerNames().includes(sampler)) return;
  const expected = "one that threads know too: registered in a file of its own, with module: import.meta.url";
  throw invalid("sampler", expected, sampler);
}

export * from "./registry.js";
export { ab2, dpmpp2m, euler, eulerAncestral, heun, midpoint };
