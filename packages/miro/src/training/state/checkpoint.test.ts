import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, tensor } from "@miro-t2i/torch";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  listCheckpoints,
  loadTrainingCheckpoint,
  saveTrainingCheckpoint,
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

  it("are pointed at by a link, the newest one", () => {
    scope(() => {
      for (const step of [1, 2, 3]) {
        saveTrainingCheckpoint(folder, at(step));
        expect(loadTrainingCheckpoint(join(folder, "last")).state.step).toBe(step);
      }
    });
  });

  it("hold any number of averages", () => {
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

  it("refuse a state without its counts", () => {
    mkdirSync(join(folder, "step-00000001"));
    writeFileSync(join(folder, "step-00000001", "state.json"), '{"format": 1, "step": -1}');
    expect(() => loadTrainingCheckpoint(join(folder, "step-00000001"))).toThrow(/state\.json: step: .*found -1/);
  });

  it("refuse a broken state file by name", () => {
    mkdirSync(join(folder, "step-00000001"));
    writeFileSync(join(folder, "step-00000001", "state.json"), '{"format": 1, "st');
    expect(() => loadTrainingCheckpoint(join(folder, "step-00000001"))).toThrow(
      /state\.json: not a readable training state/,
    );
    expect(existsSync(folder)).toBe(true);
  });
});
