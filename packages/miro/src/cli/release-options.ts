/** Options that the commands about releases share. */
import { z } from "zod";
import { field } from "../options.js";

/** What a card says beside what the folder holds. */
export const cardShape = {
  repo: field(
    z
      .string()
      .regex(/^[\w.-]+\/[\w.-]+$/)
      .optional(),
    {
      expected: "owner/name",
      help: "repository that the card speaks of",
      flag: "--repo <owner/name>",
      otherwise: "of the published checkpoints their own",
    },
  ),
  variant: field(
    z
      .string()
      .regex(/^[\w][\w.-]*$/)
      .optional(),
    {
      expected: "the name of a folder",
      help: "folder within the repository",
      flag: "--variant <name>",
    },
  ),
  title: field(z.string().min(1).optional(), { expected: "a text", help: "title of the card", flag: "--title <text>" }),
  description: field(z.string().min(1).optional(), {
    expected: "a text",
    help: "what the card says first",
    flag: "--description <text>",
  }),
  license: field(
    z
      .string()
      .regex(/^[a-z0-9.-]+$/)
      .optional(),
    {
      expected: "a license as the Hub writes it, for example mit",
      help: "license of the weights",
      flag: "--license <id>",
      otherwise: "none is stated; mit for the published checkpoints",
    },
  ),
};

/** Options of {@link samplesShape} that mean nothing where no pictures are drawn. */
export const OF_SAMPLES = ["prompt", "seed", "steps", "textEncoder", "vae"];

/** Pictures for the card. */
export const samplesShape = {
  samples: field(z.int().min(0).max(64).default(0), {
    expected: "an integer of 0 to 64",
    help: "pictures for the card, drawn by the checkpoint itself",
    flag: "--samples <n>",
  }),
  prompt: field(z.array(z.string().min(1)).default([]), {
    expected: "a text",
    help: "what they show; may be given several times",
    flag: "--prompt <text>",
    otherwise: "those of the run, else some examples",
  }),
  seed: field(z.int().min(0).default(0), {
    expected: "an integer of at least 0",
    help: "seed of the first picture",
    flag: "--seed <n>",
  }),
  steps: field(z.int().min(1).max(10_000).optional(), {
    expected: "an integer of at least 1",
    help: "steps of each picture",
    flag: "--steps <n>",
    otherwise: "the checkpoint's default",
  }),
  textEncoder: field(z.string().min(1).optional(), {
    expected: "a folder or a repository",
    help: "text encoder of the pictures, where the folder holds none",
    flag: "--text-encoder <repo|dir>",
  }),
  vae: field(z.string().min(1).optional(), {
    expected: "a folder or a repository",
    help: "autoencoder of the pictures, where the folder holds none",
    flag: "--vae <repo|dir>",
  }),
};
