/** What another package registers works in threads, in further processes and on the command line. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const folder = mkdtempSync(path.join(tmpdir(), "miro-outside-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const fixture = (name: string) => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
const command = fileURLToPath(new URL("../../packages/miro/bin/miro.mjs", import.meta.url));

/** A program's standard output. */
function output(args: readonly string[], env: Record<string, string> = {}): string {
  const options = { encoding: "utf8", cwd: folder, env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, args, options);
  expect(stderr, stderr).not.toMatch(/^error/m);
  expect(status, stderr).toBe(0);
  return stdout;
}

/** `miro`, which loads what another package registers first. */
const miro = (...args: string[]) => output([command, ...args], { NODE_OPTIONS: `--import ${fixture("own.mjs")}` });

test("in the threads of pipelines and of the studio", () => {
  const { program, here, inThread, studio } = JSON.parse(output([fixture("draw.mjs"), path.join(folder, "studio")]));
  expect(inThread.digest).toBe(here.digest);
  const unknown = /sampler: expected one that threads know too: .*import\.meta\.url, received "here_alone"/;
  expect(inThread.unknown).toMatch(unknown);
  expect(studio).toEqual({
    offered: ["short_euler", "redness", "emoji_clip_score"],
    sampler: "done",
    unknown: expect.stringMatching(unknown),
    scorer: "done",
    bundledScorer: "done",
  });
  // The program would run again in each thread, and start threads there.
  expect(program).toMatch(/InvalidInputError: program\.module: expected a file of its own/);
}, 120_000);

test("on the command line, options of a sampler among its flags", () => {
  expect(miro("generate", "--help")).toMatch(/--lengthen <value> +of short_euler: factor of every step/);
  const drawn = miro("generate", "a fox", "--sampler", "short_euler", "--lengthen", "0.5", "--steps", "2", "--json");
  const [{ path: file }] = JSON.parse(drawn).images;
  expect(JSON.parse(miro("info", file, "--json")).settings).toMatchObject({
    sampler: "short_euler",
    samplerOptions: { lengthen: 0.5 },
  });
  expect(JSON.parse(miro("score", file, "--by", "redness", "--json")).means.redness).toBeGreaterThan(0);
});

test("in the processes of a training, and as what is trained", () => {
  writeFileSync(
    path.join(folder, "constant.yaml"),
    `name: constant
data: { kind: constant, value: 0.5 }
network:
  { data_size: 4, label_dim: 8, num_cond_tokens: 4, num_input_channels: 4, patch_size: 2, data_dim: 16, num_latents: 4,
    latents_dim: 16, num_blocks: 1, num_processing_layers: 1, read_write_heads: 2, compute_heads: 2,
    use_cond_rin_block: true, concat_cond_token_to_latents: false,
    use_self_conditioning: false, coherence_keys: [redness] }
optimizer: { lr: 1.0e-3 }
lr_scheduler: { warmup_steps: 1 }
trainer: { max_steps: 2, batch_size: 4 }
`,
  );
  // What a source does not say of its texts: they are as long as the network's.
  expect(JSON.parse(miro("train", "constant.yaml", "--dry-run", "--json")).flops.textTokens).toBe(4);
  expect(JSON.parse(miro("train", "constant.yaml", "--devices", "2", "--json"))).toMatchObject({ step: 2 });
  writeFileSync(
    path.join(folder, "twice.yaml"),
    "kind: doubling\nname: twice\ntrainer: { max_steps: 2, warmup_steps: 1, batch_size: 4, lr: 0.01 }\n",
  );
  expect(JSON.parse(miro("train", "twice.yaml", "--json"))).toMatchObject({ finished: true, step: 2 });
}, 120_000);
