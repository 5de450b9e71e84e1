/**
 * From classes and masks of queries to detections, as mmdet does it for instances: the 100 likeliest pairs of query and
 * class, each with the query's mask, and
 *
 *   score = class probability · mean of sigmoid(mask logit) over the mask
 *
 * Nothing is suppressed, and nothing left out but what the caller does not want: a score is below the probability, so
 * that masks of pairs that cannot pass are not even enlarged.
 */
import { F, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { MiroError } from "../../../errors.js";
import type { Box, Detection, Mask } from "../detection.js";
import type { MapSize } from "./deformable-attention.js";
import type { DetectorInput } from "./pixels.js";

/** Pairs of query and class. */
const KEPT = 100;
/** Pixels of masks that are enlarged together. */
const PIXELS_AT_ONCE = 4e6;

/** A detection, and how it came about. */
export interface Instance extends Detection {
  mask: Mask;
  query: number;
  classScore: number;
  /** Mean of the mask's probability over itself. */
  quality: number;
}

interface QueryMask {
  quality: number;
  box: Box;
  mask: Mask;
}

/**
 * Detections of one picture, best score first.
 *
 * @param classLogits (Q, classes + 1)
 * @param maskLogits (Q, H, W) at stride 4
 * @param minScore detections whose score is not above it are left out
 * @param classes detections of others are left out
 * @throws MiroError for logits that are not finite
 */
export function instances(
  { classLogits, maskLogits }: { classLogits: Tensor; maskLogits: Tensor },
  sizes: Pick<DetectorInput, "padded" | "resized" | "original">,
  {
    minScore = Number.NEGATIVE_INFINITY,
    classes,
  }: { minScore?: number | undefined; classes?: readonly number[] | undefined } = {},
): Instance[] {
  const wanted = classes && new Set(classes);
  const pairs = likeliest(classLogits).filter(
    ({ classScore, classIndex }) => classScore > minScore && (wanted?.has(classIndex) ?? true),
  );
  const queries = [...new Set(pairs.map(({ query }) => query))];
  const masks = queryMasks(maskLogits, queries, sizes);
  return pairs
    .map((pair) => {
      const { quality, box, mask } = masks.get(pair.query)!;
      return { ...pair, quality, box, mask, score: Math.fround(pair.classScore * quality) };
    })
    .filter(({ score }) => score > minScore)
    .sort((a, b) => b.score - a.score);
}

function likeliest(classLogits: Tensor): { query: number; classIndex: number; classScore: number }[] {
  return scope(() => {
    const classes = classLogits.size(1) - 1;
    const table = F.softmax(classLogits.float(), -1).narrow(1, 0, classes).flatten();
    const { values, indices } = table.topk(Math.min(KEPT, table.size(0)));
    const scores = values.to({ device: "cpu" }).data() as Float32Array;
    const places = indices.to({ device: "cpu" }).data() as BigInt64Array;
    return Array.from(scores, (classScore, i) => {
      if (!Number.isFinite(classScore))
        throw new MiroError("class probabilities are not finite; weights may be damaged");
      const place = Number(places[i]);
      return { query: Math.floor(place / classes), classIndex: place % classes, classScore };
    });
  });
}

function queryMasks(
  maskLogits: Tensor,
  queries: readonly number[],
  { padded, resized, original }: Pick<DetectorInput, "padded" | "resized" | "original">,
): Map<number, QueryMask> {
  const pixels = Math.max(padded.height * padded.width, original.height * original.width);
  const atOnce = Math.max(1, Math.floor(PIXELS_AT_ONCE / pixels));
  const masks = new Map<number, QueryMask>();
  for (let start = 0; start < queries.length; start += atOnce)
    scope(() => {
      const chunk = queries.slice(start, start + atOnce);
      const index = tensor(BigInt64Array.from(chunk, BigInt), { dtype: "int64" }).to({ device: maskLogits.device });
      const logits = maskLogits.indexSelect(0, index).float().unsqueeze(0);
      const whole = enlarge(logits, padded).narrow(2, 0, resized.height).narrow(3, 0, resized.width);
      const found = measure(enlarge(whole, original).select(0, 0), original);
      chunk.forEach((query, i) => {
        masks.set(query, found[i]!);
      });
    });
  return masks;
}

function enlarge(logits: Tensor, { height, width }: MapSize): Tensor {
  return F.interpolate(logits, { size: [height, width], mode: "bilinear" });
}

/** (q, H, W) mask logits → masks, their boxes and qualities */
function measure(logits: Tensor, { height, width }: MapSize): QueryMask[] {
  const binary = logits.gt(0);
  const count = logits.size(0);
  const onCpu = (x: Tensor) => x.to({ device: "cpu" }).contiguous().data();
  const sums = onCpu(logits.sigmoid().mul(binary).flatten(1).sum(1)) as Float32Array;
  const areas = onCpu(binary.flatten(1).sum(1)) as BigInt64Array;
  const rows = onCpu(binary.any(2).to("uint8")) as Uint8Array;
  const columns = onCpu(binary.any(1).to("uint8")) as Uint8Array;
  const bytes = Math.ceil((height * width) / 8);
  const powers = tensor(Uint8Array.from([128, 64, 32, 16, 8, 4, 2, 1]), { dtype: "uint8" }).to({
    device: logits.device,
  });
  const bits = F.pad(binary.flatten(1).to("uint8"), [0, 8 * bytes - height * width])
    .view(count, bytes, 8)
    .mul(powers)
    .sum(-1, false, "uint8");
  const packed = onCpu(bits) as Uint8Array;
  return Array.from({ length: count }, (_, i) => {
    const quality = Math.fround(sums[i]! / Math.fround(Number(areas[i]) + 1e-6));
    if (!Number.isFinite(quality)) throw new MiroError("mask logits are not finite; the weights may be damaged");
    const [y0, y1] = extent(rows.subarray(i * height, (i + 1) * height));
    const [x0, x1] = extent(columns.subarray(i * width, (i + 1) * width));
    return {
      quality,
      box: [x0, y0, x1, y1],
      mask: { width, height, bits: packed.slice(i * bytes, (i + 1) * bytes) },
    };
  });
}

/** First and one behind the last that is set; 0 and 0 if none is. */
function extent(flags: Uint8Array): [start: number, end: number] {
  return [Math.max(0, flags.indexOf(1)), flags.lastIndexOf(1) + 1];
}
