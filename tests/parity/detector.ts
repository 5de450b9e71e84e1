/**
 * GenEval's detector against a recording of `make_scorer_reference.py`: pixels, what every part computes, logits and
 * detections, with the weights of each layout that the recording holds.
 *
 * A mask logit near zero decides where a query may look, so that the last bits of a product can change what follows.
 * The small network is recorded where no logit is that close; at the published size one always is, and mmdet and
 * transformers differ from each other by as much as the wider bounds allow.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { aten, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import type { decodeImage } from "miro-t2i/data";
import {
  asPicture,
  detectorInput,
  fromUnfold,
  type Instance,
  instances,
  layoutOf,
  loadMask2Former,
  type Mask2Former,
  PatchMerging,
  readShape,
} from "miro-t2i/evaluation";
import { openTensors } from "miro-t2i/rewards";
import { agreement, type Row } from "./report.js";

type RgbImage = Awaited<ReturnType<typeof decodeImage>>;
type Recorded = Map<string, Tensor>;
type Pair = readonly [name: string, actual: Tensor, expected: Tensor];

/** What a recording says of the detector. */
export interface RecordedDetector {
  scale: [number, number];
  published_pipeline: Record<string, { resized: [number, number]; padded: [number, number] }>;
  detections: Record<string, unknown>;
}

const WEIGHTS = ["mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth", "model.safetensors"];
const INPUTS = ["noise64x64", "noise96x128"];
const PUBLISHED = [1333, 800] as const;
const PIXELS = 1e-5;
const NETWORK = 1e-4;
/** At the published size. */
const NETWORK_FULL = 1e-2;
const SCORES = 1e-4;
const SCORES_FULL = 2e-3;

/** All comparisons. */
export async function compareDetector(
  folder: string,
  info: RecordedDetector,
  picture: (name: string) => Promise<RgbImage>,
): Promise<Row[]> {
  const home = join(folder, "detector");
  const recorded = readSafetensors(join(home, "reference.safetensors"));
  const full = info.scale[1] >= PUBLISHED[1];
  const rows = [await comparePixels(recorded, info, picture)];
  const pictures = await Promise.all(
    Object.keys(info.detections).map(async (name) => [name, await picture(name)] as const),
  );
  for (const name of WEIGHTS.filter((name) => existsSync(join(home, name)))) {
    using file = openTensors(home, [name]);
    const layout = layoutOf(file);
    using network = await loadMask2Former(file, readShape(join(home, "config.json")), {
      device: "cpu",
      dtype: "float32",
    });
    noGrad(() => scope(() => rows.push(...compareNetwork(layout, network, recorded, info, pictures, full))));
    if (layout !== "hugging-face") noGrad(() => scope(() => rows.push(compareMerging(home, name, recorded))));
  }
  for (const value of recorded.values()) value.dispose();
  return rows;
}

/** The published resize at 64 places of each picture. */
async function comparePixels(
  recorded: Recorded,
  { published_pipeline }: RecordedDetector,
  picture: (name: string) => Promise<RgbImage>,
): Promise<Row> {
  const pairs: Pair[] = [];
  for (const [name, { resized, padded }] of Object.entries(published_pipeline)) {
    const input = detectorInput(await picture(name), PUBLISHED, false);
    const sizes = [input.resized.height, input.resized.width, input.padded.height, input.padded.width];
    pairs.push([`${name}: sizes`, tensor(sizes), tensor([...resized, ...padded])]);
    const positions = recorded.get(`pipeline.${name}.positions`)!.to({ dtype: "int64" });
    const values = input.pixels.view(3, -1).indexSelect(1, positions);
    pairs.push([`${name}: pixels`, values, recorded.get(`pipeline.${name}.values`)!]);
  }
  return agreement("detector: pixels", PIXELS, pairs);
}

/** A layer of patch merging by itself, with a height that is odd. */
function compareMerging(home: string, name: string, recorded: Recorded): Row {
  using file = openTensors(home, [name]);
  const input = recorded.get("merge.in")!;
  const [, C, height, width] = input.shape as [number, number, number, number];
  using layer = new PatchMerging(C);
  for (const [own, target] of layer.stateDict()) {
    const key = `backbone.stages.0.downsample.${own}`;
    const values = tensor(new Float32Array(target.numel)).view(...target.shape);
    file.copyTo(key, values);
    target.copy_(fromUnfold(values));
  }
  const cells = input.flatten(2).transpose(1, 2).contiguous();
  const merged = layer.forward({ cells, height, width });
  return agreement("detector: patch merging", PIXELS, [["merge.out", merged.cells, recorded.get("merge.out")!]]);
}

function compareNetwork(
  layout: string,
  network: Mask2Former,
  recorded: Recorded,
  { scale }: RecordedDetector,
  pictures: readonly (readonly [string, RgbImage])[],
  full: boolean,
): Row[] {
  const stages: Pair[] = [];
  const logits: Pair[] = [];
  const scores: Pair[] = [];
  const found = { compared: 0, different: 0, worst: "" };
  const compare = (name: string, pixels: Tensor) => {
    const out = network.stages(pixels);
    const add = (to: Pair[], key: string, actual: Tensor) => {
      const expected = recorded.get(`${name}.${key}`);
      if (expected !== undefined) to.push([`${name}.${key}`, thinned(actual, expected, key), expected]);
    };
    out.backbone.forEach((map, i) => {
      add(stages, `backbone.${i}`, asPicture(map));
    });
    out.pixels.levels.forEach((map, i) => {
      add(stages, `pixel_decoder.${i}`, asPicture(map));
    });
    add(stages, "mask_features", asPicture(out.pixels.masks));
    add(logits, "queries", out.queries);
    add(logits, "class_logits", out.classLogits);
    add(logits, "mask_logits", out.maskLogits);
    return { classLogits: out.classLogits.select(0, 0), maskLogits: out.maskLogits.select(0, 0) };
  };
  for (const name of INPUTS)
    scope(() =>
      keepPairs([stages, logits], () => compare(name, recorded.get(`${name}.input_uint8`)!.float().sub(128).div(64))),
    );
  for (const [name, image] of pictures)
    scope(() =>
      keepPairs([stages, logits, scores], () => {
        const { pixels, ...sizes } = detectorInput(image, scale, false);
        const detections = instances(compare(name, pixels), sizes);
        scores.push(compareScores(name, detections, recorded));
        const different = full ? 0 : differences(name, detections, recorded);
        found.compared += detections.length;
        found.different += different;
        if (different > 0) found.worst = name;
      }),
    );
  const bound = full ? NETWORK_FULL : NETWORK;
  return [
    agreement(`detector, ${layout}: stages`, bound, stages),
    agreement(`detector, ${layout}: logits`, bound, logits),
    agreement(`detector, ${layout}: scores`, full ? SCORES_FULL : SCORES, scores),
    ...(full
      ? []
      : [
          {
            check: `detector, ${layout}: labels, boxes, masks`,
            compared: found.compared,
            figure: found.different,
            measure: "different" as const,
            bound: 0,
            worst: found.worst,
            ok: found.compared > 0 && found.different === 0,
          },
        ]),
  ];
}

/** Tensors that were added to the lists survive the scope. */
function keepPairs(lists: readonly Pair[][], work: () => void): void {
  const before = lists.map((list) => list.length);
  work();
  lists.forEach((list, i) => {
    for (const [, actual] of list.slice(before[i])) actual.keep();
  });
}

/** Of large tensors the recording has the corner, of mask logits every 8th row and column. */
function thinned(actual: Tensor, expected: Tensor, key: string): Tensor {
  if (actual.ndim !== 4 || String(actual.shape) === String(expected.shape)) return actual.clone();
  if (key !== "mask_logits") return actual.narrow(2, 0, expected.size(2)).narrow(3, 0, expected.size(3)).clone();
  return aten.slice_Tensor(aten.slice_Tensor(actual, 2, null, null, 8), 3, null, null, 8).clone();
}

const keyOf = (query: number, label: number) => `query ${query}, class ${label}`;

function recordedPairs(name: string, recorded: Recorded): string[] {
  const queries = [...(recorded.get(`${name}.detection_queries`)!.data() as BigInt64Array)].map(Number);
  const labels = [...(recorded.get(`${name}.labels`)!.data() as BigInt64Array)].map(Number);
  return queries.map((query, i) => keyOf(query, labels[i]!));
}

/** Scores by query and class, in the recorded order; pairs that only one side has count as 0. */
function compareScores(name: string, detections: readonly Instance[], recorded: Recorded): Pair {
  const scores = new Map(detections.map((d) => [keyOf(d.query, d.classIndex), d.score]));
  const actual = recordedPairs(name, recorded).map((pair) => scores.get(pair) ?? 0);
  return [`${name}.scores`, tensor(Float32Array.from(actual)), recorded.get(`${name}.scores`)!];
}

/** How many detections have another label, box, mask area or mask than the recorded ones. */
function differences(name: string, detections: readonly Instance[], recorded: Recorded): number {
  const found = new Map(detections.map((d) => [keyOf(d.query, d.classIndex), d]));
  const boxes = recorded.get(`${name}.boxes`)!.data() as Float32Array;
  const areas = recorded.get(`${name}.mask_areas`)!.data() as BigInt64Array;
  const masked = [...(recorded.get(`${name}.mask_queries`)!.data() as BigInt64Array)].map(Number);
  const bits = recorded.get(`${name}.mask_bits`)!.data() as Uint8Array;
  return recordedPairs(name, recorded).filter((pair, i) => {
    const detection = found.get(pair);
    if (detection === undefined) return true;
    const { box, mask, query } = detection;
    const at = masked.indexOf(query);
    const same = at < 0 || isAt(mask, bits, at * mask.width * mask.height);
    return (
      !same || area(mask.bits) !== Number(areas[i]) || String(box) !== String([...boxes.subarray(4 * i, 4 * i + 4)])
    );
  }).length;
}

/** Whether a mask stands in recorded bits from `first` on: masks follow each other there without gaps. */
function isAt({ width, height, bits }: Instance["mask"], recorded: Uint8Array, first: number): boolean {
  const bit = (bytes: Uint8Array, at: number) => (bytes[at >> 3]! >> (7 - (at & 7))) & 1;
  for (let i = 0; i < width * height; i++) if (bit(bits, i) !== bit(recorded, first + i)) return false;
  return true;
}

function area(bits: Uint8Array): number {
  let ones = 0;
  for (const byte of bits) for (let rest = byte; rest > 0; rest &= rest - 1) ones++;
  return ones;
}
