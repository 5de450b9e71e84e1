/** Modules made of modules: a list and a chain. Their state-dict names are the positions "0", "1", … */
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

/** A list of modules, named by their positions. PyTorch: `nn.ModuleList`. */
export class ModuleList<M extends Module = Module> extends Module {
  /** The modules, in order. */
  readonly items: M[] = [];

  constructor(items: Iterable<M> = []) {
    super();
    for (const item of items) this.push(item);
  }

  /** Adds a module behind the last one. */
  push(item: M): this {
    this.items.push(this.register(String(this.items.length), item));
    return this;
  }

  /** How many there are. */
  get length(): number {
    return this.items.length;
  }

  [Symbol.iterator](): IterableIterator<M> {
    return this.items.values();
  }
}

/** A module from one tensor to one tensor. */
export type Layer = Module & { forward(x: Tensor): Tensor };

/**
 * Applies its layers one after another. PyTorch: `nn.Sequential`.
 *
 * @example
 * ```ts
 * const mlp = new nn.Sequential(new nn.Linear(8, 32), new nn.Lambda(F.silu), new nn.Linear(32, 1));
 * mlp.forward(randn([16, 8])).shape; // [16, 1]
 * ```
 */
export class Sequential extends Module {
  /** The layers, in order. */
  readonly layers: readonly Layer[];

  constructor(...layers: Layer[]) {
    super();
    this.layers = layers.map((layer, i) => this.register(String(i), layer));
  }

  /** The result of the last layer. */
  forward(x: Tensor): Tensor {
    return this.layers.reduce((value, layer) => layer.forward(value), x);
  }
}

/** A parameterless layer around a function, for {@link Sequential}: `new Lambda((x) => x.relu())`. */
export class Lambda extends Module {
  /** @param fn from the input to the output */
  constructor(readonly fn: (x: Tensor) => Tensor) {
    super();
  }

  /** What the function gives. */
  forward(x: Tensor): Tensor {
    return this.fn(x);
  }
}
