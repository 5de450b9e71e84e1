/** A small training that ranks do together, and one process does alone. */
import { Generator, manualSeed, nn, randn, scope, type Tensor } from "@miro-t2i/torch";
import type { DistributedReducer, ProcessGroup } from "@miro-t2i/torch/distributed";
import { AdamW } from "@miro-t2i/torch/optim";

const ROWS = 32;
const STEPS = 12;

interface Rank {
  rank: number;
  worldSize: number;
  group: ProcessGroup;
  reducer: typeof DistributedReducer;
}

/**
 * Trains on the rows of a rank, or on all of them.
 * @returns the loss on all rows after the steps
 */
export async function trainTogether(device: string, part: Rank | null): Promise<number> {
  manualSeed(1 + (part?.rank ?? 0)); // a rank's own weights are replaced by those of rank 0
  using net = new nn.Sequential(new nn.Linear(16, 64), new nn.Linear(64, 1));
  net.to({ device });
  const draw = (seed: number, width: number) =>
    scope(() =>
      randn([ROWS, width], { generator: new Generator().manualSeed(seed) })
        .to({ device })
        .keep(),
    );
  using x = draw(21, 16);
  using y = draw(22, 1);
  const lossOf = (x: Tensor, y: Tensor) => (net.forward(x) as Tensor).sub(y).square().mean();
  const optimizer = new AdamW([...net.parameters()], { lr: 1e-2 });
  const reducer = await part?.reducer.create(part.group, net.namedParameters(), {
    bucketCapMb: 0.004,
    firstBucketCapMb: 0.002,
  });
  for (let step = 0; step < STEPS; step++)
    scope(() => {
      optimizer.zeroGrad();
      const count = ROWS / (part?.worldSize ?? 1);
      const rows = (t: Tensor) => t.narrow(0, count * (part?.rank ?? 0), count);
      reducer?.prepareForForward();
      const loss = lossOf(rows(x), rows(y));
      if (reducer) reducer.backward(loss);
      else loss.backward();
      optimizer.step();
    });
  const loss = scope(() => lossOf(x, y).item() as number);
  reducer?.dispose();
  optimizer.dispose();
  return loss;
}
