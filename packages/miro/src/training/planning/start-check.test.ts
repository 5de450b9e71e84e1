import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../../emoji/register.js";
import { makeTinyParts, type TinyParts, tinyEmojiJson } from "../../emoji/training/testing/tiny-emoji.js";
import { FileLock } from "../../files/file-lock.js";
import { runTraining } from "../loop/run.js";
import { parseRecipe } from "../recipes/recipe.js";
import { RUN_LOCK } from "../state/run-lock.js";
import type { StartOptions } from "./folder-check.js";
import { checkStart } from "./start-check.js";

const root = mkdtempSync(join(tmpdir(), "miro-start-"));
const run = join(root, "run");
let parts: TinyParts;
afterAll(() => rmSync(root, { recursive: true, force: true }));
beforeAll(async () => {
  parts = await makeTinyParts(root);
  await runTraining({ recipe: recipe(), output: run });
});

const recipe = (trainer: object = {}, rest: object = {}, data: object = {}) =>
  parseRecipe(tinyEmojiJson(parts, join(root, "cache"), { trainer, rest, data }));

/** What would stop a run, as `subject: finding`. */
async function found(what: ReturnType<typeof recipe>, options: Partial<StartOptions> = {}): Promise<string[]> {
  const checks = await checkStart(what, { output: join(root, "new"), ...options });
  return checks.flatMap(({ status, subject, finding }) => (status === "missing" ? [`${subject}: ${finding}`] : []));
}

describe("what would stop a run", () => {
  it("is nothing where nothing would, and everything else is told as found", async () => {
    expect(await found(recipe())).toEqual([]);
    const checks = await checkStart(recipe(), { output: join(root, "new") });
    expect(checks.map(({ subject, status }) => `${subject} ${status}`)).toEqual(
      ["trainer.device", "memory", "data.text_encoder", "data.autoencoder", "output", "disk"].map(
        (name) => `${name} ok`,
      ),
    );
    const elsewhere = await checkStart(recipe(), { output: join(root, "new"), here: false });
    expect(elsewhere.map(({ subject }) => subject)).not.toContain("memory");
  });

  it("is not a setting that has no effect, which is noted and said when the run begins", async () => {
    const never = { validation: { root: "shards" }, samples: { every_n_steps: 0, prompts: ["a cat"] } };
    const unused = ["validation.root", "samples.prompts"].map(
      (key) => [key, `is not used, because ${key.split(".")[0]}.every_n_steps is 0`] as const,
    );
    const checks = await checkStart(recipe({}, never), { output: join(root, "new") });
    for (const [subject, finding] of unused) expect(checks).toContainEqual({ status: "note", subject, finding });
    const said: string[] = [];
    await runTraining({
      recipe: recipe({ max_steps: 2 }, never),
      output: join(root, "never"),
      onMessage: (message) => said.push(message),
    });
    for (const [subject, finding] of unused) expect(said).toContain(`${subject} ${finding}`);
  });

  it("is a folder that holds a run which is not to go on, or goes on by another recipe, or in which one trains", async () => {
    expect(await found(recipe(), { output: run })).toEqual([`output: ${run}: holds a run at step 3`]);
    const folders = (await checkStart(recipe(), { output: run })).filter(({ subject }) => subject === "output");
    expect(folders.map(({ status }) => status)).toEqual(["missing"]);
    expect(await found(recipe(), { output: run, resume: true })).toEqual([]);
    const changed = recipe({}, { optimizer: { lr: 1 }, seed: 5 });
    expect(await found(changed, { output: run, resume: true })).toEqual([
      expect.stringMatching(/^checkpoint: .*made by another recipe, which differs in seed, optimizer\.lr$/),
    ]);
    const { remedy } = (await checkStart(changed, { output: run, resume: true })).find(
      ({ subject }) => subject === "checkpoint",
    )!;
    expect(String(remedy)).toMatch(/`allowChanges: true`$/);
    expect(await found(changed, { output: run, resume: true, allowChanges: true })).toEqual([]);
    expect(await found(recipe(), { output: run, resume: 2 })).toEqual([
      expect.stringMatching(/holds no checkpoint of step 2; there are those of 3/),
    ]);
    const lock = FileLock.acquire(run, RUN_LOCK) as FileLock;
    try {
      expect(await found(recipe(), { output: run, resume: true })).toEqual([
        expect.stringMatching(new RegExp(`process ${process.pid} on .* trains here`)),
      ]);
    } finally {
      lock.release();
    }
  });

  it("is a frozen model that is not there, not whole, or of other sizes", async () => {
    const broken = join(root, "broken");
    cpSync(parts.textEncoder, broken, { recursive: true });
    rmSync(join(broken, "tokenizer.json"));
    expect(await found(recipe({}, {}, { text_encoder: broken, autoencoder: join(root, "no") }))).toEqual([
      expect.stringMatching(/^data\.text_encoder: tokenizer\.json not found in .*broken/),
      `data.autoencoder: ${join(root, "no")} is not there`,
    ]);
    const network = { ...recipe().network, label_dim: 24 };
    expect(await found(recipe({}, { network }))).toEqual([
      expect.stringMatching(/^data\.text_encoder: .*states are 16 wide, network\.label_dim is 24$/),
    ]);
  });

  it("is weights to start with that are not there, or of another network", async () => {
    const from = (path: string, network: object = {}) =>
      found(recipe({}, { initialization: { from: path }, network: { ...recipe().network, ...network } }));
    for (const path of [run, join(run, "export")]) {
      expect(await from(path)).toEqual([]);
      expect(await from(path, { coherence_dropout: 0.1 })).toEqual([]);
      expect(await from(path, { data_dim: 32 })).toEqual([
        expect.stringMatching(/^initialization\.from: .*another network: network\.data_dim is 16 there and 32 here$/),
      ]);
    }
    // Larger patches are not grown, smaller ones are.
    expect(await from(run, { patch_size: 4 })).toEqual([
      expect.stringMatching(/^initialization\.from: .*network\.patch_size is 2 there and 4 here$/),
    ]);
    expect(await from(run, { patch_size: 1 })).toEqual([]);
    expect(await from(join(root, "no.ckpt"))).toEqual([expect.stringMatching(/^initialization\.from: .*no\.ckpt/)]);
  });

  it("is a testbed without its embeddings, and a scorer that nobody knows", async () => {
    const testbed = join(root, "testbed");
    mkdirSync(testbed);
    writeFileSync(join(testbed, "metadata.csv"), "file_name,text\n00-apple,a red apple\n");
    const samples = { every_n_steps: 1, testbed, testbed_count: 1, scorers: ["beauty"] };
    expect(await found(recipe({}, { samples }))).toEqual([
      expect.stringMatching(/^samples\.testbed: .*00-apple.* is not there; run miro testbed/),
      expect.stringMatching(/^samples\.scorers: "beauty" is not known/),
    ]);
  });

  it("is too little memory", async () => {
    expect(await found(recipe({ batch_size: 1e9 }))).toEqual([expect.stringMatching(/^memory: about [\d,.]+ TiB of /)]);
  });
});
