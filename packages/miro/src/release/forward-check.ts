/**
 * One forward pass of a release, on inputs that every machine can make: it shows that the file is a working network,
 * and its figures tell a copy from another model. Sums of floating values differ between processors in the last digits,
 * so the figures are compared with a tolerance; the digest holds on the machine and version that wrote it.
 */
import { createHash } from "node:crypto";
import { arange, type DType, noGrad, ones, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { MiroError } from "../errors.js";
import { loadCheckpoint } from "../pipeline/loading/checkpoint.js";

/** What a forward pass gave: of the velocity D, in float32. */
export interface ForwardCheck {
  /** SHA-256 of its bytes in C order. */
  sha256: string;
  mean: number;
  std: number;
  /** The first four values. */
  values: number[];
}

const TEXT_TOKENS = 5;
/** Two samples: one with every reward at 1, one with every reward at 0 and the text partly masked. */
const BATCH = 2;

/**
 * Runs a release folder's network once, in the dtype of its file.
 * @throws MiroError when a value is not finite, or the files do not fit each other
 */
export function forwardCheck(folder: string, dtype: DType): ForwardCheck {
  return scope(() =>
    noGrad(() => {
      const { config, network, preconditioning } = loadCheckpoint(folder, { dtype });
      const { numInputChannels: channels, dataSize: side, labelDim, coherenceKeys } = config.network;
      const mask = ones([BATCH, TEXT_TOKENS], { dtype: "bool" });
      mask
        .select(0, 1)
        .narrow(0, TEXT_TOKENS - 2, 2)
        .fill_(0);
      const levels = tensor([1, 0], { dtype: "float32" });
      try {
        const { D } = preconditioning.apply(network, {
          y: wave([BATCH, channels, side, side], 0.37),
          gamma: tensor([0.25, 0.75], { dtype: "float32" }),
          textEmbeddings: wave([BATCH, TEXT_TOKENS, labelDim], 0.61).mul(0.1),
          textMask: mask,
          rewards: Object.fromEntries(coherenceKeys.map((key) => [key, levels])),
          previousLatents: zeros([BATCH, config.network.numLatents, config.network.latentsDim]),
        });
        return figures(folder, D.float().contiguous());
      } finally {
        network.dispose();
        preconditioning.dispose();
      }
    }),
  );
}

/** sin(step · i) over the elements. */
function wave(shape: number[], step: number): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  return arange(count).to("float64").mul(step).sin().float().view(shape);
}

function figures(folder: string, D: Tensor): ForwardCheck {
  if (!D.isfinite().all().item())
    throw new MiroError(`${folder}: the network's output is not finite; convert to float32`);
  const data = D.data();
  const round = (value: number) => Number(value.toPrecision(6));
  return {
    sha256: createHash("sha256")
      .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
      .digest("hex"),
    mean: round(D.mean().item()),
    std: round(D.std().item()),
    values: (D.view(-1).narrow(0, 0, 4).toList() as number[]).map(round),
  };
}
