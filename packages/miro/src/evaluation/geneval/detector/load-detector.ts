/** GenEval's detector by name: a weight file, a folder or a repository, and what is done with pictures. */
import { statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { noGrad, scope } from "@miro-t2i/torch";
import { checkImage, checkList, checkName, checkObject } from "../../../arguments.js";
import { InvalidInputError, invalid, MiroError } from "../../../errors.js";
import { openTensors } from "../../../files/tensor-files.js";
import { about, message } from "../../../message.js";
import type { RgbImage } from "../../../pictures/rgb.js";
import { breathe } from "../../../pipeline/interruption.js";
import { type ComputeDType, checkDevice, resolveDType } from "../../../pipeline/loading/device.js";
import { resolveModel } from "../../../pipeline/loading/hub.js";
import type { Detection, DetectOptions, Detector } from "../detection.js";
import { CLASS_NAMES } from "../prompts.js";
import { DETECTOR_ADDRESS } from "./address.js";
import { instances } from "./instances.js";
import type { Mask2Former } from "./mask2former.js";
import { detectorInput, SCALE, type Scale } from "./pixels.js";
import { readShape, SWIN_S } from "./shape.js";
import { type DetectorLayout, layoutOf, loadMask2Former } from "./weights.js";

/** Where and how to load a detector. */
export interface LoadDetectorOptions {
  /** `cpu`, `cuda`, `cuda:1`, …; default `cpu`. */
  device?: string | undefined;
  /** Of the backbone. Default float32 everywhere: verdicts turn on small differences of scores. */
  dtype?: ComputeDType | undefined;
  /** Longest long and short edge of the resized picture; default 1333 and 800, as GenEval prescribes. */
  scale?: Scale | undefined;
  /** Rounds resized pictures to whole grey levels, as the mmdet 2.x of the original GenEval. Default false. */
  resizeU8?: boolean | undefined;
  /** Cache of downloads; default: the one of Python's `huggingface_hub`. */
  cacheDir?: string | undefined;
  /** Stops loading. */
  signal?: AbortSignal | undefined;
}

const OPENMMLAB = /^mask2former_swin-s[\w.-]*\.pth$/;
const HUGGING_FACE = ["model.safetensors", "pytorch_model.bin"];

const TRAINING_RUN: Readonly<Record<DetectorLayout, string>> = {
  "mmdet-3": "OpenMMLab (mmdet 3.x file), as GenEval prescribes",
  "mmdet-2": "OpenMMLab (mmdet 2.x file), as GenEval prescribes",
  "hugging-face": "Meta (Hugging Face port): another training run, not comparable with published GenEval numbers",
};

/**
 * Loads Mask2Former with Swin-S for COCO's 80 classes. OpenMMLab's weights take precedence over the Hugging Face port
 * where a folder has both; a `config.json` beside the weights states another shape.
 *
 * @param source a weight file, a folder that holds one, or a repository of the Hugging Face Hub
 * @throws InvalidInputError when there are no weights; MiroError naming the file and the tensor that is wrong
 */
export async function loadDetector(source: string, options: LoadDetectorOptions = {}): Promise<Detector & Disposable> {
  checkObject("options", options, "an object of options");
  const { device = "cpu", dtype = "float32", scale = SCALE, resizeU8 = false, cacheDir, signal } = options;
  checkName("source", source, "a weight file, a folder or a repository");
  checkDevice(device);
  if (!scale.every((side) => Number.isInteger(side) && side >= 1 && side <= 8192))
    throw invalid("scale", "a long and a short edge from 1 to 8192", scale);
  const path = await findWeights(source, cacheDir, signal);
  const folder = dirname(path);
  const config = join(folder, "config.json");
  const shape = statSync(config, { throwIfNoEntry: false }) ? readShape(config) : SWIN_S;
  if (shape.classes !== CLASS_NAMES.length)
    throw new MiroError(
      `${config}: id2label: expected the ${CLASS_NAMES.length} classes of COCO, found ${shape.classes}`,
    );
  using file = openTensors(folder, [basename(path)]);
  const layout = layoutOf(file);
  const network = await loadMask2Former(file, shape, { device, dtype: resolveDType(dtype, device) }, signal);
  return detectorOf(network, layout, { device, scale, resizeU8 });
}

async function findWeights(source: string, cacheDir: string | undefined, signal: AbortSignal | undefined) {
  if (statSync(source, { throwIfNoEntry: false })?.isFile()) return source;
  if (/\.(pth|pt|bin|safetensors)$/.test(source))
    throw new InvalidInputError(
      message`${about("detector")}: there is no file ${source}; OpenMMLab has GenEval's detector at ${DETECTOR_ADDRESS}`,
    );
  const model = await resolveModel(source, "detector", { cacheDir, signal });
  const openMmLab = model.files.filter((file) => OPENMMLAB.test(file)).sort();
  // What upstream's patch script saves before it overwrites a file: the same weights once more.
  const file =
    openMmLab.find((file) => !file.endsWith("_original.pth")) ??
    openMmLab[0] ??
    HUGGING_FACE.find((file) => model.files.includes(file));
  if (file === undefined)
    throw new InvalidInputError(
      message`${about("detector")}: ${source} holds no weights; expected mask2former_swin-s….pth (${DETECTOR_ADDRESS}), or ${HUGGING_FACE.join(" or ")} of the Hugging Face port`,
    );
  await model.fetch([file, ...(model.files.includes("config.json") ? ["config.json"] : [])]);
  return join(model.folder, file);
}

function detectorOf(
  network: Mask2Former,
  layout: DetectorLayout,
  { device, scale, resizeU8 }: { device: string; scale: Scale; resizeU8: boolean },
): Detector & Disposable {
  const detectOne = (image: RgbImage, options: DetectOptions): Detection[] =>
    noGrad(() =>
      scope(() => {
        const { pixels, ...sizes } = detectorInput(image, scale, resizeU8);
        const { classLogits, maskLogits } = network.forward(pixels.to({ device }));
        const one = { classLogits: classLogits.select(0, 0), maskLogits: maskLogits.select(0, 0) };
        const { minScore, classes } = options;
        return instances(one, sizes, { minScore, classes }).map(({ classIndex, score, box, mask }) => ({
          classIndex,
          score,
          box,
          mask,
        }));
      }),
    );
  return {
    name: "Mask2Former Swin-S, COCO instances",
    trainingRun: TRAINING_RUN[layout],
    classes: CLASS_NAMES,
    async detect(images, options = {}) {
      checkList("images", images, "a list of pictures");
      for (const [i, image] of images.entries()) checkImage(`images.${i}`, image);
      const found: Detection[][] = [];
      // One after another: a product's last bits depend on the batch, and verdicts must not.
      for (const image of images) {
        await breathe(options.signal);
        found.push(detectOne(image, options));
      }
      return found;
    },
    dispose: () => network.dispose(),
    [Symbol.dispose]: () => network.dispose(),
  };
}
