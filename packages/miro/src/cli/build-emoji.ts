/** `npm run build:emoji`: the folder of the bundled model, with its card, from a run. */
import { join } from "node:path";
import { setNumThreads } from "@miro-t2i/torch";
import { z } from "zod";
import { buildBundledModel } from "../emoji/bundled/build.js";
import { MiroError } from "../errors.js";
import { field, flag } from "../options.js";
import { bundledFolder, bundledModel } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { quietOptions } from "./common-options.js";
import { runMeasuringProgram } from "./measuring-program.js";
import "./extensions.js";

const NOTES = `The card is the template with the figures of the evaluation in it. Measuring takes about ten minutes on
two cores. It is done part by part, and a part that --measurements holds of the same weights is not measured again: an
interrupted command goes on where it was, and a card whose text has changed is filled at once:

  npm run build:emoji -- --network models/miro-emoji --measurements models/miro-emoji --output /tmp/miro-emoji`;

const schema = z.strictObject({
  ...quietOptions.shape,
  network: field(z.string().min(1), {
    expected: "a run or a release folder",
    help: "run of miro train emoji, or release folder; its sampler defaults are the recipe's samples.steps and so on",
    flag: "--network <run|dir>",
  }),
  vae: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "autoencoder to release, such as runs/emoji-decoder/export",
    flag: "--vae <dir>",
    otherwise: "the network's",
  }),
  output: field(z.string().min(1), {
    expected: "a folder",
    help: "folder to write",
    flag: "--output <dir>",
    writes: "folder",
  }),
  overwrite: flag("replace a model that is there", "--overwrite"),
  before: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "edition before: figures to compare with, examples.txt, loss.png",
    flag: "--before <dir>",
    otherwise: "the bundled model",
  }),
  template: field(z.string().min(1).default(join("models", "miro-emoji.template.md")), {
    expected: "a file",
    help: "text of the card, with names of figures in double braces",
    flag: "--template <file>",
  }),
  logs: field(z.array(z.string().min(1)).default([]), {
    expected: "a folder",
    help: "run whose loss the card shows; may be given several times",
    flag: "--log <run>",
    otherwise: "the network's, if it is a run",
  }),
  measurements: field(z.string().min(1).default(join("runs", "emoji-card")), {
    expected: "a folder",
    help: "where evaluation.json and the pictures go while they are made",
    flag: "--measurements <dir>",
    writes: "folder",
  }),
  classifier: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "the classifier that rates the pictures; made by: miro train emoji-classifier",
    flag: "--classifier <dir>",
    otherwise: "models/emoji-classifier",
  }),
  threads: loadSchema.shape.threads,
});

process.exitCode = await runMeasuringProgram({
  name: "npm run build:emoji --",
  summary: "Builds the folder of the bundled model from a run: parts, names, evaluation, pictures, card.",
  schema,
  notes: NOTES,
  kept: ({ measurements }) => `parts that are measured are in ${measurements}`,
  async run({ quiet: _, threads, before = bundledModel() ?? "", logs, classifier, ...options }, measuring) {
    if (before === "") throw new MiroError("there is no bundled model; name the edition before with --before DIR");
    const folder = classifier ?? bundledFolder("emoji-classifier");
    if (folder === null) throw new MiroError("there is no classifier; name one with --classifier DIR");
    if (threads !== undefined) setNumThreads(threads);
    const { signal, progress, note } = measuring;
    let shown = "";
    await buildBundledModel({
      ...options,
      before,
      classifier: folder,
      ...(logs.length > 0 && { logs }),
      signal,
      onMessage: note,
      onProgress: (part, done, total) => {
        progress.update(part, done, total, { count: `${done}/${total}` });
        if (!process.stderr.isTTY && part !== shown) note(`measuring ${part}`);
        shown = part;
      },
    });
    return `${options.output}\n`;
  },
});
