/**
 * Long runs, apart from the tests because of their length:
 *
 *   npm run soak -- generate [--pictures N] [--steps N] [--model DIR]     memory over thousands of pictures
 *   npm run soak -- preprocess [--kills N] [--seed N] [--keep]            data preparation killed at random moments
 *   npm run soak -- training-kill [--kills N] [--seed N] [--keep]         a training killed at random moments, resumed each time
 */
const RUNS: Record<string, () => Promise<(args: readonly string[]) => Promise<number>>> = {
  generate: async () => (await import("./generate.js")).soakGenerate,
  preprocess: async () => (await import("./preprocess.js")).soakPreprocess,
  "training-kill": async () => (await import("./training-kill.js")).soakTraining,
};

const [name = "", ...args] = process.argv.slice(2);
if (Object.hasOwn(RUNS, name)) process.exitCode = await (await RUNS[name]!())(args);
else {
  console.error(`npm run soak -- NAME: expected one of ${Object.keys(RUNS).join(", ")}`);
  process.exitCode = 2;
}
