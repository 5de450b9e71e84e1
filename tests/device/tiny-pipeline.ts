/** The pipeline of the recorded tiny checkpoint, which travels with the checks. */
import { join } from "node:path";
import { MiroPipeline } from "miro-t2i";
import { referenceFolder } from "../reference/fixture.js";

export function tinyPipeline(device: string, dtype: "float32" | "bfloat16" | "float16"): Promise<MiroPipeline> {
  const folder = referenceFolder("tiny");
  return MiroPipeline.fromPretrained(join(folder, "checkpoint"), {
    textEncoder: join(folder, "text_encoder"),
    vae: join(folder, "vae"),
    dtype,
    device,
  });
}
