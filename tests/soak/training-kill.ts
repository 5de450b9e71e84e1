/**
 * Kills a training (`miro train`) with SIGKILL at random moments, resumes it each time, and compares its last
 * checkpoint byte by byte with that of a run that nobody disturbed. After every kill each checkpoint that has its final
 * name is read whole. The run is small and stores a checkpoint after every step, so that most moments fall into a
 * write. Exit code 0: all equal; 1: something differed.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { listCheckpoints, loadTrainingCheckpoint } from "miro-t2i/training";
import { contents, differences, generator, type Kills, runMiro } from "./kill-and-restart.js";

/** A network of 20,000 parameters on random data, stored after each of its steps. */
export const RECIPE = {
  name: "killed",
  data: { kind: "random", text_len: 8 },
  network: {
    data_size: 8,
    num_input_channels: 4,
    label_dim: 16,
    num_cond_tokens: 10,
    data_dim: 32,
    num_latents: 8,
    latents_dim: 32,
    num_processing_layers: 1,
    num_blocks: 1,
    patch_size: 2,
    read_write_heads: 2,
    compute_heads: 2,
    use_cond_rin_block: true,
    concat_cond_token_to_latents: false,
    use_self_conditioning: true,
    num_text_registers: 2,
    coherence_keys: ["clip_score", "sharpness"],
    coherence_dropout: 0.3,
  },
  preconditioning: { do_gradnorm_reweighting: true },
  loss: { cond_drop_rate: 0.2, reward_drop_rate: 0.2 },
  optimizer: { name: "lamb", lr: 0.01 },
  lr_scheduler: { warmup_steps: 5 },
  ema: { decay: 0.9, warmup: true },
  trainer: {
    max_steps: 60,
    batch_size: 8,
    threads: 1,
    log_every_n_steps: 1,
    checkpoint_every_n_steps: 1,
    keep_last: 2,
  },
};

/** What is wrong with the checkpoints of a run: those that cannot be read, and a link to nothing. */
export function unusable(output: string): string[] {
  const folder = join(output, "checkpoints");
  const faults = listCheckpoints(folder).flatMap(({ path }) => {
    try {
      scope(() => void loadTrainingCheckpoint(path));
      return [];
    } catch (error) {
      return [(error as Error).message];
    }
  });
  const link = join(folder, "last");
  if (listCheckpoints(folder).length > 1 && !existsSync(link)) faults.push(`${link} leads nowhere`);
  return faults;
}

/** Files of a checkpoint that say how long it took, and so differ from run to run. */
const TIMED = /(^|\/)(state\.json|SHA256SUMS)$/;

/** Digests of the tensors that a finished run has left, and the steps of its log. */
export function outcome(output: string): Record<string, string> {
  const folder = join(output, "checkpoints");
  const files = Object.entries(contents(join(folder, readlinkSync(join(folder, "last")))));
  const tensors = Object.fromEntries(files.filter(([name]) => !TIMED.test(name)));
  const lines = readFileSync(join(output, "log.jsonl"), "utf8").trim().split("\n");
  return { ...tensors, steps: lines.map((line) => JSON.parse(line).step).join(" ") };
}

/** @returns the exit code */
export async function soakTraining({ kills, seed, keep }: Kills): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "miro-soak-"));
  const recipe = join(folder, "recipe.yaml");
  writeFileSync(recipe, JSON.stringify(RECIPE)); // JSON is YAML
  const random = generator(seed);
  const command = (name: string) => ["train", recipe, "--output", join(folder, name), "--resume"];
  const whole = await runMiro(command("whole"));
  if (whole.code !== 0) {
    console.error(whole.stderr);
    return 1;
  }
  const expected = outcome(join(folder, "whole"));
  const idle = await runMiro(command("whole")); // finished already: what a process takes apart from its steps
  let killed = 0;
  let faults = 0;
  let runs = 0;
  let finished = 0;
  let inWrites = 0;
  while (killed < kills || finished < runs) {
    const name = `run-${finished}`;
    const output = join(folder, name);
    runs = finished + 1;
    // Once all kills are done the last run may end in peace.
    const afterMs = 0.5 * idle.ms + random() * (whole.ms - 0.5 * idle.ms);
    const kill = { signal: "SIGKILL", afterMs } as const;
    const ending = await runMiro(command(name), killed < kills ? kill : undefined);
    const wrong = unusable(output);
    const checkpoints = join(output, "checkpoints");
    const step = listCheckpoints(checkpoints).at(-1)?.step ?? 0;
    if (ending.signal === "SIGKILL") {
      killed++;
      const half = existsSync(checkpoints) && readdirSync(checkpoints).some((entry) => entry.startsWith("."));
      if (half) inWrites++;
      console.log(
        `${String(killed).padStart(3)} killed after ${Math.round(ending.ms)} ms${half ? " in a write" : ""}, step ${step} is whole`,
      );
    } else {
      finished++;
      if (ending.code !== 0) wrong.push(ending.stderr);
      else wrong.push(...differences(expected, outcome(output)).map((file) => `${file} differs`));
      console.log(`    finished at step ${step}: ${wrong.length === 0 ? "equal to the undisturbed run" : "NOT EQUAL"}`);
    }
    for (const fault of wrong) console.log(`    FAULT: ${fault}`);
    faults += wrong.length;
    if (ending.signal !== "SIGKILL" && ending.code !== 0) break;
  }
  console.log(
    `${killed} kills (${inWrites} in the middle of a write) over ${finished} runs of ${RECIPE.trainer.max_steps} steps (${Math.round(whole.ms)} ms undisturbed): ${faults} faults`,
  );
  if (faults === 0 && !keep) rmSync(folder, { recursive: true, force: true });
  else console.log(folder);
  return faults === 0 ? 0 : 1;
}
