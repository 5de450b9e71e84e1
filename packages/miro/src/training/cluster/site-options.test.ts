import { describe, expect, it } from "vitest";
import type { Environment } from "../recipes/environment.js";
import { type SiteOptions, sbatchEnvironment, withSiteOptions } from "./site-options.js";

const site = (variables: Record<string, string>): Environment => {
  return (name) => (variables[name] === undefined ? undefined : { value: variables[name], origin: ".env:3" });
};
const options = (given: Partial<SiteOptions>, variables: Record<string, string>) => {
  const all = withSiteOptions(given as SiteOptions, site(variables));
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
};

describe("options of a site", () => {
  it("hold where none is given", () => {
    const variables = {
      SBATCH_PARTITION: "gpu",
      SBATCH_ACCOUNT: "vision",
      SBATCH_QOS: "high",
      SBATCH_CONSTRAINT: "a100",
      SBATCH_MEM_PER_NODE: "64G",
      SBATCH_TIMELIMIT: "1-0",
      SBATCH_GPUS_PER_NODE: "8",
      MIRO_SLURM_PROLOGUE: "modules.sh",
    };
    const found = {
      partition: "gpu",
      account: "vision",
      qos: "high",
      constraint: "a100",
      mem: "64G",
      time: "1-0",
      gpusPerNode: "8",
      prologue: "modules.sh",
    };
    expect(options({}, variables)).toEqual(found);
    expect(options({ account: "own", mem: "0" }, variables)).toEqual({ ...found, account: "own", mem: "0" });
    expect(options({ partition: "own" }, { MIRO_SLURM_PARTITION: "a", SBATCH_PARTITION: "b" }).partition).toBe("own");
    expect(options({}, { MIRO_SLURM_PARTITION: "a", SBATCH_PARTITION: "b" }).partition).toBe("a");
  });

  it("a flag for GPUs replaces both of the variables", () => {
    const variables = { SBATCH_GRES: "gpu:4", SBATCH_GPUS_PER_NODE: "4" };
    expect(options({ gpusPerNode: "8" }, variables)).toEqual({ gpusPerNode: "8" });
    expect(options({ gres: "gpu:8" }, variables)).toEqual({ gres: "gpu:8" });
  });

  it("are checked as flags are, and the error says where they are set", () => {
    expect(() => options({}, { SBATCH_MEM: "much" })).toThrow(
      '.env:3: SBATCH_MEM: expected a size as 64G, or 0 for all memory, received "much"',
    );
  });

  it("do not reach sbatch, for which they would override the script", () => {
    const kept = { HOME: "/home/me", SLURM_CONF: "/slurm.conf", SBATCH_RESERVATION: "r", SBATCH_EXPORT: "NONE" };
    const dropped = { SLURM_NTASKS: "4", SBATCH_PARTITION: "x", SBATCH_SIGNAL: "USR2@1", SBATCH_ARRAY_INX: "0-9" };
    expect(sbatchEnvironment({ ...kept, ...dropped })).toEqual(kept);
  });
});
