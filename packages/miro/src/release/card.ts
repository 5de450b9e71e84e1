/**
 * Model cards, rendered from what a release folder holds: its configuration, its rewards, its dtype. Nothing is claimed
 * that the files do not say, but for the published checkpoints, whose authors report figures.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { InvalidInputError } from "../errors.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { counted } from "../numbers.js";
import { listVariants, weightFiles } from "../pipeline/loading/checkpoint.js";
import { type ReleaseConfig, readReleaseConfig } from "../pipeline/loading/release-config.js";
import { ABLATIONS_REPOSITORY, MAIN_REPOSITORY, RELEASES, type Release } from "../pipeline/loading/releases.js";
import { shellWord } from "../shell-word.js";
import { type ReleaseFacts, readFacts } from "./facts.js";
import { refuseRun } from "./open-folder.js";

/** What a card says beside the folder's content. */
export interface CardOptions {
  folder: string;
  /** Where it will be: `owner/name`. */
  repo?: string | undefined;
  /** The folder within that repository. */
  variant?: string | undefined;
  title?: string | undefined;
  /** One or two sentences. */
  description?: string | undefined;
  /** Identifier of the Hub, such as `mit`. */
  license?: string | undefined;
}

/** Contact sheet of pictures that the checkpoint has drawn. */
export const SAMPLES_FILE = "samples.png";

const TAGS = ["text-to-image", "diffusion", "flow-matching", "miro", "reward-conditioning"];

/** What the rewards of the published models measure. */
const MEANINGS = new Map(
  Object.entries({
    clip_score: "CLIP alignment of text and picture",
    aesthetic_score: "LAION aesthetic predictor",
    image_reward_score: "ImageReward: general preference",
    pick_a_score_score: "PickScore: human preference",
    hpsv2_score: "HPSv2: human preference",
    vqa_score: "VQAScore: whether the picture shows what the text says",
    sciscore_score: "SciScore: scientific plausibility",
    sharpness: "sharpness of the picture",
    colorfulness: "colourfulness of the picture",
  }),
);

const BIBTEX = `\`\`\`bibtex
@inproceedings{dufour2026miro,
  title     = {{MIRO}: {MultI-Reward cOnditioned} pretraining improves {T2I} quality and efficiency},
  author    = {Dufour, Nicolas and Degeorge, Lucas and Ghosh, Arijit and Kalogeiton, Vicky and Picard, David},
  booktitle = {International Conference on Machine Learning},
  year      = {2026}
}
\`\`\``;

/** The published release that a repository and a variant name, or null. */
function publishedAs(repo: string | undefined, variant: string | undefined): Release | null {
  return RELEASES.find((release) => release.repository === repo && release.variant === variant) ?? null;
}

/** Renders `README.md` of a release folder and writes it. @returns its path */
export function writeCard(options: CardOptions): string {
  const { folder } = options;
  if (!existsSync(folder)) throw new InvalidInputError(`${folder}: no such folder`);
  refuseRun(folder);
  const path = join(folder, "README.md");
  const text = existsSync(join(folder, "config.json")) ? releaseCard(options) : variantsCard(options);
  writeFileAtomic(path, text, { overwrite: true });
  return path;
}

/** The text of the card of one release. @throws InvalidInputError when the folder was not made by `miro convert` */
function releaseCard(options: CardOptions): string {
  const { folder, repo, variant } = options;
  const config = readReleaseConfig(folder);
  const facts = factsOf(folder);
  const release = publishedAs(repo, variant);
  const title = options.title ?? (release ? titleOf(release) : (variant ?? repo?.split("/")[1] ?? "A MIRO model"));
  const license = options.license ?? (release ? "mit" : undefined);
  const sections = [
    `# ${oneLineOf(title)}`,
    pictures(folder, facts),
    options.description ?? (release ? describeRelease(release) : describeModel(config)),
    factTable(config, facts, release, weightFiles(folder).toSorted()),
    usage(options, config),
    rewardSection(config),
    release?.repository === MAIN_REPOSITORY ? REPORTED : "",
    training(facts, release),
    limitations(config),
    checkSection(facts),
    `## Citation\n\n${BIBTEX}`,
    license === undefined ? "" : `## License\n\n${licenseText(license, release)}`,
  ];
  return `${header(license, TAGS)}\n${sections.filter(Boolean).join("\n\n")}\n`;
}

/** The text of the card of a folder of variants. @throws InvalidInputError when there are none */
function variantsCard(options: CardOptions): string {
  const { folder, repo = "owner/name" } = options;
  const variants = listVariants(folder);
  if (variants.length === 0)
    throw new InvalidInputError(`${folder}: holds neither a release (config.json) nor folders with releases`);
  const license = options.license ?? (repo === ABLATIONS_REPOSITORY ? "mit" : undefined);
  const rows = variants.map((variant) => {
    const config = readReleaseConfig(join(folder, variant));
    const facts = readFacts(join(folder, variant));
    const release = publishedAs(repo, variant);
    return [
      `[${code(variant)}](${encodeURIComponent(variant).replaceAll("(", "%28").replaceAll(")", "%29")})`,
      String(config.coherenceKeys.length),
      config.coherenceKeys.map(code).join(", "),
      facts === null ? "" : millions(facts.parameters),
      release?.title ?? "",
    ];
  });
  const sections = [
    `# ${oneLineOf(options.title ?? repo.split("/")[1] ?? "Variants")}`,
    options.description ??
      `${variants.length} variants of a text-to-image model that is conditioned on rewards, one in each folder.`,
    table(["variant", "rewards", "keys", "parameters", "what"], rows),
    `## Usage\n\n${snippets(repo, variants[0], [])}`,
    `## Citation\n\n${BIBTEX}`,
    license === undefined ? "" : `## License\n\n${licenseText(license, publishedAs(repo, variants[0]))}`,
  ];
  return `${header(license, [...TAGS, "ablations"])}\n${sections.filter(Boolean).join("\n\n")}\n`;
}

function factsOf(folder: string): ReleaseFacts {
  const facts = readFacts(folder);
  if (facts !== null) return facts;
  throw new InvalidInputError(`${folder}: holds no release.json, which miro convert writes; convert it again`);
}

/** The header that the Hub reads. */
function header(license: string | undefined, tags: readonly string[]): string {
  const fields = {
    ...(license !== undefined && { license }),
    library_name: "miro-t2i",
    pipeline_tag: "text-to-image",
    tags: [...tags],
  };
  return `---\n${stringify(fields)}---\n`;
}

function titleOf({ title, variant }: Release): string {
  if (variant === undefined) return "MIRO (main)";
  return title.startsWith("without") ? `MIRO ${title}` : `MIRO: ${title}`;
}

function describeRelease({ variant, rewards, syntheticCaptions, title }: Release): string {
  const paper =
    "It is a checkpoint of [MIRO](https://arxiv.org/abs/2510.25897): rewards condition the pretraining, so that qualities are asked for when a picture is drawn.";
  const captions = syntheticCaptions ? ", with half of the captions synthetic" : "";
  const what =
    variant === undefined
      ? `The main text-to-image model, conditioned on all seven rewards${captions}.`
      : rewards.length === 1
        ? `A text-to-image model that is conditioned on one reward alone: a ${title}, a baseline of the paper.`
        : `A text-to-image model that is conditioned on ${rewards.length} rewards: the ablation ${title}.`;
  return `${what} ${paper}`;
}

function describeModel({ coherenceKeys }: ReleaseConfig): string {
  const count = coherenceKeys.length === 1 ? "one reward" : `${coherenceKeys.length} rewards`;
  return `A text-to-image model that is conditioned on ${count}, so that qualities are asked for when a picture is drawn, after [MIRO](https://arxiv.org/abs/2510.25897).`;
}

function pictures(folder: string, { samples }: ReleaseFacts): string {
  if (samples === null || !existsSync(join(folder, SAMPLES_FILE))) return "";
  const prompts = samples.prompts.map((prompt) => `"${plainText(prompt)}"`).join(", ");
  return `![Pictures drawn by this checkpoint](${SAMPLES_FILE})\n\nDrawn by this checkpoint, seeds from ${samples.seed}, not selected: ${prompts}.`;
}

function factTable(
  config: ReleaseConfig,
  facts: ReleaseFacts,
  release: Release | null,
  files: readonly string[],
): string {
  const [first, last] = [`\`${files[0]}\``, files.length > 1 ? ` to \`${files.at(-1)}\`` : ""];
  const { network, settings, coherenceKeys } = config;
  const size = settings.img_resolution ?? "unknown";
  const rows = [
    ["Paper", "[arXiv 2510.25897](https://arxiv.org/abs/2510.25897)"],
    ...(release ? [["Project page", "<https://nicolas-dufour.github.io/miro/>"]] : []),
    ["Parameters", millions(facts.parameters)],
    [
      "Resolution",
      `${size} × ${size}, latents ${network.numInputChannels} × ${network.dataSize} × ${network.dataSize}`,
    ],
    [
      "Architecture",
      `RIN, flow matching: ${network.numBlocks} blocks of ${network.numProcessingLayers} layers, ${network.numLatents} latents of ${network.latentsDim}`,
    ],
    ...(settings.text_encoder_repo ? [["Text encoder", code(settings.text_encoder_repo)]] : []),
    ...(settings.vae_repo ? [["Autoencoder", code(settings.vae_repo)]] : []),
    ...(release ? [["Training data", "CC12M; LAION Aesthetics v2 4.5, subset 6.0+"]] : []),
    ["Rewards", coherenceKeys.map(code).join(", ")],
    ["Weights", `${first}${last}, ${facts.dtype}, ${facts.average}${stepText(facts.step)}`],
  ];
  return table(["", ""], rows);
}

function stepText(step: number | null): string {
  return step === null ? "" : `, step ${step}`;
}

function usage({ repo, variant }: CardOptions, { coherenceKeys, settings }: ReleaseConfig): string {
  const { num_steps: steps, guidance_scale: guidance } = settings.sampler_defaults ?? {};
  const note =
    steps === undefined || guidance === undefined
      ? ""
      : `\n\nThe checkpoint's defaults are ${counted(steps, "step")} and guidance ${guidance}.`;
  const first = settings.text_encoder_repo
    ? "The first call also fetches the text encoder and the autoencoder, under their own licenses.\n\n"
    : "";
  return `## Usage\n\n${first}${snippets(repo ?? "owner/name", variant, coherenceKeys)}${note}`;
}

/** The same picture on the command line and in TypeScript, with targets for the first rewards that there are. */
function snippets(repo: string, variant: string | undefined, keys: readonly string[]): string {
  const targets = keys.slice(0, 2).map((key, i) => [key, i === 0 ? 1 : 0.3] as const);
  const flags = targets.map(([key, value]) => ` --reward ${shellWord(`${key}=${value}`)}`).join("");
  const [flag, options] =
    variant === undefined
      ? ["", ""]
      : [` --variant ${shellWord(variant)}`, `, { variant: ${JSON.stringify(variant)} }`];
  const rewards = targets.map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(", ");
  const second = targets.length === 0 ? "" : `, { rewardTargets: { ${rewards} } }`;
  return [
    "```sh",
    `npx miro-t2i generate "a fox in the snow" --model ${repo}${flag}${flags}`,
    "```",
    "",
    "```ts",
    'import { MiroPipeline } from "miro-t2i";',
    "",
    `const pipe = await MiroPipeline.fromPretrained(${JSON.stringify(repo)}${options});`,
    `const { images } = await pipe.generate("a fox in the snow"${second});`,
    'await images[0].save("fox.png");',
    "```",
  ].join("\n");
}

function rewardSection({ coherenceKeys }: ReleaseConfig): string {
  const rows = coherenceKeys.map((key) => [code(key), "0 to 1", MEANINGS.get(key) ?? "a score of the training data"]);
  return `## Rewards\n\nThese are the rewards that the checkpoint knows. A target is 1 unless another is given; the negative branch of guidance asks for 0.\n\n${table(["key", "range", "meaning"], rows)}`;
}

const REPORTED = `## Reported benchmarks

Of the paper: GenEval 75 with rewards tuned at inference and 68 by default, where FLUX-dev (12B parameters) has 67; about 370 times
less computation per picture than FLUX-dev; 19 times faster convergence of the aesthetic metric.`;

function training({ training: run }: ReleaseFacts, release: Release | null): string {
  if (run !== null)
    return `## Training\n\n${counted(run.maxSteps, "step")} planned, batch ${run.batchSize}, ${run.precision}, ${run.optimizer}, learning rate ${run.lr}.`;
  if (release === null) return "";
  return `## Training

500,000 steps (about 29 epochs), batch 1024, 16-mixed, LAMB with learning rate 1e-3, 5,000 steps of warm-up, cosine, weight decay 1e-2,
gradients clipped at 2.0. On 2 × 8 H100 it took about 52 hours.`;
}

function limitations({ settings }: ReleaseConfig): string {
  const size = settings.img_resolution;
  return `## Limitations

- ${size === undefined ? "It draws one size of picture." : `It draws pictures of ${size} × ${size} only.`}
- It has the biases of its training data, and those of the reward models that scored them.
- It has no safety filter, and is not for uses where a wrong picture does harm.`;
}

function checkSection({ check, dtype, versions }: ReleaseFacts): string {
  return `## Check

One forward pass on fixed inputs in ${dtype}: mean ${check.mean}, standard deviation ${check.std}, first values ${check.values.join(", ")}.
SHA-256 of its output on the machine that converted it (miro-t2i ${versions.miro}, libtorch ${versions.torch}):
\`${check.sha256}\``;
}

function licenseText(license: string, release: Release | null): string {
  const name = license.toUpperCase();
  return release === null
    ? `${name}.`
    : `${name}, © 2026 Nicolas Dufour. The text encoder and the autoencoder have their own licenses.`;
}

/** A name as Markdown shows code, whatever is in it: the marks around it are longer than any within. */
export function code(name: string): string {
  const text = oneLineOf(name);
  const marks = "`".repeat(Math.max(0, ...(text.match(/`+/g) ?? []).map((run) => run.length)) + 1);
  const space = /^`|`$/.test(text) ? " " : "";
  return `${marks}${space}${text}${space}${marks}`;
}

/** A text in which nothing is Markdown or HTML. */
export function plainText(text: string): string {
  return oneLineOf(text).replace(/[\\`*_~[\]<>&$]/g, "\\$&");
}

/** A table in Markdown. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

function millions(parameters: number): string {
  return `${(parameters / 1e6).toFixed(1)}M`;
}

function oneLineOf(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}
