/** `npm run soak -- RUN`: long runs, apart from the tests because of their length (`--help` lists them). */
import { field, flag, runProgram } from "miro-t2i/cli";
import { z } from "zod";

const RUNS = ["generate", "preprocess", "geneval", "training-kill", "studio"] as const;
const count = z.int().min(1);

const schema = z.strictObject({
  run: field(z.enum(RUNS), {
    expected: `one of ${RUNS.join(", ")}`,
    help: "generate: memory over thousands of pictures; studio: a server under load; the others: work that is killed",
    flag: "<run>",
  }),
  pictures: field(z.int().min(20).optional(), {
    expected: "an integer of at least 20",
    help: "of generate and studio: pictures",
    flag: "--pictures <n>",
    otherwise: "2000, of studio 10000",
  }),
  steps: field(count.default(2), {
    expected: "an integer of at least 1",
    help: "of generate and studio: sampling steps",
    flag: "--steps <n>",
  }),
  model: field(z.string().default("models/miro-emoji"), {
    expected: "a folder",
    help: "of generate and studio: the checkpoint",
    flag: "--model <dir>",
  }),
  kills: field(count.optional(), {
    expected: "an integer of at least 1",
    help: "of the others: how often the work is killed",
    flag: "--kills <n>",
    otherwise: "50, of geneval 20, of training-kill 100, of studio 20",
  }),
  seed: field(z.int().default(0), {
    expected: "an integer",
    help: "of the others: seed of the moments",
    flag: "--seed <n>",
  }),
  keep: flag("of the others: keep the folder", "--keep"),
});

process.exitCode = await runProgram({
  name: "npm run soak --",
  summary: "Long runs, apart from the tests because of their length.",
  schema,
  async run({ run, pictures, steps, model, kills, seed, keep }) {
    if (run === "generate") return (await import("./generate.js")).soakGenerate(pictures ?? 2000, steps, model);
    if (run === "studio") {
      const { soakStudio } = await import("./studio.js");
      return soakStudio({ pictures: pictures ?? 10_000, kills: kills ?? 20, steps, seed, model });
    }
    if (run === "preprocess")
      return (await import("./preprocess.js")).soakPreprocess({ kills: kills ?? 50, seed, keep });
    if (run === "geneval") return (await import("./geneval.js")).soakGeneval({ kills: kills ?? 20, seed, keep });
    return (await import("./training-kill.js")).soakTraining({ kills: kills ?? 100, seed, keep });
  },
});
