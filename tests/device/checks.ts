/** What a phase of the device check says, and how it says it. */
import { cuda, scope, type Tensor } from "@miro-t2i/torch";

/** One thing that was looked at. */
export interface Finding {
  check: string;
  state: "ok" | "failed" | "does not apply";
  /** The figure and its bound, or what went wrong. */
  said: string;
  /** All of an error, with the place where it arose. */
  details?: string;
}

/** Characters of an error that are kept: the reports of CUDA libraries are long. */
const DETAILS = 20_000;

/** What a phase is given: the device, and where its findings go as they come. */
export class Checks {
  constructor(
    readonly device: string,
    readonly tell: (finding: Finding) => void,
  ) {}

  /** Whether the device is a GPU. */
  get onGpu(): boolean {
    return this.device !== "cpu";
  }

  /** Runs one check. It fails by throwing; what it returns is said beside it. */
  async check(name: string, body: () => string | undefined | Promise<string | undefined>): Promise<void> {
    try {
      this.tell({ check: name, state: "ok", said: (await body()) ?? "" });
    } catch (error) {
      this.failed(name, error as Error);
    }
  }

  /** Says that something failed, and how. */
  failed(name: string, { message, stack }: Error): void {
    const details = String(stack ?? message).slice(0, DETAILS);
    this.tell({ check: name, state: "failed", said: String(message).split("\n")[0]!, details });
  }

  /** Says why something is not looked at here. */
  doesNotApply(name: string, why: string): void {
    this.tell({ check: name, state: "does not apply", said: why });
  }

  /** Waits until the device has done what was queued. */
  synchronize(): void {
    if (this.onGpu) cuda.synchronize(this.gpu);
  }

  /** The index of the GPU; 0 on a CPU. */
  get gpu(): number {
    return Number(/:(\d+)$/.exec(this.device)?.[1] ?? 0);
  }
}

/** Work of a phase. */
export type Phase = (checks: Checks) => void | Promise<void>;

/** @throws Error saying `what` unless `holds` */
export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** @throws Error when an error is above its bound, or no number. @returns both in words */
export function within(error: number, bound: number): string {
  must(error <= bound, `error ${error.toExponential(1)}, at most ${inWords(bound)} is allowed`);
  return `error ${error.toExponential(1)}, at most ${inWords(bound)}`;
}

/** A bound as one writes it: 0.05, 1e-5. */
export function inWords(bound: number): string {
  return bound > 0 && bound < 1e-3 ? bound.toExponential() : String(bound);
}

/**
 * max |a − b| / max |b|, in float64 on the CPU.
 * @throws Error when b is all zeros: a device that computes nothing would agree with itself
 */
export function relativeDifference(a: Tensor, b: Tensor): number {
  return scope(() => {
    const [x, y] = [a, b].map((t) => t.detach().cpu().to({ dtype: "float64" })) as [Tensor, Tensor];
    const largest = y.abs().max().item() as number;
    must(largest !== 0, "what is to be compared with is all zeros");
    return (x.sub(y).abs().max().item() as number) / largest;
  });
}
