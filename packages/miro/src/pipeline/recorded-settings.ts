/** What a picture stores of the plan, the weights and the versions that drew it. */
import { buildInfo } from "@miro-t2i/torch";
import type { RgbImage } from "../pictures/rgb.js";
import { version } from "../version.js";
import type { EditPlan } from "./edit.js";
import type { PipelineParts } from "./loading/parts.js";
import type { Plan } from "./plan.js";
import { decidedOptions, type ImageSettings } from "./settings.js";

/** The weights of a plan's pictures. */
export type RecordedOrigin = Pick<ImageSettings, "weights" | "textEncoderDtype">;

/** Which weights the pictures of a plan are drawn with; waits for their hashes. */
export async function originOf(plan: Plan, { origin }: PipelineParts): Promise<RecordedOrigin> {
  if (!origin) return {};
  const text = plan.promptEmbeddings && !plan.negativePrompts ? null : await origin.textEncoder();
  return {
    weights: {
      checkpoint: await origin.checkpoint.get(),
      ...(text && { textEncoder: await text.weights.get() }),
      autoencoder: await origin.autoencoder.get(),
    },
    ...(text && { textEncoderDtype: text.dtype }),
  };
}

/** The settings of picture `row` of a plan. */
export function settingsOf(
  plan: Plan,
  row: number,
  { width, height }: Pick<RgbImage, "width" | "height">,
  origin: RecordedOrigin,
  { name = "unnamed", variant, device = "cpu", dtype = "float32", quantization }: PipelineParts,
): ImageSettings {
  const negativePrompt = plan.negativePrompts?.[plan.promptOf(row)];
  return {
    prompt: plan.prompts[plan.promptOf(row)]!,
    ...(negativePrompt !== undefined && { negativePrompt }),
    seed: plan.seeds?.[row] ?? null,
    ...decidedOptions(plan),
    ...(plan.edit && recordedEdit(plan.edit, plan.promptOf(row))),
    ...(plan.variation && {
      variationSeed: plan.variation.seeds[row]!,
      variationStrength: plan.variation.strength,
    }),
    rewardTargets: plan.wanted[row]!,
    negativeRewardTargets: plan.unwanted[row]!,
    model: name,
    ...(variant && { variant }),
    ...origin,
    width,
    height,
    device,
    dtype,
    ...(quantization === "int8" && { quantization }),
    versions: { miro: version(), torch: buildInfo().torchVersion },
  };
}

function recordedEdit({ edits, strength }: EditPlan, prompt: number) {
  const { image, mask } = edits[prompt]!;
  return { image: image.identity, strength, ...(mask && { mask: mask.identity }) };
}
