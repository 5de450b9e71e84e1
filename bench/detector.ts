/**
 * `npm run bench -- detector`: seconds of GenEval's detector on one picture of 256 × 256, which it sees at 800 × 800:
 * the network alone, and all from the picture to detections with their masks, against transformers' network with the
 * same post-processing in Python. Weights are random: the time does not depend on them but for how many queries pass
 * the bound of a score, so that both sides keep all 100 detections; ours is also measured as GenEval uses it.
 *
 * Beside seconds stand processor seconds, of all threads together, which other programs on the machine hardly change.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { manualSeed, noGrad, scope } from "@miro-t2i/torch";
import { decodeImage } from "miro-t2i/data";
import { detectorInput, instances, Mask2Former, type Mask2FormerShape, SWIN_S } from "miro-t2i/evaluation";
import { type BenchOptions, columns, root, runReference, type Spread, seconds, spread, store } from "./harness.js";

const SCALE = { full: [1333, 800], tiny: [96, 64] } as const;
const TINY: Mask2FormerShape = {
  backbone: { width: 24, depths: [2, 2, 2, 2], heads: [1, 2, 3, 4], window: 7, mlpRatio: 4 },
  width: 64,
  heads: 8,
  encoder: { layers: 2, hidden: 64 },
  decoder: { layers: 3, hidden: 64 },
  queries: 10,
  classes: 80,
};
/** GenEval's lowest bound. */
const MIN_SCORE = 0.3;

interface Times {
  seconds: number[];
  /** Of the processor, of all threads together. */
  cpuSeconds: number[];
}

interface Reference {
  times: { network: Times; detections: Times };
  /** Of the process at its highest, in bytes. */
  peakBytes: number;
  versions: Record<string, string>;
}

export async function detector(options: BenchOptions): Promise<void> {
  const shape = options.size === "full" ? SWIN_S : TINY;
  const scale = SCALE[options.size];
  const picture = join(root(), "tests", "reference", "fixtures", "scorers", "pictures", "square.png");
  const image = await decodeImage(readFileSync(picture), {});
  manualSeed(0);
  const network = scope(() => new Mask2Former(shape))
    .requiresGrad_(false)
    .eval() as Mask2Former;
  network.to({ device: options.device });

  const forward = () =>
    noGrad(() =>
      scope(() => {
        const { classLogits } = network.forward(
          detectorInput(image, scale, false).pixels.to({ device: options.device }),
        );
        classLogits.to({ device: "cpu" }).data();
      }),
    );
  const detect = (minScore?: number) =>
    noGrad(() =>
      scope(() => {
        const { pixels, ...sizes } = detectorInput(image, scale, false);
        const { classLogits, maskLogits } = network.forward(pixels.to({ device: options.device }));
        const one = { classLogits: classLogits.select(0, 0), maskLogits: maskLogits.select(0, 0) };
        instances(one, sizes, { minScore });
      }),
    );
  const times = {
    network: measured(options.rounds, forward),
    detections: measured(options.rounds, () => detect()),
    "detections above 0.3": measured(options.rounds, () => detect(MIN_SCORE)),
  };
  const peakBytes = processPeak();
  network.dispose();
  const python =
    options.python && options.device === "cpu"
      ? runReference<Reference>(options.python, "detector.py", [
          JSON.stringify(shape),
          picture,
          JSON.stringify(scale),
          String(options.rounds),
        ])
      : null;

  const rows = Object.entries(times).flatMap(([part, ours]) => {
    const theirs = python?.times[part as keyof Reference["times"]];
    return (["seconds", "cpuSeconds"] as const).map((measure) => ({
      part,
      measure,
      ours: spread(ours[measure]),
      python: theirs ? spread(theirs[measure]) : null,
    }));
  });
  const range = (value: Spread | null) =>
    value === null ? "" : `${value.median.toFixed(2)} (${value.min.toFixed(2)} to ${value.max.toFixed(2)})`;
  console.log(
    columns([
      ["", "miro-t2i", "transformers", "faster by"],
      ...rows.map(({ part, measure, ours, python }) => [
        `${part}, ${measure === "seconds" ? "seconds" : "processor seconds"}`,
        range(ours),
        range(python),
        python ? (python.median / ours.median).toFixed(2) : "",
      ]),
      ["peak memory, GiB", gib(peakBytes), python ? gib(python.peakBytes) : "", ""],
    ]),
  );
  const config = { size: options.size, device: options.device, scale, picture: [image.width, image.height] };
  const figures = { rows, peakBytes, ...(python && { pythonPeakBytes: python.peakBytes }) };
  console.log(`\n${store(options, config, figures, python?.versions)}`);
}

function measured(rounds: number, work: () => void): Times {
  const cpuSeconds: number[] = [];
  const all = seconds(rounds, 1, () => {
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    cpuSeconds.push((user + system) / 1e6);
  });
  return { seconds: all, cpuSeconds: cpuSeconds.slice(1) };
}

const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(2);

/** The most memory that this process ever had. */
function processPeak(): number {
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return Number(kibibytes?.[1] ?? 0) * 1024;
}
