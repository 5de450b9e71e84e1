/** The random draws of a training step, named by what they decide, so that recorded ones can be replayed. */
import { type Generator, rand, randn, type Tensor } from "@miro-t2i/torch";

/** What a random draw decides; in the order in which the loss makes them. */
export type DrawPurpose = "textDrop" | "rewardDrop" | "time" | "noise" | "keepLatents";

/** A source of random numbers: standard normal or uniform on [0, 1), float32. */
export type Draw = (purpose: DrawPurpose, kind: "uniform" | "normal", shape: number[]) => Tensor;

/** Draws from a generator (the process-wide one when none is given), on that generator's device. */
export function drawFrom(generator?: Generator): Draw {
  return (_purpose, kind, shape) => (kind === "normal" ? randn(shape, { generator }) : rand(shape, { generator }));
}

/** A draw that will be made: its arguments. */
export type PlannedDraw = Parameters<Draw>;
