/** What becomes of a training in SLURM, by the way it ends. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { listCheckpoints } from "miro-t2i/training";
import { differences, runMiro } from "../soak/kill-and-restart.js";
import { outcome } from "../soak/training-kill.js";
import { expect, type Jobs, logLines } from "./jobs.js";

export async function recipeThatFails(jobs: Jobs): Promise<void> {
  // What would fail is not submitted; a script to edit is written all the same.
  const args = [jobs.recipe, "initialization.from=nowhere", "--output", join(jobs.folder, "fails")];
  const refused = await runMiro(["launch", ...args]);
  expect(refused.code === 1 && refused.stdout === "", `not refused: ${refused.stdout}${refused.stderr}`);
  const written = await runMiro(["launch", ...args, "--cpus-per-task", "1", "--write", join(jobs.folder, "fails.job")]);
  expect(written.code === 0, written.stderr);
  const id = (await jobs.cluster.tool("sbatch", "--parsable", written.stdout.trim())).trim();
  const { state, restarts, exitCode } = await jobs.ended(id);
  expect(state === "FAILED" && restarts === 0 && exitCode === "2:0", `${state} ${exitCode}, ${restarts} restarts`);
  jobs.passed(
    "a run that would fail is not submitted; one that fails ends its job with its exit code, and the job does not go back into the queue",
  );
}

export async function rankThatDies(jobs: Jobs): Promise<void> {
  const id = await jobs.launch("dies", ["trainer.max_steps=100000"]);
  await jobs.steps("dies", 3);
  process.kill(jobs.rank(id, 1), "SIGKILL");
  const { state, restarts, exitCode } = await jobs.ended(id);
  expect(state === "FAILED" && restarts === 0 && exitCode === "137:0", `${state} ${exitCode}, ${restarts} restarts`);
  jobs.passed("a job of which one process dies fails as a whole, and does not go back into the queue");
}

export async function cancelled(jobs: Jobs): Promise<void> {
  const id = await jobs.launch("cancelled", ["trainer.max_steps=100000"]);
  await jobs.steps("cancelled", 3);
  await jobs.cluster.tool("scancel", id);
  await jobs.ended(id);
  await sleep(5000); // time in which it could be put back
  const { state, restarts } = await jobs.cluster.job(id);
  expect(state === "CANCELLED" && restarts === 0, `${state}, ${restarts} restarts`);
  const stored = listCheckpoints(join(jobs.folder, "cancelled/checkpoints")).at(-1)?.step ?? 0;
  expect(stored >= 3, `a cancelled job has stored step ${stored}`);
  jobs.passed(`scancel ends a job for good, after a checkpoint (step ${stored})`);
}

export async function preempted(jobs: Jobs): Promise<void> {
  const id = await jobs.launch("preempted", ["trainer.max_steps=40"]);
  await jobs.steps("preempted", 3);
  const urgent = ["--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"];
  await jobs.ended((await jobs.cluster.tool("sbatch", ...urgent)).trim());
  const { state, restarts } = await jobs.ended(id, { begun: 2 });
  const log = jobs.log(id);
  expect(state === "COMPLETED" && restarts === 1, `${state}, ${restarts} restarts\n${log}`);
  const steps = logLines(join(jobs.folder, "preempted")).map(({ step }) => step);
  expect(steps.join() === Array.from({ length: 40 }, (_, i) => i + 1).join(), `steps ${steps.join(" ")}`);
  jobs.passed("a job that another one preempts goes back into the queue, and resumes where it was");
}

export async function nodeThatIsLost(jobs: Jobs): Promise<void> {
  const overrides = ["trainer.max_steps=40", "trainer.checkpoint_every_n_steps=10"];
  const layout = ["trainer.num_nodes=2", "trainer.devices=1"];
  const id = await jobs.launch(
    "lost",
    [...overrides, ...layout],
    ["--partition", "pair", "--network-interface", "lo", "--stage-to", join(jobs.folder, "disk of two")],
  );
  await jobs.steps("lost", 15);
  process.kill(jobs.rank(id, 1, 1), "SIGKILL");
  await jobs.cluster.tool("scontrol", "update", "nodename=localhost", "state=down", "reason=lost");
  const { state, restarts } = await jobs.ended(id, { begun: 2 });
  expect(state === "COMPLETED" && restarts === 1, `${state}, ${restarts} restarts\n${jobs.log(id)}`);
  const resumed = /resumed at step (\d+)/.exec(jobs.log(id))?.[1];
  expect(Number(resumed) >= 10, `resumed at step ${resumed}\n${jobs.log(id)}`);
  const steps = logLines(join(jobs.folder, "lost")).map(({ step }) => step);
  expect(steps.join() === Array.from({ length: 40 }, (_, i) => i + 1).join(), `steps ${steps.join(" ")}`);
  jobs.passed(
    `a job of which a node is lost goes back into the queue, and resumes from a checkpoint (step ${resumed})`,
  );
}

export async function array(jobs: Jobs): Promise<void> {
  const id = await jobs.launch("array", ["trainer.max_steps=5"], ["--array", "seed=1,2", "--max-simultaneous", "1"]);
  for (const task of ["0", "1"]) await jobs.completed(`${id}_${task}`);
  const outcomes = ["seed=1", "seed=2"].map((name) => outcome(join(jobs.folder, "array", name)));
  const different = differences(outcomes[0]!, outcomes[1]!);
  expect(outcomes.every(({ steps }) => steps === "1 2 3 4 5") && different.length > 0, JSON.stringify(outcomes));
  jobs.passed("an array of two trains each value in a folder of its own");
}

export async function longerThanItsLimit(jobs: Jobs, seconds: number): Promise<void> {
  const steps = Math.ceil(seconds / (await secondsPerStep(jobs)));
  const overrides = [`trainer.max_steps=${steps}`];
  const id = await jobs.launch("limited", overrides, ["--time", "1", "--signal-before", "10"]);
  const { state, restarts } = await jobs.ended(id, { begun: 2 + Math.ceil(seconds / 5) });
  const log = jobs.log(id);
  expect(state === "COMPLETED", `${state} after ${restarts} restarts\n${log}`);
  expect(restarts > 0, `it fitted into its limit; try more than --seconds ${seconds}`);
  const begun = log.match(/resumed at step \d+/g) ?? [];
  jobs.passed(
    `${steps} steps did not fit into a minute: the job was queued again ${restarts} times (${[...new Set(begun)].join(", ")})`,
  );

  const undisturbed = await runMiro(["train", jobs.recipe, ...overrides, "--output", join(jobs.folder, "whole")]);
  expect(undisturbed.code === 0, undisturbed.stderr);
  const different = differences(outcome(join(jobs.folder, "whole")), outcome(join(jobs.folder, "limited")));
  expect(different.length === 0, `differs from an undisturbed run: ${different.join(", ")}`);
  jobs.passed("its last checkpoint and the steps of its log are those of a run that nothing disturbed, byte for byte");
}

/** Measured on this machine, as busy as it is. */
async function secondsPerStep(jobs: Jobs): Promise<number> {
  const output = join(jobs.folder, "measured");
  const { code, stderr } = await runMiro(["train", jobs.recipe, "trainer.max_steps=20", "--output", output]);
  expect(code === 0, stderr);
  const [first, last] = [10, 20].map((step) => logLines(output).find((line) => line.step === step)!.seconds);
  return (last! - first!) / 10;
}
