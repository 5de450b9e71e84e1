/** Modules made of modules: a list and a chain. Their state-dict names are the positions "0", "1", … */
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

export class ModuleList<M extends Module = Module> extends Module {
  readonly items: M[] = [];

  constructor(items: Iterable<M> = []) {
    super();
    for (const item of items) this.push(item);
  }

  push(item: M): this {
    this.items.push(this.register(String(this.items.length), item));
    return this;
  }

  get length(): number {
    return this.items.length;
  }

  [Symbol.iterator](): IterableIterator<M> {
    return this.items.values();
  }
}

/** A module from one tensor to one tensor. */
export type Layer = Module & { forward(x: Tensor): Tensor };

/** Applies its layers one after another. */
export class Sequential extends Module {
  readonly layers: readonly Layer[];

  constructor(...layers: Layer[]) {
    super();
    this.layers = layers.map((layer, i) => this.register(String(i), layer));
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((value, layer) => layer.forward(value), x);
  }
}

/** A parameterless layer around a function, for {@link Sequential}: `new Lambda((x) => x.relu())`. */
export class Lambda extends Module {
  constructor(readonly fn: (x: Tensor) => Tensor) {
    super();
  }

  forward(x: Tensor): Tensor {
    return this.fn(x);
  }
}
