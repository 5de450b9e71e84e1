/** What the person has set, kept over a reload, and the request that it makes. */
import { batch, computed, effect, signal } from "@preact/signals";
import { askJson, type Model, messageOf, type Settings, sentence } from "./api.js";
import { tell } from "./notices.js";
import { local } from "./storage.js";

/** Targets are multiples of this. */
export const STEPS_OF_TARGET = 63;
const STORED = "miro-studio-form";

/** The picture that is drawn over: one of the gallery, or a file. */
export type Source = { kind: "picture"; id: string } | { kind: "file"; file: File; url: string };

export interface Form {
  model: string;
  prompt: string;
  negativePrompt: string;
  /** Targets by reward; null: the model is told nothing of it. */
  targets: Record<string, number | null>;
  negativeTargets: Record<string, number | null>;
  steps: number;
  guidance: number;
  guidanceOff: boolean;
  guidanceType: "constant" | "linear";
  images: number;
  seed: number;
  randomSeed: boolean;
  sampler: string;
  /** The sampler's own options that were taken over; null: its defaults. */
  samplerOptions: Record<string, unknown> | null;
  shift: number;
  bestOf: number;
  scorer: string;
  strength: number;
  variation: number;
  /** Seed of the variation that was taken over; null: each is another one. */
  variationSeed: number | null;
}

const BLANK: Form = {
  model: "",
  prompt: "",
  negativePrompt: "",
  targets: {},
  negativeTargets: {},
  steps: 20,
  guidance: 1,
  guidanceOff: false,
  guidanceType: "constant",
  images: 4,
  seed: 3407,
  randomSeed: true,
  sampler: "euler",
  samplerOptions: null,
  shift: 1,
  bestOf: 1,
  scorer: "",
  strength: 0.75,
  variation: 0,
  variationSeed: null,
};

export const models = signal<Model[]>([]);
export const form = signal<Form>(BLANK);
export const source = signal<Source | null>(null);
export const model = computed(() => models.value.find(({ id }) => id === form.value.model) ?? models.value[0] ?? null);
/** The seed that the last job used. */
export const lastSeed = signal<number | null>(null);

export function set(changes: Partial<Form>): void {
  form.value = { ...form.value, ...changes };
}

export function setTarget(key: string, value: number | null, negative = false): void {
  const name = negative ? "negativeTargets" : "targets";
  set({ [name]: { ...form.value[name], [key]: value === null ? null : snap(value) } });
}

/** The nearest multiple of 1/63. */
export function snap(value: number): number {
  return Math.round(Math.min(1, Math.max(0, value)) * STEPS_OF_TARGET) / STEPS_OF_TARGET;
}

export function resetTargets(negative: boolean): void {
  set({ [negative ? "negativeTargets" : "targets"]: {} });
}

export function targetOf(key: string, negative = false, of = model.value): number | null {
  const reward = of?.rewards.find((one) => one.key === key);
  const given = (negative ? form.value.negativeTargets : form.value.targets)[key];
  if (given !== undefined) return given;
  return (negative ? reward?.negativeDefault : reward?.default) ?? (negative ? 0 : 1);
}

/** Whether the target of a reward is set to a value. */
export function isTarget(key: string, value: number): boolean {
  const target = targetOf(key);
  return target !== null && Math.abs(target - value) < 1e-6;
}

/** All targets of a model's rewards. */
export function targetsOf(negative = false, of = model.value): Record<string, number | null> {
  return Object.fromEntries((of?.rewards ?? []).map(({ key }) => [key, targetOf(key, negative, of)]));
}

/** Sampling settings as the model has them. */
export function chooseModel(id: string): void {
  const chosen = models.value.find((one) => one.id === id);
  if (!chosen) return;
  const { steps, guidanceScale, shift } = chosen.defaults;
  set({
    model: id,
    steps,
    shift,
    guidance: guidanceScale,
    guidanceOff: guidanceScale === 0,
    images: Math.min(form.value.images, chosen.limits.images),
    scorer: chosen.scorers[0] ?? "",
  });
}

/** The request that the form makes of a model, without pictures and seeds. */
export function requestOf(of = model.value): Record<string, unknown> {
  const { prompt, negativePrompt, steps, guidance, guidanceOff, guidanceType, shift } = form.value;
  const { sampler, samplerOptions } = form.value;
  return {
    model: of?.id,
    prompt: prompt.trim(),
    steps,
    sampler,
    shift,
    guidanceType,
    guidanceScale: guidanceOff ? 0 : guidance,
    rewardTargets: targetsOf(false, of),
    negativeRewardTargets: targetsOf(true, of),
    ...(samplerOptions !== null && { samplerOptions }),
    ...(negativePrompt.trim() !== "" && { negativePrompt: negativePrompt.trim() }),
    previewEvery: Math.max(1, Math.round(steps / 8)),
  };
}

export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1;
}

/** A name for what the page keeps. `crypto.randomUUID` is there for pages of this machine or of https alone. */
export function newId(): string {
  return [...crypto.getRandomValues(new Uint32Array(2))].map((word) => word.toString(36)).join("-");
}

/** Makes the form say what a picture says. What the page has nothing for is left out, and told. */
export function takeOver(settings: Settings): void {
  const drawnBy = settings.variant === undefined ? settings.model : `${settings.model}@${settings.variant}`;
  const last = (path: string) => path.slice(path.lastIndexOf("/") + 1);
  const same = models.value.find(({ id }) => id === drawnBy);
  const called = models.value.filter(({ name }) => last(name) === last(drawnBy));
  // A picture may not say which of several folders of one name it is from: then the chosen model stays.
  const offered = same ?? called.find(({ id }) => id === model.value?.id) ?? called[0];
  if (offered && offered.id !== model.value?.id) chooseModel(offered.id);
  const { rewards = [], samplers = [] } = model.value ?? {};
  const keys = new Set(rewards.map(({ key }) => key));
  const asked = Object.entries(settings.rewardTargets ?? {});
  const unwanted = Object.entries(settings.negativeRewardTargets ?? {});
  const known = (targets: [string, number | null][]) => Object.fromEntries(targets.filter(([key]) => keys.has(key)));
  const isSampler = samplers.includes(settings.sampler);
  set({
    prompt: settings.prompt,
    negativePrompt: settings.negativePrompt ?? "",
    steps: settings.steps,
    guidance: settings.guidanceScale,
    guidanceOff: settings.guidanceScale === 0,
    guidanceType: settings.guidanceType ?? "constant",
    shift: settings.shift,
    images: 1,
    bestOf: 1,
    ...(isSampler && { sampler: settings.sampler, samplerOptions: settings.samplerOptions ?? null }),
    targets: known(asked),
    negativeTargets: known(unwanted),
    ...(settings.seed !== null && { seed: settings.seed, randomSeed: false }),
    ...(settings.strength !== undefined && { strength: settings.strength }),
    variation: settings.variationStrength ?? 0,
    variationSeed: settings.variationSeed ?? null,
  });
  if (settings.image === undefined) source.value = null;
  const without = [
    ...(offered ? [] : [`the model ${drawnBy}, which is not offered`]),
    ...asked.flatMap(([key]) => (keys.has(key) ? [] : [`the reward ${key}, which the model does not have`])),
    ...(isSampler ? [] : [`the sampler ${settings.sampler}`]),
    ...(settings.guidanceWindow === undefined ? [] : ["the guided steps"]),
    ...(settings.seed === null ? ["the noise, which was given"] : []),
    ...(settings.image === undefined ? [] : ["what it was drawn over"]),
  ];
  const left = without.length > 0 ? ` Without ${without.join("; ")}.` : "";
  tell(`The settings of the picture are taken over.${left}`);
}

/** Reads the settings of a picture file that was dropped or chosen into the form, or tells why not. */
export function takeOverDropped(file: File): void {
  takeOverFile(file).catch((error) => tell(messageOf(error), { kind: "bad" }));
}

async function takeOverFile(file: File): Promise<void> {
  const body = new FormData();
  body.append("image", file);
  const { settings, parameters } = await askJson<{ settings: Settings | null; parameters: string | null }>(
    "api/inspect",
    { method: "POST", body },
  );
  if (settings !== null) takeOver(settings);
  else if (parameters !== null) takeOverLines(parameters);
}

/** The lines that other programs write: prompt, `Negative prompt: …`, then `Steps: 20, Seed: 3, …`. */
function takeOverLines(lines: string): void {
  const rows = lines.split("\n");
  const last = rows.findLastIndex((row) => /^Steps: \d+/.test(row));
  const fields = last < 0 ? "" : rows[last]!;
  const negative = rows.findIndex((row) => row.startsWith("Negative prompt: "));
  const end = [negative, last].filter((row) => row >= 0).sort((a, b) => a - b)[0] ?? rows.length;
  const number = (name: string) => {
    const found = new RegExp(`(?:^|, )${name}: ([\\d.]+)`).exec(fields)?.[1];
    return found === undefined ? undefined : Number(found);
  };
  const [steps, seed] = [number("Steps"), number("Seed")];
  set({
    prompt: rows.slice(0, end).join("\n"),
    negativePrompt: negative < 0 ? "" : rows[negative]!.slice("Negative prompt: ".length),
    ...(steps !== undefined && { steps }),
    ...(seed !== undefined && { seed, randomSeed: false }),
  });
  tell(sentence("prompt, steps and seed are taken over; another program made the picture"));
}

export function startForm(): void {
  const stored = local.getItem(STORED);
  if (stored !== null) {
    try {
      form.value = { ...BLANK, ...(JSON.parse(stored) as Partial<Form>) };
    } catch {
      local.removeItem(STORED); // not ours
    }
  }
  effect(() => local.setItem(STORED, JSON.stringify(form.value)));
}

export async function loadModels(): Promise<void> {
  const list = await askJson<Model[]>("api/models");
  // When the connection comes back, a prompt that is being written anew is left alone.
  const isFirst = models.value.length === 0;
  batch(() => {
    models.value = list;
    if (!list.some(({ id }) => id === form.value.model)) chooseModel(list[0]!.id);
    // Who is in the field already writes a prompt of their own.
    const isWriting = document.activeElement?.id === "prompt";
    if (isFirst && form.value.prompt === "" && !isWriting) set({ prompt: examplesOf(list[0]!)[0]! });
    // What was kept may be of a server with others.
    const { scorers, samplers, limits } = model.value!;
    const { scorer, sampler, images } = form.value;
    if (scorer === "") set({ scorer: scorers[0] ?? "" });
    if (!samplers.includes(sampler)) set({ sampler: BLANK.sampler, samplerOptions: null });
    if (images > limits.images) set({ images: limits.images });
  });
}

/** Prompts of the testbed, for models that bring no examples. */
const EXAMPLES = [
  "a robot watering flowers in a greenhouse",
  "a red apple on a wooden table",
  "a fox made of folded paper",
  "a lighthouse on a cliff during a storm",
  "a hedgehog wearing a tiny knitted scarf",
  "an astronaut riding a camel across orange dunes",
  "a whale swimming between skyscrapers above a city",
  "a library whose shelves grow out of living trees",
  "a dragon curled around a church tower, ink drawing",
  "a mountain village in winter, woodcut print",
  "a busy street market at night, watercolour",
  "a harbour at dawn in flat colours, screen print poster",
  "a castle built from sugar cubes",
  "a knitted octopus sitting on a sofa",
  "a macro photograph of a bee on a lavender flower",
  "a portrait of a young woman with freckles, soft window light",
  "a bowl of ramen with a halved egg and spring onions",
  "three yellow lemons beside a blue ceramic jug",
  "a red cube below a blue sphere on a plain grey background",
  'a shop window with a neon sign that reads "coffee"',
  "a violinist playing on a rooftop at dusk",
  "a waterfall in a rainforest with a rainbow in the mist",
];

export function examplesOf({ examples }: Model): readonly string[] {
  return examples.length > 0 ? examples.slice(0, 22) : EXAMPLES;
}
