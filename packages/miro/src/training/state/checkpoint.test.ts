import { execFileSync } from "node:child_process";
import fs, { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, tensor } from "@miro-t2i/torch";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BatchSpan } from "../../data/shards/order.js";
import {
  checkpointToResume,
  listCheckpoints,
  loadTrainingCheckpoint,
  readTrainingState,
  saveTrainingCheckpoint,
  setAsideNewer,
  spansAfter,
  type TrainingCheckpoint,
} from "./checkpoint.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-checkpoint-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (step: number): TrainingCheckpoint => ({
  state: {
    format: 1,
    step,
    emaUpdates: step,
    skippedSteps: 0,
    seconds: 1.5,
    optimizerStep: step,
    recipe: { name: "x" },
  },
  network: { w: tensor([step, 2]) },
  emas: { ema_network: { w: tensor([3]) }, ema_network_0_999: { w: tensor([step]) } },
  optimizer: { "0.exp_avg": tensor([4]) },
});

describe("training checkpoints", () => {
  it("come back as they were, the newest few are kept", () => {
    scope(() => {
      for (const step of [1, 2, 30]) saveTrainingCheckpoint(folder, at(step), { keepLast: 2 });
      expect(listCheckpoints(folder).map(({ step }) => step)).toEqual([2, 30]);
      const loaded = loadTrainingCheckpoint(listCheckpoints(folder).at(-1)!.path);
      expect(loaded.state).toEqual(at(30).state);
      expect(loaded.network.w!.toList()).toEqual([30, 2]);
      expect(loaded.emas.ema_network!.w!.toList()).toEqual([3]);
      expect(loaded.emas.ema_network_0_999!.w!.toList()).toEqual([30]);
      expect(loaded.optimizer["0.exp_avg"]!.toList()).toEqual([4]);
    });
  });

  it("stay where their step is a multiple of the one to keep", () => {
    scope(() => {
      for (const step of [5, 10, 15, 20, 25, 30])
        saveTrainingCheckpoint(folder, at(step), { keepLast: 1, keepEveryNSteps: 10 });
      expect(listCheckpoints(folder).map(({ step }) => step)).toEqual([10, 20, 30]);
    });
  });

  it("carry hashes in the form of sha256sum, which are checked before a run continues", () => {
    const write = () => scope(() => saveTrainingCheckpoint(folder, at(7)));
    const path = write();
    expect(() => execFileSync("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: path })).not.toThrow();
    expect(checkpointToResume(folder, true)).toEqual({ step: 7, path });
    const damaged = (change: () => void, message: RegExp) => {
      change();
      expect(() => checkpointToResume(folder, true)).toThrow(message);
      expect(() => checkpointToResume(folder, true)).toThrow(/no earlier checkpoint is whole.*begin anew/);
      write();
    };
    const file = (name: string) => join(path, name);
    for (const name of ["network", "ema", "ema_0_999", "optimizer"])
      damaged(
        () => {
          const bytes = readFileSync(file(`${name}.safetensors`));
          bytes[bytes.length - 1]! ^= 1;
          writeFileSync(file(`${name}.safetensors`), bytes);
        },
        new RegExp(`step-00000007/${name}\\.safetensors: is damaged: its SHA-256 is not the one in SHA256SUMS`),
      );
    const state = readFileSync(file("state.json"), "utf8");
    damaged(
      () => writeFileSync(file("state.json"), state.replace('"step": 7', '"step": 8')),
      /state\.json: is damaged/,
    );
    damaged(() => rmSync(file("ema.safetensors")), /ema\.safetensors: is missing/);
    damaged(() => writeFileSync(file("ema_0_5.safetensors"), ""), /ema_0_5\.safetensors: is not listed in SHA256SUMS/);
    damaged(() => writeFileSync(file("SHA256SUMS"), "../../x"), /SHA256SUMS: is damaged: a line is no hash/);
    damaged(() => writeFileSync(file("SHA256SUMS"), ""), /is not listed in SHA256SUMS/);
    expect(checkpointToResume(folder, true)).toEqual({ step: 7, path });
  });

  it("that are damaged are refused with the step of the newest whole one, which can be chosen", () => {
    scope(() => {
      for (const step of [1, 2, 3, 4]) saveTrainingCheckpoint(folder, at(step), { keepLast: 4 });
    });
    const path = (step: number) => join(folder, `step-0000000${step}`);
    writeFileSync(join(path(4), "network.safetensors"), "");
    rmSync(join(path(3), "state.json"));
    expect(() => checkpointToResume(folder, true)).toThrow(
      /step-00000004\/network\.safetensors: is damaged: .*: `resume: 2` continues from there$/,
    );
    expect(() => checkpointToResume(folder, 3)).toThrow(/step-00000003\/state\.json: is missing; .*`resume: 2`/);
    expect(() => checkpointToResume(folder, 9)).toThrow(
      /^resume: .* holds no checkpoint of step 9; there are those of 1, 2, 3, 4/,
    );
    expect(checkpointToResume(folder, 2)).toEqual({ step: 2, path: path(2) });
    expect(setAsideNewer(folder, 2)).toEqual([3, 4].map((step) => join(folder, `replaced-step-0000000${step}`)));
    expect(checkpointToResume(folder, true)).toEqual({ step: 2, path: path(2) });
    expect(readlinkSync(join(folder, "last"))).toBe("step-00000002");
    expect(checkpointToResume(join(folder, "none"), true)).toBeUndefined();
  });

  it("of an early version, without hashes, are continued when they can be read", () => {
    const path = scope(() => saveTrainingCheckpoint(folder, at(7)));
    rmSync(join(path, "SHA256SUMS"));
    expect(checkpointToResume(folder, true)).toEqual({ step: 7, path });
    writeFileSync(join(path, "network.safetensors"), "cut");
    expect(() => checkpointToResume(folder, true)).toThrow(/network\.safetensors/);
  });

  it("are pointed at by a link, the newest one", () => {
    scope(() => {
      for (const step of [1, 2, 3]) {
        saveTrainingCheckpoint(folder, at(step));
        expect(loadTrainingCheckpoint(join(folder, "last")).state.step).toBe(step);
      }
    });
  });

  it("count as stored where the link cannot be made, which leads nowhere else then", () => {
    const { symlinkSync } = fs;
    scope(() => {
      saveTrainingCheckpoint(folder, at(1), { keepLast: 1 });
      fs.symlinkSync = () => {
        throw Object.assign(new Error("full"), { code: "ENOSPC" });
      };
      syncBuiltinESMExports();
      try {
        saveTrainingCheckpoint(folder, at(2), { keepLast: 1 });
      } finally {
        fs.symlinkSync = symlinkSync;
        syncBuiltinESMExports();
      }
      expect(readdirSync(folder)).toEqual(["step-00000002"]);
      saveTrainingCheckpoint(folder, at(3), { keepLast: 1 });
      expect(readdirSync(folder)).toEqual(["last", "step-00000003"]);
    });
  });

  it("hold any number of EMA weights", () => {
    scope(() => {
      const emas = { ema_network: { w: tensor([3]) }, ema_network_0_999: { w: tensor([6]) } };
      saveTrainingCheckpoint(folder, { ...at(1), emas });
      const loaded = loadTrainingCheckpoint(join(folder, "last"));
      expect(Object.keys(loaded.emas).sort()).toEqual(["ema_network", "ema_network_0_999"]);
      expect(loaded.emas.ema_network_0_999!.w!.toList()).toEqual([6]);
    });
  });

  it("are replaced when the same step is stored again", () => {
    scope(() => {
      saveTrainingCheckpoint(folder, at(5));
      saveTrainingCheckpoint(folder, at(5));
      expect(readdirSync(folder)).toEqual(["last", "step-00000005"]);
    });
  });

  it("ignore and clear what a killed process left", () => {
    scope(() => {
      const dead = processIdentity().replace(/\d+$/, "1"); // this process' id, of a time before
      const half = join(folder, `.step-00000009.${dead}.0123456789ab.tmp`);
      mkdirSync(half);
      writeFileSync(join(half, "network.safetensors"), "half");
      mkdirSync(join(folder, `.step-00000001.${dead}.0123456789ab.tmp`));
      expect(listCheckpoints(folder)).toEqual([]);
      saveTrainingCheckpoint(folder, at(10));
      expect(readdirSync(folder)).toEqual(["last", "step-00000010"]);
    });
  });

  it("leave alone what a living process writes, or one of which nothing is known", () => {
    scope(() => {
      const elsewhere = processIdentity().replace(/^[0-9a-f]{12}/, "0123456789ab");
      const others = [processIdentity(), elsewhere].map((owner) => `.step-00000009.${owner}.0123456789ab.tmp`);
      for (const name of others) mkdirSync(join(folder, name));
      saveTrainingCheckpoint(folder, at(10));
      expect(readdirSync(folder).sort()).toEqual([...others, "last", "step-00000010"].sort());
    });
  });

  it("say that earlier ones are intact when writing fails", () => {
    scope(() => {
      saveTrainingCheckpoint(folder, at(1));
      const bad = { ...at(2), state: { ...at(2).state, recipe: 1n } };
      expect(() => saveTrainingCheckpoint(folder, bad)).toThrow(
        /step-00000002: the checkpoint could not be written: .* earlier ones are intact/,
      );
      expect(readdirSync(folder)).toEqual(["last", "step-00000001"]);
    });
  });

  it("refuse a state without its counts or its recipe", () => {
    mkdirSync(join(folder, "step-00000001"));
    writeFileSync(join(folder, "step-00000001", "state.json"), '{"format": 1, "step": -1}');
    expect(() => loadTrainingCheckpoint(join(folder, "step-00000001"))).toThrow(/state\.json: step: .*found -1/);
    const { recipe, ...rest } = at(1).state;
    writeFileSync(join(folder, "step-00000001", "state.json"), JSON.stringify(rest));
    expect(() => loadTrainingCheckpoint(join(folder, "step-00000001"))).toThrow(
      /state\.json: recipe: .*found undefined/,
    );
  });

  it("refuse sizes of batches that do not follow one another from step 0 on", () => {
    const path = saveTrainingCheckpoint(folder, at(4), {});
    const stored = JSON.parse(readFileSync(join(path, "state.json"), "utf8"));
    const read = (batches: unknown) => {
      writeFileSync(join(path, "state.json"), JSON.stringify({ ...stored, batches }));
      return readTrainingState(path).batches;
    };
    const spans = [
      { from: 0, batchSize: 8 },
      { from: 3, batchSize: 16 },
    ];
    expect(read(spans)).toEqual(spans);
    for (const wrong of [
      [],
      [spans[1]],
      [spans[0], spans[0]],
      [spans[0], spans[1], spans[1]],
      [{ from: 0, batchSize: 0 }],
      [{ from: 0, batchSize: 2.5 }],
      [spans[0], { ...spans[1], from: 3.5 }],
      { from: 0, batchSize: 8 },
      [null],
    ])
      expect(() => read(wrong), JSON.stringify(wrong)).toThrow(/state\.json: batches: expected \[\{ from: 0/);
  });

  it("refuse a broken state file by name", () => {
    mkdirSync(join(folder, "step-00000001"));
    writeFileSync(join(folder, "step-00000001", "state.json"), '{"format": 1, "st');
    expect(() => loadTrainingCheckpoint(join(folder, "step-00000001"))).toThrow(
      /state\.json: not a readable training state/,
    );
  });
});

describe("the sizes that the batches of a run have had", () => {
  const after = (step: number, batches: BatchSpan[] | undefined, batchSize: number) =>
    spansAfter({ ...at(step).state, ...(batches && { batches }) }, batchSize);
  const spans = [
    { from: 0, batchSize: 8 },
    { from: 5, batchSize: 16 },
  ];

  it("go on with the last one, or another from the checkpoint's step on", () => {
    expect(after(7, spans, 16)).toEqual(spans);
    expect(after(7, spans, 8)).toEqual([...spans, { from: 7, batchSize: 8 }]);
    expect(after(0, undefined, 4)).toEqual([{ from: 0, batchSize: 4 }]);
  });

  it("leave out one that no step was made with", () => {
    expect(after(5, spans, 32)).toEqual([spans[0], { from: 5, batchSize: 32 }]);
    expect(after(5, spans, 8)).toEqual([spans[0]]);
    expect(after(3, spans, 8)).toEqual([spans[0]]);
  });

  it("of an early version are all one", () => {
    const origin = { globalBatch: 8, samplesSeen: 24, processes: 1, code: { miro: "0", torch: "0" } };
    expect(spansAfter({ ...at(3).state, origin }, 16)).toEqual([
      { from: 0, batchSize: 8 },
      { from: 3, batchSize: 16 },
    ]);
  });
});
