/**
 * Kills an evaluation (`miro evaluate geneval --prompts emoji`) with SIGKILL at random moments, starts it again, and
 * compares every file that it leaves, byte by byte, with an undisturbed run. Exit code 0: all equal; 1: something
 * differed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { contents, differences, generator, runMiro } from "./kill-and-restart.js";

/** @returns the exit code */
export async function soakGeneval({
  kills,
  seed,
  keep,
}: {
  kills: number;
  seed: number;
  keep: boolean;
}): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "miro-soak-"));
  const random = generator(seed);
  const command = (name: string) => [
    ...["evaluate", "geneval", "--prompts", "emoji", "--prompt-range", "18-33", "--n-samples", "2", "--steps", "2"],
    ...["--outdir", join(folder, name), "--json"],
  ];
  const whole = await runMiro(command("whole"));
  if (whole.code !== 0) {
    console.error(whole.stderr);
    return 1;
  }
  const expected = contents(join(folder, "whole"));
  let unequal = 0;
  let longest = whole.ms;
  for (let trial = 0; trial < kills; ) {
    const name = `trial-${trial}`;
    const killed = await runMiro(command(name), { signal: "SIGKILL", afterMs: random() * longest });
    if (killed.signal === "SIGKILL") trial++;
    else longest = Math.min(longest, killed.ms); // it was faster than the moment drawn: this was no kill
    const again = await runMiro(command(name));
    const different =
      again.code === 0 ? differences(expected, contents(join(folder, name))) : ["(the second run failed)"];
    const { drawn, detected } = JSON.parse(again.stdout || "{}") as { drawn?: number; detected?: number };
    console.log(
      `${String(trial).padStart(3)} ${killed.signal ?? "ended"} after ${Math.round(killed.ms)} ms, then ` +
        `${drawn ?? "?"} pictures drawn, ${detected ?? "?"} looked at: ` +
        `${different.length === 0 ? "equal" : `DIFFERENT: ${different.join(", ")}`}`,
    );
    if (different.length > 0) {
      unequal++;
      console.log(again.stderr);
    } else rmSync(join(folder, name), { recursive: true, force: true });
  }
  console.log(
    `${kills} kills, ${kills - unequal} times the same ${Object.keys(expected).length} files as the undisturbed run ` +
      `(${Math.round(whole.ms)} ms)`,
  );
  if (unequal === 0 && !keep) rmSync(folder, { recursive: true, force: true });
  else console.log(folder);
  return unequal === 0 ? 0 : 1;
}
