import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runCaptured } from "./testing/run-captured.js";

describe("miro train", () => {
  const call = async (...args: string[]) => {
    const { code, stdout: out, stderr: err } = await runCaptured("train", ...args);
    return { code, out, err };
  };

  it("--dry-run ends with 1 and says what is missing, also as JSON", async () => {
    const args = ["multi_cad", "data.dir=/nowhere", "trainer.device=cpu", "trainer.device_batch_size=1", "--dry-run"];
    const { code, out, err } = await call(...args, "--json");
    expect(code).toBe(1);
    expect(err).toMatch(/the run cannot start: 3 things are missing: \/nowhere\/cc12m\/train, /);
    expect(JSON.parse(out)).toMatchObject({ name: "multi_cad", ready: false, data: { ready: false }, release: true });
    const { out: text } = await call(...args);
    expect(text).toMatch(/360,411,664 trainable/);
    expect(text).toMatch(/release {6}written at the end/);
    expect(text).not.toMatch(/\de\+\d/);
  });

  it("--dry-run finds at once all that would stop a run", async () => {
    const folder = mkdtempSync(join(tmpdir(), "miro-hindrances-"));
    try {
      const file = join(folder, "file");
      writeFileSync(file, "");
      const args = [
        ...["emoji-shards", `data.root=${folder}/none`, `data.text_encoder=${folder}/no/text`],
        ...[`data.autoencoder=${folder}/no/vae`, "initialization.from=/nowhere/model", "trainer.device=cuda:99"],
        ...["trainer.replicas=1", "trainer.max_steps=1000000000000", "trainer.keep_every_n_steps=1"],
        ...["--output", join(file, "run"), "--dry-run"],
      ];
      const { code, out, err } = await call(...args);
      expect(code).toBe(1);
      expect(err).toMatch(
        /: 7 things are missing: .*none, trainer\.device, data\.text_encoder, data\.autoencoder, initialization\.from, output, disk\n$/,
      );
      for (const line of [
        /MISSING {2}trainer\.device: "cuda:99" is not available|MISSING {2}trainer\.device: trainer\.devices: expected at most/,
        /MISSING {2}data\.text_encoder: .*no\/text is not there\n {13}data\.text_encoder=DIR names another folder/,
        /MISSING {2}data\.autoencoder: .*no\/vae is not there/,
        /MISSING {2}initialization\.from: \/nowhere\/model.*no such folder/,
        /MISSING {2}output: .*file is a file, not a folder\n {13}--output/,
        /MISSING {2}disk: 1,000,000,000,003 checkpoints of .* MB/,
      ])
        expect(out).toMatch(line);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("leaves nothing where it cannot begin", async () => {
    const folder = mkdtempSync(join(tmpdir(), "miro-no-start-"));
    try {
      const args = ["emoji", `data.cache=${folder}/cache`, "data.text_encoder=nowhere", "trainer.replicas=1"];
      const { code, err } = await call(...args, "--output", join(folder, "runs", "one"));
      expect([code, err]).toEqual([2, expect.stringMatching(/error: data\.text_encoder: nowhere is not there/)]);
      expect(readdirSync(folder)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("--print shows each value with its origin", async () => {
    const { code, out } = await call("multi_cad", "trainer.devices=8", "data.dir=/data", "--print", "--json");
    expect(code).toBe(0);
    const values = Object.fromEntries(JSON.parse(out).values.map((item: { path: string }) => [item.path, item]));
    expect(values["trainer.devices"]).toMatchObject({ value: 8, origin: "command line" });
    expect(values["optimizer.name"].origin).toMatch(/^recipes\/base\/released\.yaml:\d+$/);
    expect(values["trainer.keep_last"].origin).toBe("default");
  });

  it.each([
    [["multi_cad", "trainer.devices=7"], /trainer\.batch_size: expected a multiple of the 7 processes .*received 1024/],
    [
      ["multi_cad", "trainer.presicion=32-true"],
      /command line: unknown key trainer\.presicion; did you mean precision/,
    ],
    [
      ["multi_cad", "--max-steps", "4"],
      /unknown option '--max-steps'; settings of the recipe .* trainer\.max_steps=1000/m,
    ],
    [["multi_cad", "ema.decay=[0.9, 0.9]"], /ema\.decay: expected different values/],
    [["multi_cat"], /no recipe of this name; did you mean multi_cad/],
  ])("refuses %j with 2", async (args, message) => {
    const { code, err } = await call(...args, "--dry-run");
    expect(code).toBe(2);
    expect(err).toMatch(message);
  });

  it("takes --resume before and behind the recipe, with a step, with an equals sign, and with none", async () => {
    const print = ["--print", "--json"];
    const plain = (await call("multi_cad", "data.dir=/data", ...print)).out;
    for (const args of [
      ["--resume", "multi_cad", "data.dir=/data"],
      ["--resume=4", "multi_cad", "data.dir=/data"],
      ["multi_cad", "--resume", "data.dir=/data"],
      ["multi_cad", "data.dir=/data", "--resume", "4"],
      ["multi_cad", "data.dir=/data", "--resume=4"],
    ]) {
      expect(await call(...args, ...print)).toMatchObject({ code: 0, out: plain });
    }
    expect(await call("multi_cad", "--resume=", ...print)).toMatchObject({
      code: 2,
      err: expect.stringContaining("the step of a checkpoint"),
    });
    expect((await call("multi_cad", "--resume=3", "4", ...print)).err).toMatch(/expected one step, received 3 and 4/);
  });

  it.each([
    [["trainer.devices=16"], /trainer\.devices: expected at most the \d+ GPUs of this machine \(received 16\)/],
    [["trainer.num_nodes=2"], /trainer\.num_nodes: 2 machines need one process for each device/],
  ])("refuses to train on more than it can reach: %j", async (args, message) => {
    const output = join(tmpdir(), "miro-never");
    const { code, err } = await call("multi_cad", ...args, "--output", output);
    expect(code).toBe(2);
    expect(err).toMatch(message);
    expect(existsSync(output)).toBe(false);
  });
});
