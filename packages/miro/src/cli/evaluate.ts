/** `miro evaluate`: one sub-command for each evaluation. */
import type { Register } from "./context.js";
import { register as registerGeneval } from "./evaluate-geneval.js";
import { register as registerParti } from "./evaluate-parti.js";
import { register as registerRewards } from "./evaluate-rewards.js";
import { helpText } from "./help-text.js";

const EVALUATIONS: readonly { name: string; summary: string; register: Register }[] = [
  {
    name: "geneval",
    summary: "GenEval: does a picture show the objects, counts, colours and positions of its prompt",
    register: registerGeneval,
  },
  {
    name: "rewards",
    summary: "scores of a folder of generated pictures by the reward models",
    register: registerRewards,
  },
  {
    name: "parti",
    summary: "pictures of PartiPrompts and their scores by the reward models, by category",
    register: registerParti,
  },
];

const EXAMPLES = `
Examples:
  miro evaluate geneval --help
  miro evaluate rewards images --scorers sharpness
  miro evaluate parti PartiPrompts.tsv --scorers sharpness
`;

export const register: Register = (command, context) => {
  command.helpCommand("help [command]", "print help for a command").addHelpText("after", helpText(EXAMPLES));
  for (const { name, summary, register } of EVALUATIONS) register(command.command(name).description(summary), context);
};
