/**
 * An evaluation in two threads: rows of a batch, such as the two branches of guidance, are computed half here and half
 * in another thread that has the same network. Operators of a small network are too short to be shared by cores, its
 * rows are not.
 *
 * A batch of half the rows may be added up in another order, so results are the same to rounding, not to the bit.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { cat, type DType, getNumThreads, noGrad, scope, setNumThreads, type Tensor, tensor } from "@miro-t2i/torch";
import { MiroError } from "../errors.js";
import type { Predict } from "../flow/guidance.js";
import { release } from "../flow/release.js";
import { type Conditioning, narrowConditioning } from "../networks/conditioning.js";
import { type ErrorData, errorFromData, errorToData } from "../threads/messages.js";

type Prediction = ReturnType<Predict<Conditioning>>;

/** The rows of an evaluation that another thread computes. */
interface Half {
  y: Tensor;
  gamma: Tensor;
  previousLatents: Tensor | null;
  /** Of all rows; its own are the last ones. */
  conditioning: Conditioning;
}

/** A thread that has the same network. */
export interface Partner {
  /** Begins an evaluation there. @returns waits for its result. @throws what the evaluation throws */
  begin(half: Half): () => Prediction;
}

/** So often may a partner let its half be waited for longer than the own half took: then the cores have other work. */
const MOST_LATE = 2;

/** Evaluations of a run that a partner takes half of, while it is there and the rows can be halved. */
export function inHalves(predict: Predict<Conditioning>, partner: Partner): Predict<Conditioning> {
  let late = 0;
  return (y, gamma, conditioning, previousLatents) => {
    const rows = y.size(0);
    if (rows % 2 !== 0 || late >= MOST_LATE) return predict(y, gamma, conditioning, previousLatents);
    const half = rows / 2;
    const cut = <T extends Tensor | null>(t: T, first: number) => (t?.narrow(0, first, half) ?? null) as T;
    const rest = { y: cut(y, half), gamma: cut(gamma, half), previousLatents: cut(previousLatents, half) };
    const end = partner.begin({ ...rest, conditioning });
    const most = getNumThreads();
    setNumThreads(Math.max(1, Math.floor(most / 2)));
    let own: Prediction;
    let others: Prediction;
    const begun = performance.now();
    let done = begun;
    try {
      const first = narrowConditioning(conditioning, 0, half);
      own = predict(cut(y, 0), cut(gamma, 0), first, cut(previousLatents, 0));
    } finally {
      setNumThreads(most);
      done = performance.now();
      others = end();
    }
    if (performance.now() - done > done - begun) late++;
    return { D: cat([own.D, others.D], 0), z: own.z && others.z && cat([own.z, others.z], 0) };
  };
}

/** A tensor on its way between threads. */
interface Sent {
  data: ReturnType<Tensor["data"]>;
  shape: readonly number[];
  dtype: DType;
}

/** What structured cloning can carry, with tensors as {@link Sent}. */
interface Question {
  y: Sent;
  gamma: Sent;
  previousLatents: Sent | null;
  /** Null where it is that of the question before. */
  conditioning: { tokens: Sent | null; keyValues: { keys: Sent; values: Sent }[]; mask: Sent | null } | null;
}

type Answer = { D: Sent; z: Sent | null } | { error: ErrorData };

/** Where two threads meet: questions and answers pass through the port, the counter says how many were answered. */
export interface Meeting {
  port: MessagePort;
  answered: Int32Array;
}

/** How long an evaluation may take. */
const MOST_MS = 60_000;

/** The thread at the other end of a port, where {@link serveHalves} runs. */
export class PartnerThread implements Partner {
  readonly #meeting: Meeting;
  #conditioning: WeakRef<Conditioning> | null = null;

  constructor(meeting: Meeting) {
    this.#meeting = meeting;
  }

  begin({ y, gamma, previousLatents, conditioning }: Half): () => Prediction {
    const { port, answered } = this.#meeting;
    const known = this.#conditioning?.deref() === conditioning;
    const question: Question = {
      ...{ y: sent(y), gamma: sent(gamma), previousLatents: previousLatents && sent(previousLatents) },
      conditioning: known ? null : scope(() => sentConditioning(conditioning, y.size(0))),
    };
    this.#conditioning = new WeakRef(conditioning);
    const before = Atomics.load(answered, 0);
    port.postMessage(question);
    return () => {
      Atomics.wait(answered, 0, before, MOST_MS);
      const answer = receiveMessageOnPort(port)?.message as Answer | undefined;
      if (answer === undefined) throw new MiroError("the other thread of the model does not answer");
      if ("error" in answer) throw errorFromData(answer.error);
      return { D: received(answer.D), z: answer.z && received(answer.z) };
    };
  }
}

/** Answers a {@link PartnerThread} with evaluations. */
export function serveHalves({ port, answered }: Meeting, predict: Predict<Conditioning>): void {
  let conditioning: Conditioning | null = null;
  port.on("message", (question: Question) => {
    port.postMessage(answer(question));
    Atomics.add(answered, 0, 1);
    Atomics.notify(answered, 0);
  });
  port.unref();

  function answer({ y, gamma, previousLatents, conditioning: fresh }: Question): Answer {
    const most = getNumThreads();
    try {
      if (fresh !== null) {
        release(conditioning);
        conditioning = receivedConditioning(fresh);
      }
      setNumThreads(Math.max(1, Math.floor(most / 2)));
      return scope(() =>
        noGrad(() => {
          const previous = previousLatents && received(previousLatents);
          const { D, z } = predict(received(y), received(gamma), conditioning!, previous);
          return { D: sent(D), z: z && sent(z) };
        }),
      );
    } catch (error) {
      return { error: errorToData(error) };
    } finally {
      setNumThreads(most);
    }
  }
}

function sent(t: Tensor): Sent {
  return { data: t.data(), shape: t.shape, dtype: t.dtype };
}

function received({ data, shape, dtype }: Sent): Tensor {
  return tensor(data, { shape, dtype });
}

function sentConditioning(whole: Conditioning, rows: number): NonNullable<Question["conditioning"]> {
  const { tokens, keyValues, mask } = narrowConditioning(whole, rows, rows);
  return {
    tokens: tokens && sent(tokens),
    keyValues: keyValues.map(({ keys, values }) => ({ keys: sent(keys), values: sent(values) })),
    mask: mask && sent(mask),
  };
}

function receivedConditioning({ tokens, keyValues, mask }: NonNullable<Question["conditioning"]>): Conditioning {
  return scope(() => ({
    tokens: tokens && received(tokens),
    keyValues: keyValues.map(({ keys, values }) => ({ keys: received(keys), values: received(values) })),
    mask: mask && received(mask),
  }));
}
