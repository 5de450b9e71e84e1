import { describe, expect, it } from "vitest";
import { firstHost, rankPlaceOf } from "./launch-environment.js";

const slurm = {
  SLURM_JOB_ID: "4711",
  SLURM_STEP_ID: "0",
  SLURM_STEP_NUM_TASKS: "16",
  SLURM_STEP_NUM_NODES: "2",
  SLURM_STEP_NODELIST: "gpu[07-08]",
  SLURM_PROCID: "9",
  SLURM_LOCALID: "1",
};
const torchrun = { RANK: "0", LOCAL_RANK: "0", WORLD_SIZE: "2", MASTER_ADDR: "127.0.0.1", MASTER_PORT: "29500" };

describe("the place of a process", () => {
  it("is none without a launcher, in a job's batch script, and where one process is all there is", () => {
    expect(rankPlaceOf({})).toBeNull();
    expect(rankPlaceOf({ SLURM_JOB_ID: "1", SLURM_PROCID: "0", SLURM_NTASKS: "8" })).toBeNull();
    expect(rankPlaceOf({ ...slurm, SLURM_STEP_NUM_TASKS: "1", SLURM_PROCID: "0" })).toBeNull();
    expect(rankPlaceOf({ ...torchrun, WORLD_SIZE: "1" })).toBeNull();
  });

  it("is what srun says, with a meeting point that follows from the job", () => {
    expect(rankPlaceOf(slurm)).toEqual({
      rank: 9,
      localRank: 1,
      worldSize: 16,
      oneMachine: false,
      host: "gpu07",
      port: 29500 + 711,
      serves: false,
    });
    expect(rankPlaceOf({ ...slurm, MASTER_ADDR: "head", MASTER_PORT: "1234", SLURM_PROCID: "0" })).toMatchObject({
      host: "head",
      port: 1234,
      serves: true,
    });
    expect(rankPlaceOf({ ...slurm, SLURM_STEP_NUM_NODES: "1" })).toMatchObject({ oneMachine: true });
  });

  it("is what torchrun says, and wins over srun's", () => {
    expect(rankPlaceOf({ ...slurm, ...torchrun })).toEqual({
      rank: 0,
      localRank: 0,
      worldSize: 2,
      oneMachine: true,
      host: "127.0.0.1",
      port: 29500,
      serves: true,
    });
    expect(rankPlaceOf({ ...torchrun, MASTER_ADDR: "head" })).toMatchObject({ oneMachine: false });
    expect(rankPlaceOf({ ...torchrun, MASTER_ADDR: "head", LOCAL_WORLD_SIZE: "2" })).toMatchObject({
      oneMachine: true,
    });
  });

  it("meets at the store of torchrun where that has one, with keys of its own for each start of all ranks", () => {
    const elastic = { ...torchrun, TORCHELASTIC_USE_AGENT_STORE: "True", TORCHELASTIC_RESTART_COUNT: "2" };
    expect(rankPlaceOf(elastic)).toMatchObject({ rank: 0, serves: false, prefix: "/worker/attempt_2" });
    const without = { ...elastic, TORCHELASTIC_USE_AGENT_STORE: "False" };
    expect(rankPlaceOf(without)).toEqual(rankPlaceOf(torchrun));
  });

  it("differs between steps of a job that run side by side", () => {
    expect(rankPlaceOf({ ...slurm, SLURM_STEP_ID: "3" })).toMatchObject({ port: 29500 + 714 });
  });

  it.each([
    [{ ...torchrun, RANK: "2" }, /^RANK: expected a whole number from 0 to 1, found "2"/],
    [{ ...torchrun, RANK: "-1" }, /^RANK: /],
    [{ ...torchrun, MASTER_ADDR: "" }, /^MASTER_ADDR: .*unset RANK to train in one process/],
    [{ ...torchrun, MASTER_PORT: "" }, /^MASTER_PORT: expected a whole number from 1 to 65535, found nothing/],
    [{ ...slurm, SLURM_PROCID: "16" }, /^SLURM_PROCID: /],
    [{ ...slurm, SLURM_STEP_NODELIST: "" }, /^MASTER_ADDR: /],
  ])("is refused by the name of the variable that is wrong: %j", (environment, message) => {
    expect(() => rankPlaceOf(environment)).toThrow(message);
  });
});

it.each([
  ["a", "a"],
  ["a,b", "a"],
  ["gpu[03-05,09],cpu1", "gpu03"],
  ["rack[1,3]-n,x", "rack1-n"],
  ["rack[1-2]node[3-4]", "rack1node3"],
  ["tux[0-2]x[0-3],tux9", "tux0x0"],
  ["gpu-[01,03]-ib0,x", "gpu-01-ib0"],
  ["a-b[0010-0012]", "a-b0010"],
  ["r[1]i[0]n[07-09]-[2,4]", "r1i0n07-2"],
  ["[1-3]", "1"],
  ["bg[000x133]", "bg000"],
  ["c[A0-A9]", "cA0"],
  ["node1.cluster.local,node2", "node1.cluster.local"],
  ["gpu[03", ""],
  ["gpu[]", ""],
  ["", ""],
])("the first host of %j is %j", (list, host) => {
  expect(firstHost(list)).toBe(host);
});
