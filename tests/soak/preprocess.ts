/**
 * Kills data preparation (`miro preprocess --stage all` over emoji scenes, bundled models) with SIGKILL at random
 * moments, starts it again, and compares every file that it leaves, byte by byte, with an undisturbed run. Exit code 0:
 * all equal; 1: something differed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { contents, differences, generator, runMiro } from "./kill-and-restart.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/** @returns the exit code */
export async function soakPreprocess({
  kills,
  seed,
  keep,
}: {
  kills: number;
  seed: number;
  keep: boolean;
}): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "miro-soak-"));
  const raw = join(folder, "raw");
  const random = generator(seed);
  const command = (name: string) => [
    ...["preprocess", "--stage", "all", "--src", raw, "--model", root("models/miro-emoji"), "--no-vae-512", "--json"],
    ...["--csv-dir", join(folder, name, "scores"), "--dest", join(folder, name, "shards")],
  ];
  const files = (name: string) => contents(join(folder, name, "scores"), join(folder, name, "shards"));
  const render = ["render", root("recipes/emoji-data.yaml"), "samples=64", "samples_per_shard=8", "--output", raw];
  const rendered = await runMiro(render);
  const whole = await runMiro(command("whole"));
  if (rendered.code !== 0 || whole.code !== 0) {
    console.error(rendered.stderr + whole.stderr);
    return 1;
  }
  const expected = files("whole");
  let survived = 0;
  let unequal = 0;
  let longest = whole.ms;
  for (let trial = 0; trial < kills; ) {
    const name = `trial-${trial}`;
    const afterMs = random() * longest;
    const killed = await runMiro(command(name), { signal: "SIGKILL", afterMs });
    if (killed.signal !== "SIGKILL") {
      // It was faster than the moment drawn: this was no kill.
      survived++;
      longest = Math.min(longest, killed.ms);
    } else trial++;
    const again = await runMiro(command(name));
    const different = again.code === 0 ? differences(expected, files(name)) : ["(the second run failed)"];
    const { counts } = JSON.parse(again.stdout || '{"counts":{}}') as { counts: Record<string, number> };
    console.log(
      `${String(trial).padStart(3)} ${killed.signal ?? "ended"} after ${Math.round(killed.ms)} ms, then ${counts.skipped ?? "?"} shards kept, ` +
        `${counts.done ?? "?"} made: ${different.length === 0 ? "equal" : `DIFFERENT: ${different.join(", ")}`}`,
    );
    if (different.length > 0) {
      unequal++;
      console.log(again.stderr);
    } else rmSync(join(folder, name), { recursive: true, force: true });
  }
  console.log(
    `${kills} kills, ${kills - unequal} times the same ${Object.keys(expected).length} files as the undisturbed run (${Math.round(whole.ms)} ms)` +
      `${survived > 0 ? `; ${survived} runs ended before their moment` : ""}`,
  );
  if (unequal === 0 && !keep) rmSync(folder, { recursive: true, force: true });
  else console.log(folder);
  return unequal === 0 ? 0 : 1;
}
