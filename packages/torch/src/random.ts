// Random number generators with PyTorch's streams.
import type { Device } from "./dtype.js";
import { native } from "./native.js";
import { type Tensor, wrap } from "./tensor.js";

const freed = new FinalizationRegistry<number>((id) => native.generatorFree(id));

/** A stream of random numbers, equal to `torch.Generator` of the same device and seed. */
export class Generator {
  /** The engine's number of this stream. */
  readonly generatorHandle: number;
  readonly device: Device;

  constructor(device: Device = "cpu", handle = native.generatorNew(device)) {
    this.device = device;
    this.generatorHandle = handle;
    freed.register(this, handle);
  }

  static #default: Generator | undefined;
  /** The global CPU generator: what is used where none is given. */
  static get default(): Generator {
    Generator.#default ??= new Generator("cpu", native.generatorDefault("cpu"));
    return Generator.#default;
  }

  /** Starts the stream of a 64-bit seed. */
  manualSeed(seed: number | bigint): this {
    native.generatorSeed(this.generatorHandle, seed);
    return this;
  }
  initialSeed(): bigint {
    return native.generatorInitialSeed(this.generatorHandle);
  }
  /** The whole state as a uint8 tensor, as PyTorch stores it. */
  getState(): Tensor {
    return wrap(native.generatorGetState(this.generatorHandle));
  }
  setState(state: Tensor): this {
    native.generatorSetState(this.generatorHandle, state.handle);
    return this;
  }
}

/** Seeds the global generators of every device. */
export function manualSeed(seed: number | bigint): void {
  native.manualSeed(seed);
}
