import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { empty, full, randn, zeros } from "../creation.js";
import { memory } from "../memory.js";
import * as nn from "../nn/index.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { loadModule, loadModuleInPieces, type StoredTensor } from "./load-module.js";
import { SafetensorsFile, writeSafetensors } from "./safetensors.js";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-load-"));
  path = join(folder, "model.safetensors");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

class Net extends nn.Module {
  readonly linear = this.register("linear", new nn.Linear(700, 900));
  readonly frequencies = this.buffer("frequencies", zeros([3]), { keepDtype: true });
  readonly mask = this.parameter("mask", zeros([2], { dtype: "bool" }), { requiresGrad: false });
}

const values = () => ({
  "linear.weight": randn([900, 700]),
  "linear.bias": randn([900]),
  frequencies: full([3], 1.0009765625 / 3),
  mask: zeros([2], { dtype: "bool" }),
});

function write(change: (tensors: Record<string, Tensor>) => void = () => {}): Record<string, Tensor> {
  const tensors: Record<string, Tensor> = values();
  change(tensors);
  writeSafetensors(path, tensors);
  return tensors;
}

function load(options: Parameters<typeof loadModule>[2] = {}): Net {
  using file = SafetensorsFile.open(path);
  const net = new Net();
  try {
    loadModule(net, new Map<string, StoredTensor>(file.keys().map((key) => [key, { file, key }])), options);
  } catch (error) {
    net.dispose();
    throw error;
  }
  return net;
}

const same = (a: Tensor, b: Tensor) => scope(() => a.eq(b).all().item()) === 1;

describe("a module's values from a file", () => {
  it("are those of the file, whatever was cut into pieces", () =>
    scope(() => {
      const stored = write();
      using net = load();
      for (const [name, tensor] of net.stateDict()) expect([name, same(tensor, stored[name]!)]).toEqual([name, true]);
      expect(net.linear.weight.requiresGrad).toBe(true);
    }));

  it.each([{}, { dtype: "bfloat16" }] as const)("come in pieces, after each of which %j can be given up", (options) =>
    scope(() => {
      write();
      using file = SafetensorsFile.open(path);
      const stored = new Map<string, StoredTensor>(file.keys().map((key) => [key, { file, key }]));
      const pieces = [...loadModuleInPieces(new Net(), stored, options)].length;
      expect(pieces).toBeGreaterThan(stored.size); // the matrix is of several
      for (let taken = 0; taken < pieces; taken++) {
        using net = new Net();
        const before = memory.stats().liveTensors;
        const work = loadModuleInPieces(net, stored, options);
        for (let i = 0; i < taken; i++) work.next();
        work.return();
        expect(memory.stats().liveTensors).toBe(before);
      }
    }),
  );

  it("take the wanted dtype, as the engine rounds; buffers that keep theirs do", () =>
    scope(() => {
      const stored = write();
      using net = load({ dtype: "bfloat16" });
      expect(net.linear.weight.dtype).toBe("bfloat16");
      expect(same(net.linear.weight, stored["linear.weight"]!.to("bfloat16"))).toBe(true);
      expect(net.frequencies.dtype).toBe("float32");
      expect(same(net.frequencies, stored.frequencies!)).toBe(true);
      expect(net.mask.dtype).toBe("bool");
    }));

  it("outlive the file, which may be cut or replaced once they are loaded", () =>
    scope(() => {
      const stored = write();
      using net = load();
      truncateSync(path, 0);
      expect(same(net.linear.weight, stored["linear.weight"]!)).toBe(true);
    }));

  it.each<[string, (tensors: Record<string, Tensor>) => void, RegExp]>([
    ["missing", (t) => void delete t["linear.bias"], /do not fit: missing \(1\): linear\.bias$/],
    ["unexpected", (t) => void Object.assign(t, { more: zeros([1]) }), /do not fit: unexpected \(1\): more$/],
    [
      "misshapen",
      (t) => void Object.assign(t, { "linear.bias": zeros([5]) }),
      /wrong shape \(1\): linear\.bias: expected \[900\], got \[5\]$/,
    ],
    [
      "of another kind",
      (t) => void Object.assign(t, { "linear.bias": zeros([900], { dtype: "int64" }) }),
      /wrong dtype \(1\): linear\.bias: expected a floating dtype, got I64$/,
    ],
    [
      "of another kind",
      (t) => void Object.assign(t, { mask: zeros([2]) }),
      /wrong dtype \(1\): mask: expected bool, got F32$/,
    ],
    [
      "not finite",
      (t) => void (t["linear.weight"] as Tensor).view(-1).select(0, 400_000).fill_(Number.NaN),
      /model\.safetensors, tensor "linear\.weight": element 400000 is not finite \(NaN\): the file is damaged \(NotFinite\)$/,
    ],
    [
      "infinite",
      (t) => void (t["linear.bias"] as Tensor).select(0, 7).fill_(Number.NEGATIVE_INFINITY),
      /element 7 is not finite \(-Infinity\)/,
    ],
  ])("are refused when one is %s", (_what, change, message) =>
    scope(() => {
      write(change);
      const before = memory.stats().liveTensors;
      expect(() => load()).toThrow(message);
      expect(memory.stats().liveTensors).toBe(before);
    }),
  );

  it("are refused when one does not fit the wanted dtype", () =>
    scope(() => {
      write((t) => void (t["linear.bias"] as Tensor).select(0, 7).fill_(1e30));
      expect(() => load({ dtype: "float16" })).toThrow(/element 7 does not fit dtype float16/);
    }));
});

describe("a file that is cut short while it is open", () => {
  it("is an error, not the end of the process", () =>
    scope(() => {
      write();
      using file = SafetensorsFile.open(path);
      truncateSync(path, 10_000);
      const target = empty([900, 700]);
      expect(() => file.copyTo("linear.weight", target)).toThrow(/cut short while it was read: it had \d+ bytes, now/);
      expect(() => file.get("linear.weight")).toThrow(/changed while it was read/);
    }));
});
