/**
 * Draws pictures one after another in one process, with changing prompts, samplers, guidance and previews, and prints
 * the resident memory on the way. Exit code 1 when it has grown by more than 32 MiB over the last three quarters.
 */
import { memory } from "@miro-t2i/torch";
import { MiroPipeline, samplerNames } from "miro-t2i";

const MIB = 2 ** 20;
const ALLOWED_GROWTH_MIB = 32;
const SUBJECTS = ["a fox", "a red apple", "a rocket", "a cat face and a dog face", "a tree to the left of a house"];
const GROUNDS = ["", " on a blue background", " on a light green background", " on a purple background"];

interface Sample {
  pictures: number;
  residentMiB: number;
  liveTensors: number;
}

/** Draws `pictures` pictures and watches the memory. @returns the exit code */
export async function soakGenerate(pictures: number, steps: number, model: string): Promise<number> {
  const pipe = await MiroPipeline.fromPretrained(model);
  const samplers = samplerNames();
  const marks = [0.05, 0.25, 0.5, 0.75, 1].map((share) => Math.ceil(share * pictures));
  const samples: Sample[] = [];
  for (let i = 0; i < pictures; i++) {
    const prompt = SUBJECTS[i % SUBJECTS.length]! + GROUNDS[(i >> 2) % GROUNDS.length]!;
    const options = {
      seed: i,
      steps,
      sampler: samplers[i % samplers.length]!,
      guidanceScale: i % 7 === 0 ? 0 : 1,
      rewardTargets: { sharpness: (i % 11) / 10 },
      ...(i % 5 === 0 && { negativePrompt: "a horse" }),
      ...(i % 10 === 0 && { previewEvery: 1, onStep: () => {} }),
    };
    for await (const _ of pipe.stream(prompt, options));
    if (!marks.includes(i + 1)) continue;
    const sample = {
      pictures: i + 1,
      residentMiB: Math.round(process.memoryUsage.rss() / MIB),
      liveTensors: memory.stats().liveTensors,
    };
    samples.push(sample);
    console.log(`${sample.pictures} pictures: ${sample.residentMiB} MiB resident, ${sample.liveTensors} tensors alive`);
  }
  await pipe.dispose();
  const [, first] = samples;
  const last = samples.at(-1)!;
  const growth = last.residentMiB - first!.residentMiB;
  const tensors = last.liveTensors - first!.liveTensors;
  console.log(`from ${first!.pictures} to ${last.pictures} pictures: ${growth} MiB and ${tensors} tensors more`);
  return growth <= ALLOWED_GROWTH_MIB && tensors === 0 ? 0 : 1;
}
