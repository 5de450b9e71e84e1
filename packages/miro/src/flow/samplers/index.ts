/** The samplers of this package, each a file. */
import { ab2 } from "./ab2.js";
import { dpmpp2m } from "./dpmpp-2m.js";
import { euler } from "./euler.js";
import { eulerAncestral } from "./euler-ancestral.js";
import { heun } from "./heun.js";
import { midpoint } from "./midpoint.js";
import { registerSampler } from "./registry.js";

registerSampler("euler", euler);
registerSampler("heun", heun);
registerSampler("midpoint", midpoint);
registerSampler("ab2", ab2);
registerSampler("dpmpp_2m", dpmpp2m);
registerSampler("euler_ancestral", eulerAncestral);

export * from "./registry.js";
export { ab2, dpmpp2m, euler, eulerAncestral, heun, midpoint };
