import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parse as parseYaml } from "yaml";
import { nearest } from "../../nearest.js";
import { jobVariables, readEnvironment, siteSettings } from "./environment.js";
import { loadRecipe, parseRecipe, recipeToJson } from "./recipe.js";
import { composeRecipe } from "./recipe-source.js";
import { resolvedYaml } from "./resolved-recipe.js";

const folder = mkdtempSync(join(tmpdir(), "miro-recipe-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

export const tiny = `
name: tiny
data: { kind: random, text_len: 3 }
network:
  { data_size: 4, num_input_channels: 4, label_dim: 6, num_cond_tokens: 5, data_dim: 16, num_latents: 4, latents_dim: 16,
    num_processing_layers: 1, num_blocks: 1, patch_size: 2, read_write_heads: 2, compute_heads: 2, use_cond_rin_block: true,
    concat_cond_token_to_latents: false, use_self_conditioning: true, num_text_registers: 2, coherence_keys: [clip_score] }
optimizer: { name: adamw, lr: 0.001 }
lr_scheduler: { warmup_steps: 2 }
trainer: { max_steps: 6, batch_size: 4 }
`;

function load(text: string, ...overrides: string[]) {
  const path = join(folder, "recipe.yaml");
  writeFileSync(path, text);
  return loadRecipe(path, overrides);
}

describe("loadRecipe", () => {
  it("fills in defaults and reads overrides as YAML", () => {
    const recipe = load(
      tiny,
      "trainer.max_steps=20",
      "optimizer.betas=[0.9, 0.99]",
      "network.num_latents=8",
      "samples.prompts=[a cat, a dog]",
    );
    expect(recipe.trainer).toMatchObject({ maxSteps: 20, batchSize: 4, precision: "32-true", gradientClipVal: 2 });
    expect(recipe.optimizer).toMatchObject({ betas: [0.9, 0.99], weightDecay: 0.01 });
    expect(recipe.samples.prompts).toEqual(["a cat", "a dog"]);
    expect(recipe.preconditioning).toMatchObject({ num_latents: 8, latents_dim: 16, sigma_data: 0.5 });
  });

  it("writes what it reads", () => {
    const recipe = load(tiny);
    expect(parseRecipe(recipeToJson(recipe))).toEqual(recipe);
  });

  it.each([
    ["trainer.max_step=3", /unknown key trainer\.max_step; did you mean trainer\.max_steps|did you mean max_steps/],
    ["trainr.max_steps=3", /unknown key trainr; did you mean trainer/],
    ["network.num_latent=3", /unknown key network\.num_latent; did you mean num_latents/],
    ["max_steps=3", /unknown key max_steps; did you mean trainer\.max_steps\?$/],
    ["trainer.lr=1", /unknown key trainer\.lr; did you mean optimizer\.lr\?$/],
    ["data.root=shards", /unknown key data\.root; it is one of kind: shards$/],
    ["data.textlen=3", /unknown key data\.textlen; did you mean text_len/],
    ["trainer.val_check_interval=3", /unknown key trainer\.val_check_interval; .* is validation\.every_n_steps here$/],
    ["model.loss.cond_drop_rate=0.1", /unknown key model\.loss\.cond_drop_rate; .* is loss\.cond_drop_rate here$/],
    ["computer.devices=2", /unknown key computer\.devices; the published code's .* is trainer\.devices here$/],
    ["trainer.batch_size=0", /trainer\.batch_size: .*\(received 0\)/],
    ["trainer.device=gpu", /trainer\.device: expected cpu, cuda or cuda:N \(received "gpu"\)$/],
    ["trainer.precision=fp8", /trainer\.precision: expected one of 32-true, bf16-mixed/],
    ["loss.cond_drop_rate=2", /loss\.cond_drop_rate: .*\(received 2\)/],
    [
      "loss={cond_drop_rate: 0.6, text_drop_rate: 0.5}",
      /loss\.text_drop_rate: expected at most 1 together with .* 0\.6/,
    ],
    ["network.read_write_heads=3", /network\.read_write_heads: must divide/],
    ["lr_scheduler.warmup_steps=6", /lr_scheduler\.warmup_steps: expected fewer than the 6 steps/],
    [
      "ema={decay: [0.9, 0.99], default_index: 2}",
      /ema\.default_index: expected at most 1, the last of .*\(received 2\)/,
    ],
    ["ema={decay: [0.9, 0.9]}", /ema\.decay: expected different values \(received 0\.9, 0\.9\)/],
    ["trainer.cuda_graphs=true", /trainer\.cuda_graphs: expected false on cpu \(received true\)/],
    [
      "trainer={device: 'cuda:1', devices: 2, max_steps: 9, batch_size: 4}",
      /trainer\.device: expected cuda with 2 processes.*\(received cuda:1\)/,
    ],
    ["validation.every_n_steps=2", /validation\.root: expected the folder of the validation shards/],
    ["initialization={from: run, continue: true}", /initialization\.continue: needs a training checkpoint/],
    ["initialization={from: a.ckpt, continue: true, average: raw}", /initialization\.average: .*set either/],
    ["optimizer.lr=fast", /optimizer\.lr: .*received "fast"/],
    ["trainer.max_steps", /expected key=value/],
    ["name.first=x", /name is a value/],
    ["trainer.max_steps=[1", /not valid YAML/],
  ])("refuses %s", (override, message) => {
    expect(() => load(tiny, override)).toThrow(message);
  });

  it("leaves a setting for the CPU out where a GPU or several processes are chosen", () => {
    const text = tiny.replace("batch_size: 4", "batch_size: 4, replicas: 2");
    expect(load(text).trainer.replicas).toBe(2);
    for (const chosen of ["trainer.device=cuda", "trainer.devices=2", "trainer.num_nodes=2"]) {
      expect(load(text, chosen).trainer).not.toHaveProperty("replicas");
      expect(() => load(text, chosen, "trainer.replicas=2")).toThrow(/command line: trainer\.replicas: expected 1 /);
    }
  });

  it("names what is missing", () => {
    expect(() => load(tiny.replace("max_steps: 6, ", ""))).toThrow(/trainer\.max_steps is missing/);
    expect(() => loadRecipe(join(folder, "none.yaml"))).toThrow(/none\.yaml: no such file/);
    expect(() => load("- a\n- b\n")).toThrow(/expected a mapping/);
    expect(() => load("a: [")).toThrow(/not valid YAML/);
  });
});

describe("nearest", () => {
  it("finds misspelt names and no far ones", () => {
    expect(nearest("batchsize", ["batch_size", "max_steps"])).toEqual(["batch_size"]);
    expect(nearest("zzz", ["batch_size", "max_steps"])).toEqual([]);
  });
});

describe("recipes made of parts", () => {
  const write = (name: string, text: string) => {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    return path;
  };
  const none = () => undefined;

  it("merge mappings key by key, replace lists, and remember the line of each value", () => {
    write("parts/one.yaml", "a: { x: 1, y: 2 }\nlist: [1, 2]\n");
    write("parts/two.yaml", "a:\n  y: 3\n  z: 4\n");
    const path = write("whole.yaml", "extends: [parts/one, parts/two.yaml]\nlist: [5]\na:\n  w: 6\n");
    const { json, origins } = composeRecipe(path, ["a.x=7", "b.c=[8]"], none);
    expect(json).toEqual({ a: { x: 7, y: 3, z: 4, w: 6 }, list: [5], b: { c: [8] } });
    const short = Object.fromEntries([...origins].map(([place, origin]) => [place, origin.replace(`${folder}/`, "")]));
    expect(short).toEqual({
      "a.x": "command line",
      "a.y": "parts/two.yaml:2",
      "a.z": "parts/two.yaml:3",
      "a.w": "whole.yaml:4",
      list: "whole.yaml:2",
      "b.c": "command line",
    });
  });

  it("are put on top by extends=, below the other overrides", () => {
    const top = write("top.yaml", "a: { x: 1, y: 2 }\n");
    const path = write("below.yaml", "a: { x: 0, y: 0, z: 0 }\n");
    expect(composeRecipe(path, ["a.x=9", `extends=${top}`], none).json).toEqual({ a: { x: 9, y: 2, z: 0 } });
  });

  it("are refused in a circle", () => {
    write("c1.yaml", "extends: c2\n");
    const path = write("c2.yaml", "extends: c1\n");
    expect(() => composeRecipe(path, [], none)).toThrow(/c2\.yaml: extends itself/);
  });

  it("name the file and the line that extends what is not there", () => {
    const child = write("orphan.yaml", "name: a\nextends: nowhere\n");
    expect(() => composeRecipe(child, [], none)).toThrow(/orphan\.yaml:2: extends: nowhere: no recipe of this name/);
  });

  it("are looked for by nearly their name beside where they are not", () => {
    const path = write("nearby.yaml", "name: a\n");
    expect(() => composeRecipe(path.replace(/yaml$/, "yml"), [], none)).toThrow(
      /nearby\.yml: no such file or directory; did you mean .*nearby\.yaml\?$/,
    );
    const child = write("typing.yaml", "extends: nearbye\n");
    expect(() => composeRecipe(child, [], none)).toThrow(/nearbye: no recipe of this name; did you mean nearby\?$/);
  });

  it.each(["__proto__", "constructor", "prototype"])("never reach the program's own objects by the key %s", (key) => {
    for (const text of [
      `${key}: { polluted: yes }`,
      `a:\n  b: [{ "${key}": { polluted: 1 } }]`,
      `{"a": {"${key}": 1}}`,
    ]) {
      const path = write("hostile.yaml", `name: x\n${text.startsWith("{") ? "z: " : ""}${text}\n`);
      expect(() => composeRecipe(path, [], none)).toThrow(`the key "${key}" is not allowed`);
      expect(() => composeRecipe(path, [], none)).toThrow(/hostile\.yaml:\d: /);
    }
    const path = write("fine.yaml", "a: {}\n");
    for (const override of [`${key}.polluted=1`, `a.${key}.polluted=1`, `a={b: {${key}: 1}}`]) {
      expect(() => composeRecipe(path, [override], none)).toThrow(`${override}: the key "${key}" is not allowed`);
    }
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it("end in an error when they hold themselves or grow without measure, soon and on the command line too", () => {
    const before = process.cpuUsage();
    const circle = write("circle.yaml", "a: &a\n  b: *a\n");
    expect(() => composeRecipe(circle, [], none)).toThrow(/circle\.yaml:2: "a\.b" holds itself/);
    const levels = Array.from({ length: 30 }, (_, i) => `l${i + 1}: &l${i + 1} [${`*l${i},`.repeat(9)}]`);
    const laughs = write("laughs.yaml", ["l0: &l0 [lol]", ...levels].join("\n"));
    expect(() => composeRecipe(laughs, [], none)).toThrow(/laughs\.yaml: not valid YAML: Excessive alias count/);
    const deep = write("deep.yaml", `a: ${"[".repeat(50_000)}`);
    expect(() => composeRecipe(deep, [], none)).toThrow(/deep\.yaml:1: not valid YAML: nested too deep/);
    const closed = write("closed.yaml", `b: 1\na: ${"[".repeat(20_000)}${"]".repeat(20_000)}\n`);
    expect(() => composeRecipe(closed, [], none)).toThrow(/closed\.yaml:2: not valid YAML: nested too deep/);
    const fine = write("fine.yaml", "a: {}\n");
    expect(() => composeRecipe(fine, ["a=&a [*a]"], none)).toThrow(/^a=&a \[\*a\]: /);
    // Each on its own takes a fraction of a second of the processor.
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(5);
  });

  it("are refused when they are larger than any recipe, soon", () => {
    const before = process.cpuUsage();
    const keys = write("keys.yaml", Array.from({ length: 300_000 }, (_, i) => `k${i}: 1\n`).join(""));
    expect(() => composeRecipe(keys, [], none)).toThrow(/keys\.yaml: has more than 10000 keys/);
    const large = write("large.yaml", "#".repeat(5_000_000));
    expect(() => composeRecipe(large, [], none)).toThrow(/large\.yaml: 5000000 bytes are too many/);
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(10);
  });

  it("say each key once in a mapping, at every depth", () => {
    const path = write("twice.yaml", "a: 1\nb:\n  - {x: 1, y: 1}\n  - x: 1\n    'x': 2\n");
    expect(() => composeRecipe(path, [], none)).toThrow(/twice\.yaml:5: not valid YAML: the key "x" stands twice/);
    writeFileSync(path, "name: x\noptimizer:\n  lr: {{ lr }}\n");
    expect(() => composeRecipe(path, [], none)).toThrow(/twice\.yaml:3: not valid YAML: a list or a mapping stands/);
  });

  it("are refused with their first faults and the number of the others", () => {
    const path = write("faults.yaml", Array.from({ length: 200 }, (_, i) => `key${i}: 1\n`).join(""));
    const refusal = (): unknown => loadRecipe(path);
    expect(refusal).toThrow(/faults\.yaml:1: unknown key key0/);
    expect(refusal).toThrow(/\nand 1\d\d more$/);
  });

  it("cannot show a variable that is not meant for recipes", () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the recipe's own syntax
    const path = write("spy.yaml", "name: '${HF_TOKEN:-none}'\n");
    const environment = () => ({ value: "hf_secret", origin: "environment" });
    expect(() => composeRecipe(path, [], environment)).toThrow(
      /spy\.yaml:1: name asks for the variable HF_TOKEN, which no recipe may read; give name=VALUE/,
    );
    expect(() => composeRecipe(path, [], environment)).not.toThrow(/hf_secret/);
    expect(composeRecipe(path, ["name=mine"], environment).json).toEqual({ name: "mine" });
  });

  it("take variables from the environment, unless a value replaces them", () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the recipe's own syntax
    const path = write("env.yaml", "a: { dir: '${MIRO_SITE_DIR}/x', other: '${MIRO_SITE_OTHER:-there}' }\n");
    const environment = (name: string) => (name === "MIRO_SITE_DIR" ? { value: "/d", origin: ".env:3" } : undefined);
    const { json, origins } = composeRecipe(path, [], environment);
    expect(json).toEqual({ a: { dir: "/d/x", other: "there" } });
    expect(origins.get("a.dir")).toBe(".env:3 MIRO_SITE_DIR");
    expect(origins.get("a.other")).toMatch(/env\.yaml:1$/);
    expect(() => composeRecipe(path, [], none)).toThrow(/env\.yaml:1: a\.dir needs the variable MIRO_SITE_DIR/);
    expect(composeRecipe(path, ["a.dir=/own"], none).json).toMatchObject({ a: { dir: "/own" } });
  });

  it("say in errors where the wrong value stands", () => {
    const path = write("wrong.yaml", `${tiny}ema: { decay: 1.5 }\nloss:\n  cond_drop: 1\n`);
    expect(() => loadRecipe(path)).toThrow(/wrong\.yaml:11: ema\.decay: /);
    expect(() => loadRecipe(path, ["ema.decay=0.9"])).toThrow(
      /wrong\.yaml:13: unknown key loss\.cond_drop; did you mean cond_drop_rate/,
    );
    expect(() => load(tiny, "trainer.device_batch_size=3")).toThrow(
      /^command line: trainer\.device_batch_size: .* a divisor of 4 /,
    );
  });

  it("are found by name, and a misspelt name gets the nearest", () => {
    expect(loadRecipe("multi_cad").name).toBe("multi_cad");
    expect(() => loadRecipe("multi_cad_sinth")).toThrow(/no recipe of this name; did you mean multi_cad_synth/);
  });

  it("are printed whole: what is printed is the same recipe without other files", () => {
    const { json, path, origins } = composeRecipe("multi_cad_synth", ["trainer.devices=8", "data.dir=/data"], none);
    const recipe = parseRecipe(json, path, origins);
    const text = resolvedYaml(recipe, origins);
    expect(parseRecipe(parseYaml(text))).toEqual(recipe);
    expect(text).toMatch(/devices: 8 # command line/);
    expect(text).toMatch(/synthetic_embedding_prob: 0\.5 # recipes\/multi_cad_synth\.yaml:\d+/);
    expect(text).toMatch(/max_steps: 500000 # recipes\/base\/released\.yaml:\d+/);
    expect(text).toMatch(/keep_last: 2 # default/);
    expect(text).toMatch(/latents_dim: 1024 # from network\.latents_dim/);
    expect(text.split("\n").filter((line) => /: \S/.test(line) && !line.includes(" # "))).toEqual([]);
  });
});

describe("site settings", () => {
  const env = (text: string, variables = {}) => {
    const path = join(folder, "site.env");
    writeFileSync(path, text);
    return readEnvironment(path, variables);
  };

  it("come from the process, then from .env", () => {
    const text = "# site\nexport MIRO_DATA_DIR=/data\nMIRO_SLURM_PARTITION='gpu 1' # note\n\nMIRO_SLURM_OUTPUT_DIR=\n";
    expect(siteSettings(env(text))).toEqual({
      dataDir: "/data",
      slurmPartition: "gpu 1",
      slurmOutputDir: "./slurm-logs",
    });
    expect(siteSettings(env(text, { MIRO_DATA_DIR: "/other" })).dataDir).toBe("/other");
    expect(env(text)("MIRO_DATA_DIR")).toMatchObject({ origin: expect.stringMatching(/site\.env:2$/) });
    expect(siteSettings(readEnvironment(join(folder, "absent.env"), {})).dataDir).toBeUndefined();
  });

  it("go with a job as they are when it is submitted, and nothing else of the environment does", () => {
    const path = join(folder, "job.env");
    writeFileSync(
      path,
      "MIRO_DATA_DIR=/data\nHF_HOME=/cache\nhttps_proxy=http://proxy:3128\nNCCL_SOCKET_IFNAME=ib0\nMIRO_SLURM_PARTITION=\n" +
        "DB_PASSWORD=hunter2\nAWS_SECRET_ACCESS_KEY=abc\nOPENAI_API_KEY=sk-1\nPATH=/nowhere\nLD_PRELOAD=/x.so\nSLURM_JOB_ID=1\n",
    );
    const variables = jobVariables(path, {
      MIRO_DATA_DIR: "/other",
      LIBTORCH: "/torch",
      HOME: "/home",
      MIRO_CACHE: "/c",
    });
    expect(Object.fromEntries(variables)).toEqual({
      HF_HOME: "/cache",
      LIBTORCH: "/torch",
      MIRO_CACHE: "/c",
      MIRO_DATA_DIR: "/other",
      NCCL_SOCKET_IFNAME: "ib0",
      https_proxy: "http://proxy:3128",
    });
  });

  it.each([
    ["MIRO_DATA_DIR", /site\.env:1: expected NAME=value/],
    ["A=1\nMIRO_DATA_DIR=/a b", /site\.env:2: MIRO_DATA_DIR: put the value in single quotes/],
    ["MIRO_DATA_DIR=$HOME/data", /put the value in single quotes/],
    ['MIRO_DATA_DIR="$HOME/data"', /put the value in single quotes/],
  ])("refuse %j, which a shell would read otherwise", (text, message) => {
    expect(() => env(text)("MIRO_DATA_DIR")).toThrow(message);
  });

  it.each([
    "DB='p@ss word #2'",
    "DB_PASSWORD=p@ss$w0rd!",
    "A = b",
    'KEY="-----BEGIN KEY-----\nMIRO_DATA_DIR=/inside\n-----END KEY-----"',
    "URL=`date`",
    "lines that are\n--- nothing at all",
    'UNCLOSED="abc',
  ])("of other programs do not matter: %j", (foreign) => {
    const environment = env(`${foreign}\nMIRO_DATA_DIR=/data\n`);
    expect(environment("MIRO_DATA_DIR")?.value).toBe("/data");
    expect(Object.fromEntries(jobVariables(join(folder, "site.env"), {}))).toEqual({ MIRO_DATA_DIR: "/data" });
  });

  it.each([
    ["MIRO_DATA_DIR='/my data #2' # note", "/my data #2"],
    ['  export MIRO_DATA_DIR="/my data" ', "/my data"],
    ["MIRO_DATA_DIR=/data#2\t# note", null],
    ["MIRO_DATA_DIR=/data\t# note", "/data"],
    ["\ufeffMIRO_DATA_DIR=/data\r\n", "/data"],
  ])("are read as a shell reads %j", (text, value) => {
    if (value === null) expect(() => env(text)("MIRO_DATA_DIR")).toThrow(/put the value in single quotes/);
    else expect(env(text)("MIRO_DATA_DIR")?.value).toBe(value);
  });

  it("of which a used one is wrong stop a job", () => {
    env("MIRO_DATA_DIR = /data\n");
    expect(() => jobVariables(join(folder, "site.env"), {})).toThrow(
      /site\.env:1: expected NAME=value for MIRO_DATA_DIR/,
    );
  });
});
