// Random number generators with PyTorch's streams.
import type { Device } from "./dtype.js";
import { collectWhenDue } from "./memory.js";
import { native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";

/**
 * A stream of random numbers, equal to `torch.Generator` of the same device and seed.
 *
 * @example
 * ```ts
 * const generator = new Generator().manualSeed(42);
 * randn([2], { generator }).toList(); // torch.randn(2, generator=torch.Generator().manual_seed(42))
 * ```
 */
export class Generator {
  /** The engine's number of this stream. */
  readonly generatorHandle: number;
  /** Where its numbers are drawn: a generator serves tensors of this device only. */
  readonly device: Device;

  /** @param device `cpu`, `cuda` or `cuda:N` */
  constructor(device: Device = "cpu", handle = native.generatorNew(device)) {
    this.device = device;
    this.generatorHandle = handle;
    native.trackGenerator(handle, this);
    collectWhenDue();
  }

  static #default: Generator | undefined;
  /** The global CPU generator: what is used where none is given. */
  static get default(): Generator {
    Generator.#default ??= new Generator("cpu", native.generatorDefault("cpu"));
    return Generator.#default;
  }

  /**
   * Starts the stream of a 64-bit seed, from −2⁶³ to 2⁶⁴ − 1; those beyond ±2⁵³ are given as a bigint.
   *
   * @throws TorchError for others and for fractions
   */
  manualSeed(seed: number | bigint): this {
    native.generatorSeed(this.generatorHandle, seed);
    return this;
  }
  /** The seed of the last {@link manualSeed}. */
  initialSeed(): bigint {
    return native.generatorInitialSeed(this.generatorHandle);
  }
  /** The whole state as a uint8 tensor, as PyTorch stores it. */
  getState(): Tensor {
    return wrap(native.generatorGetState(this.generatorHandle));
  }
  /** Takes over a state that {@link getState} gave, or PyTorch's `get_state`. @throws TorchError for a wrong length */
  setState(state: Tensor): this {
    native.generatorSetState(this.generatorHandle, state.handle);
    return this;
  }
}

/** Seeds the global generators of every device, as {@link Generator.manualSeed}. */
export function manualSeed(seed: number | bigint): void {
  native.manualSeed(seed);
}
