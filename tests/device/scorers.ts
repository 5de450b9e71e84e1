/**
 * The networks that score pictures: CLIP and GenEval's detector of the small recording, on the device. Inputs that the
 * recording holds as numbers are compared with it; whole scorers with themselves on the CPU.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { noGrad, scope, tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { loadDetector, loadMask2Former, readShape, type Scale } from "miro-t2i/evaluation";
import { CLIP_L, ClipTokenizer, loadClip, loadScorer, openTensors, readClipConfig } from "miro-t2i/rewards";
import { scorerFolder } from "../reference/fixture.js";
import { type Checks, must, relativeDifference, within } from "./checks.js";

const CLIP = "clip_openai";
const DETECTOR = "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth";
const NOISE = "noise64x64";

/** A picture of a disc on a gradient: its values are of no consequence, but it is no noise. */
function picture(width: number, height: number, tint: number) {
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const inside = Math.hypot(x - width / 2, y - height / 2) < Math.min(width, height) / 3;
      const colour = inside ? [220 - tint, tint, 40] : [(200 * x) / width, (200 * y) / height, 90];
      data.set(colour.map(Math.round), 3 * (y * width + x));
    }
  return { width, height, data };
}

export async function scorers(checks: Checks): Promise<void> {
  const { device } = checks;
  const folder = scorerFolder("tiny");
  const { captions, cases } = JSON.parse(readFileSync(join(folder, "scorers.json"), "utf8")) as {
    captions: string[];
    cases: { detector: { scale: Scale } };
  };
  const bound = checks.onGpu ? 1e-4 : 1e-5;
  const images = [picture(96, 96, 30), picture(120, 80, 160)];

  await checks.check("CLIP: features of recorded captions", async () => {
    const home = join(folder, CLIP);
    using file = openTensors(home, ["model.safetensors"]);
    const clip = await loadClip(file, readClipConfig(home, CLIP_L), { device, dtype: "float32" });
    const recorded = readSafetensors(join(home, "reference.safetensors"));
    const error = noGrad(() =>
      scope(() => {
        const { ids, ends } = ClipTokenizer.fromFolder(home, "hugging-face").encodeBatch(captions);
        const features = clip.encodeText(ids.to({ device }), tensor(ends, { dtype: "int64", device }));
        const unit = features.div(features.square().sum(-1, { keepdim: true }).sqrt());
        return relativeDifference(unit, recorded.get("text.normalised")!);
      }),
    );
    for (const one of recorded.values()) one.dispose();
    clip.dispose();
    return within(error, bound);
  });
  const score = async (where: string, dtype: "float32" | "bfloat16") => {
    using scorer = await loadScorer(CLIP, { weights: { [CLIP]: join(folder, CLIP) }, device: where, dtype });
    return tensor(await scorer.score(images, captions.slice(0, images.length)), { dtype: "float64" });
  };
  for (const dtype of checks.onGpu ? (["float32", "bfloat16"] as const) : (["bfloat16"] as const))
    await checks.check(`CLIP: scores in ${dtype}, as in float32 on the CPU`, async () => {
      using got = await score(device, dtype);
      using want = await score("cpu", "float32");
      return within(relativeDifference(got, want), dtype === "float32" ? 1e-3 : 0.1);
    });

  const home = join(folder, "detector");
  await checks.check("GenEval's detector: logits of recorded pixels", async () => {
    using file = openTensors(home, [DETECTOR]);
    using network = await loadMask2Former(file, readShape(join(home, "config.json")), { device, dtype: "float32" });
    const recorded = readSafetensors(join(home, "reference.safetensors"));
    const error = noGrad(() =>
      scope(() => {
        const levels = recorded.get(`${NOISE}.input_uint8`)!.to({ dtype: "float32" });
        const out = network.stages(levels.sub(128).div(64).to({ device }));
        return Math.max(
          relativeDifference(out.classLogits, recorded.get(`${NOISE}.class_logits`)!),
          relativeDifference(out.queries, recorded.get(`${NOISE}.queries`)!),
        );
      }),
    );
    for (const one of recorded.values()) one.dispose();
    return within(error, checks.onGpu ? 1e-3 : 1e-4);
  });
  await checks.check("GenEval's detector: two pictures in one call, as one by one on the CPU", async () => {
    const { scale } = cases.detector;
    using there = await loadDetector(home, { device, scale });
    using here = await loadDetector(home, { scale });
    const together = await there.detect(images);
    const apart = [...(await here.detect([images[0]!])), ...(await here.detect([images[1]!]))];
    let worst = 0;
    for (const [i, detections] of apart.entries()) {
      const found = together[i]!;
      must(found.length === detections.length, `${found.length} detections, on the CPU ${detections.length}`);
      must(detections.length > 0, "no detections to compare");
      detections.forEach((detection, k) => {
        worst = Math.max(worst, Math.abs(detection.score - found[k]!.score));
      });
      must(found[0]!.classIndex === detections[0]!.classIndex, "another class is the first");
    }
    return within(worst, 1e-3);
  });
}
