import { manualSeed, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { parsePrecondConfig, precondConfigToJson } from "./config.js";
import { FlowPrecond, type Network } from "./precond.js";

const gamma = () => tensor([1e-9, 0.25, 1]);

/** A network that returns its input, so that what is done to input and output can be seen. */
const identity: Network = { forward: ({ y }) => ({ F: y, z: y }) };

const batch = () => ({
  y: randn([3, 4, 2, 2]),
  gamma: gamma(),
  textEmbeddings: randn([3, 1, 2]),
  textMask: tensor([[true], [true], [true]]),
  rewards: {},
});

describe("FlowPrecond", () => {
  it("refuses arguments that there are not, and values that they cannot have", () => {
    expect(() => new FlowPrecond({ sigma: 1 } as never)).toThrow("preconditioning: ");
    expect(() => new FlowPrecond({ sigmaData: 0 })).toThrow(
      "preconditioning: sigmaData: expected a number above 0, received 0",
    );
  });

  it("scales by c_in and c_out", () => {
    scope(() => {
      const precond = new FlowPrecond();
      const cIn = [1, 1 / Math.sqrt(0.125 ** 2 + 0.75 ** 2), 2];
      const actual = precond.cIn(gamma());
      expect(actual.shape).toEqual([3, 1, 1, 1]);
      for (const [i, value] of (actual.flatten().toList() as number[]).entries()) expect(value).toBeCloseTo(cIn[i]!, 6);
      expect(precond.cOut).toBeCloseTo(1.118033988749895, 12);

      const b = batch();
      const { D } = precond.apply(identity, b);
      const expected = b.y.mul(actual).mul(Math.sqrt(1.25));
      expect(D.sub(expected).abs().max().item()).toBeLessThan(1e-5);
    });
  });

  it("gives the network zeros where there are no latents yet: in training as many as there are latents", () => {
    scope(() => {
      const precond = new FlowPrecond({ numLatents: 5, latentsDim: 4 });
      let given: Tensor | null | undefined;
      const network: Network = {
        forward: ({ y, previousLatents }) => {
          given = previousLatents;
          return { F: y, z: y };
        },
      };
      for (const [training, shape] of [
        [true, [3, 5, 4]],
        [false, [1, 1, 4]],
      ] as const) {
        precond.train(training);
        precond.apply(network, { ...batch(), previousLatents: null });
        expect(given!.shape).toEqual(shape);
        expect(given!.abs().sum().item()).toBe(0);
      }
      const latents = randn([3, 5, 4]);
      precond.apply(network, { ...batch(), previousLatents: latents });
      expect(given).toBe(latents);
    });
  });

  it.each([
    [true, true],
    ["noise_driven", true],
    [false, false],
    ["none", false],
  ])("do_normalization %s", (value, on) => {
    scope(() => {
      const precond = new FlowPrecond(parsePrecondConfig({ do_normalization: value }));
      const b = batch();
      const { D } = precond.apply(identity, b);
      expect(D.sub(b.y).abs().max().item() === 0).toBe(!on);
    });
  });

  it("has the published names, and PyTorch's initial values", () => {
    manualSeed(3);
    const names = (layers: number) => [...new FlowPrecond({ logvarMlpLayers: layers }).stateDict().keys()];
    expect(names(0).sort()).toEqual([
      "logvar_proj.0.freqs",
      "logvar_proj.0.phases",
      "logvar_proj.1.bias",
      "logvar_proj.1.weight",
    ]);
    expect(
      names(2)
        .filter((name) => name.endsWith("weight"))
        .sort(),
    ).toEqual(["logvar_proj.1.weight", "logvar_proj.3.weight", "logvar_proj.5.weight"]);
    const state = new FlowPrecond().stateDict();
    expect(state.get("logvar_proj.1.weight")!.abs().max().item()).toBeLessThanOrEqual(1 / Math.sqrt(128));
    expect(state.get("logvar_proj.1.bias")!.abs().max().item()).toBeGreaterThan(0);
  });

  it("has no log-variance without reweighting, and says so where it is asked for", () => {
    scope(() => {
      const precond = new FlowPrecond(parsePrecondConfig({ do_gradnorm_reweighting: false }));
      expect([...precond.stateDict().keys()]).toEqual([]);
      expect(() => precond.logvar(gamma())).toThrow(/^doGradnormReweighting: expected true/);
    });
  });

  it("gives the log-variance a gradient, and its frequencies none", () => {
    scope(() => {
      const precond = new FlowPrecond();
      const u = precond.logvar(gamma());
      expect(u.shape).toEqual([3, 1, 1, 1]);
      u.sum().backward();
      expect([...precond.namedParameters()].map(([name, p]) => [name, p.grad !== null])).toEqual([
        ["logvar_proj.1.weight", true],
        ["logvar_proj.1.bias", true],
      ]);
    });
  });

  it("reads and writes its configuration", () => {
    const json = { ...precondConfigToJson(parsePrecondConfig({})), latents_dim: 1024, do_normalization: true };
    expect(precondConfigToJson(parsePrecondConfig(json))).toEqual(json);
    expect(() => parsePrecondConfig({ sigma: 1 })).toThrow("preconditioning.sigma: unknown argument");
  });
});
