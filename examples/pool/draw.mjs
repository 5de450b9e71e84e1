// node draw.mjs "a red apple" "a fox" "a rocket": one file for each prompt, drawn on all cores.
import { availableParallelism } from "node:os";
import { Pool } from "./pool.mjs";

const prompts = process.argv.slice(2);
const devices = Array.from({ length: Math.min(availableParallelism(), prompts.length) }, () => "cpu");
const pool = await Pool.load(process.env.MODEL, { devices, threads: 1 });
await Promise.all(
  prompts.map(async (prompt, i) => {
    const { images } = await pool.generate(prompt, { seed: 7, steps: 8 });
    await images[0].save(`${i}.png`);
  }),
);
await pool[Symbol.asyncDispose]();
