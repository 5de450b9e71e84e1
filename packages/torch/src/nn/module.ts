/**
 * The base of every network: named parameters, buffers and sub-modules, and the state dict that names them.
 *
 * Registration is explicit. TypeScript fields are camelCase; the registered names are the keys of the state dict and
 * keep the spelling of the checkpoints they come from (`layer_norm.weight`).
 */
import { noGrad } from "../autograd.js";
import { type DType, isFloatingPoint } from "../dtype.js";
import { shown, TorchError } from "../errors.js";
import { options as known } from "../named-options.js";
import { scope } from "../scope.js";
import { Tensor } from "../tensor.js";

/** Tensors by name, in order of registration. */
export type StateDict = Map<string, Tensor>;

/** Options of {@link Module.loadStateDict}. */
export interface LoadStateDictOptions {
  /** Refuse missing and unexpected keys (default true). Wrong shapes are refused in any case. */
  strict?: boolean | undefined;
  /** Take the given tensors themselves (their storage and dtype) instead of copying their values; they are consumed. */
  assign?: boolean | undefined;
}

/** Names that did not match, where `strict` is false. */
export interface LoadStateDictResult {
  /** Names that the module has and the state dict has not. */
  missing: string[];
  /** Names that the state dict has and the module has not. */
  unexpected: string[];
}

interface Buffer {
  tensor: Tensor;
  persistent: boolean;
  keepDtype: boolean;
}

/** Joins a prefix and a name with a dot, as PyTorch's state dicts do. */
const join = (prefix: string, name: string): string => (prefix === "" ? name : `${prefix}.${name}`);

/**
 * The base of every network. PyTorch: `nn.Module`, but registration is explicit.
 *
 * @example
 * ```ts
 * class Block extends nn.Module {
 *   readonly fc = this.register("fc", new nn.Linear(8, 8));
 *   readonly scale = this.parameter("scale", ones([8]));
 *
 *   forward(x: Tensor): Tensor {
 *     return x.add(F.silu(this.fc.forward(x)).mul(this.scale));
 *   }
 * }
 *
 * [...new Block().stateDict().keys()]; // ["scale", "fc.weight", "fc.bias"]
 * ```
 */
export abstract class Module {
  /** Whether dropout and its like are active; set by {@link train} and {@link eval}. */
  training = true;

  readonly #modules = new Map<string, Module>();
  readonly #parameters = new Map<string, Tensor>();
  readonly #buffers = new Map<string, Buffer>();

  /** Registers a sub-module under a name and returns it. */
  protected register<M extends Module>(name: string, module: M): M {
    this.#claim(name);
    if (!(module instanceof Module)) {
      const remedy = typeof module === "function" ? ", but a function: new nn.Lambda(f) makes one of it" : "";
      throw new TorchError(`${this.constructor.name}: ${name} is no Module${remedy}`);
    }
    this.#modules.set(name, module);
    return module;
  }

  /**
   * Registers a tensor as a parameter and returns it. It survives the enclosing scope and, when floating, records
   * gradients unless `requiresGrad` is false. Integer and boolean parameters are allowed; they are frozen.
   */
  protected parameter(
    name: string,
    tensor: Tensor,
    { requiresGrad = true }: { requiresGrad?: boolean | undefined } = {},
  ): Tensor {
    this.#claim(name);
    tensor.keep();
    if (isFloatingPoint(tensor.dtype)) tensor.requiresGrad_(requiresGrad);
    this.#parameters.set(name, tensor);
    return tensor;
  }

  /**
   * Registers a tensor that is no parameter. A buffer that is not persistent stays out of the state dict; one with
   * `keepDtype` is not cast when the module is, nor by loading values of another dtype.
   */
  protected buffer(
    name: string,
    tensor: Tensor,
    {
      persistent = true,
      keepDtype = false,
    }: { persistent?: boolean | undefined; keepDtype?: boolean | undefined } = {},
  ): Tensor {
    this.#claim(name);
    tensor.keep();
    this.#buffers.set(name, { tensor, persistent, keepDtype });
    return tensor;
  }

  #claim(name: string): void {
    const owner = this.constructor.name;
    if (name === "" || name.includes(".")) {
      throw new TorchError(
        `${owner}: a registered name must be non-empty and without dots, got ${JSON.stringify(name)}`,
      );
    }
    if (this.#modules.has(name) || this.#parameters.has(name) || this.#buffers.has(name)) {
      throw new TorchError(`${owner}: the name ${JSON.stringify(name)} is registered already`);
    }
  }

  /** This module (named by `prefix`) and all below it, each once, in order of registration. */
  *namedModules(prefix = "", seen: Set<Module> = new Set()): IterableIterator<[string, Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, module] of this.#modules) yield* module.namedModules(join(prefix, name), seen);
  }

  /** The direct sub-modules with their names. */
  namedChildren(): IterableIterator<[string, Module]> {
    return this.#modules.entries();
  }

  /** The direct sub-modules. */
  children(): IterableIterator<Module> {
    return this.#modules.values();
  }

  /** Every parameter of this module and of those below, each once (a shared one under its first name). */
  *namedParameters(prefix = ""): IterableIterator<[string, Tensor]> {
    const seen = new Set<Tensor>();
    for (const [path, module] of this.namedModules(prefix)) {
      for (const [name, tensor] of module.#parameters) {
        if (seen.has(tensor)) continue;
        seen.add(tensor);
        yield [join(path, name), tensor];
      }
    }
  }

  /** Every parameter of this module and of those below, each once. */
  *parameters(): IterableIterator<Tensor> {
    for (const [, tensor] of this.namedParameters()) yield tensor;
  }

  /** Every buffer of this module and of those below, each once. */
  *namedBuffers(prefix = ""): IterableIterator<[string, Tensor]> {
    const seen = new Set<Tensor>();
    for (const [path, module] of this.namedModules(prefix)) {
      for (const [name, { tensor }] of module.#buffers) {
        if (seen.has(tensor)) continue;
        seen.add(tensor);
        yield [join(path, name), tensor];
      }
    }
  }

  /** Every buffer of this module and of those below, each once. */
  *buffers(): IterableIterator<Tensor> {
    for (const [, tensor] of this.namedBuffers()) yield tensor;
  }

  /**
   * Parameters and persistent buffers by name: this module's own first, then each sub-module's, in order of
   * registration. The tensors are the module's own, not copies; a shared one appears under each of its names.
   */
  stateDict(prefix = ""): StateDict {
    const state: StateDict = new Map();
    this.#collect(prefix, state);
    return state;
  }

  #collect(prefix: string, state: StateDict): void {
    for (const [name, tensor] of this.#parameters) state.set(join(prefix, name), tensor);
    for (const [name, { tensor, persistent }] of this.#buffers) {
      if (persistent) state.set(join(prefix, name), tensor);
    }
    for (const [name, module] of this.#modules) module.#collect(join(prefix, name), state);
  }

  /**
   * Loads values by name. Everything is checked before anything is changed.
   * @throws TorchError that lists every missing, unexpected and wrongly shaped key.
   */
  loadStateDict(
    state: ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>,
    options: LoadStateDictOptions = {},
  ): LoadStateDictResult {
    const { strict = true, assign = false } = known("loadStateDict", options, ["strict", "assign"]);
    if (typeof state !== "object" || state === null)
      throw new TorchError(`${this.constructor.name}: expected tensors by name, got ${shown(state)}`);
    const own = this.stateDict();
    const given: ReadonlyMap<string, Tensor> = state instanceof Map ? state : new Map(Object.entries(state));
    const missing = [...own.keys()].filter((key) => !given.has(key));
    const unexpected = [...given.keys()].filter((key) => !own.has(key));
    const misshapen: string[] = [];
    for (const [key, target] of own) {
      if (!given.has(key)) continue;
      const source: unknown = given.get(key);
      const found = source instanceof Tensor ? `[${source.shape}]` : shown(source);
      if (found !== `[${target.shape}]`) misshapen.push(`${key}: expected [${target.shape}], got ${found}`);
    }
    const problems = [
      ...(strict ? listed("missing", missing) : []),
      ...(strict ? listed("unexpected", unexpected) : []),
      ...listed("wrong shape", misshapen),
    ];
    if (problems.length > 0) {
      throw new TorchError(`${this.constructor.name}: the state dict does not fit.\n${problems.join("\n")}`);
    }
    const fixed = this.keptDtypes();
    noGrad(() => {
      const loaded = new Set<Tensor>();
      for (const [key, target] of own) {
        const source = given.get(key);
        if (source === undefined || loaded.has(target)) continue;
        loaded.add(target);
        if (source === target) continue;
        if (assign && !fixed.has(target)) replace(target, source);
        else target.copy_(source);
      }
    });
    return { missing, unexpected };
  }

  /**
   * Moves parameters and buffers to a device, and the floating ones to a dtype. The tensor objects stay the same, so
   * optimizers and tied weights keep pointing at them.
   */
  to(options: { device?: string | undefined; dtype?: DType | undefined }): this {
    const { device, dtype } = known(`${this.constructor.name}.to`, options, ["device", "dtype"]);
    if (dtype !== undefined && !isFloatingPoint(dtype)) {
      throw new TorchError(`${this.constructor.name}.to: dtype must be a floating one, got ${dtype}`);
    }
    const fixed = this.keptDtypes();
    for (const tensor of this.#tensors())
      noGrad(() => scope(() => convert(tensor, device, fixed.has(tensor) ? undefined : dtype)));
    return this;
  }

  /** The buffers registered with `keepDtype`, here and below: neither a cast nor loading changes their dtype. */
  keptDtypes(): Set<Tensor> {
    const fixed = new Set<Tensor>();
    for (const [, module] of this.namedModules()) {
      for (const { tensor, keepDtype } of module.#buffers.values()) if (keepDtype) fixed.add(tensor);
    }
    return fixed;
  }

  *#tensors(): IterableIterator<Tensor> {
    yield* this.parameters();
    yield* this.buffers();
  }

  /** Switches training behaviour on (or off) here and in every sub-module. */
  train(on = true): this {
    for (const [, module] of this.namedModules()) module.training = on;
    return this;
  }

  /** Switches training behaviour off here and in every sub-module. */
  eval(): this {
    return this.train(false);
  }

  /** Makes every floating parameter record gradients, or stop doing so. */
  requiresGrad_(on = true): this {
    for (const tensor of this.parameters()) {
      if (isFloatingPoint(tensor.dtype)) tensor.requiresGrad_(on);
    }
    return this;
  }

  /** Drops the gradients of all parameters. */
  zeroGrad(): this {
    for (const tensor of this.parameters()) tensor.grad = null;
    return this;
  }

  /** Frees every parameter and buffer; the module must not be used afterwards. */
  dispose(): void {
    for (const tensor of [...this.#tensors()]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function listed(what: string, items: string[]): string[] {
  return items.length === 0 ? [] : [`  ${what} (${items.length}): ${items.join(", ")}`];
}

/** `target` denotes `source`'s storage from here on and keeps its own gradient flag. */
function replace(target: Tensor, source: Tensor): void {
  const requiresGrad = target.requiresGrad;
  target.assign(source);
  if (isFloatingPoint(target.dtype)) target.requiresGrad_(requiresGrad);
}

/** Moves a tensor in place, its gradient with it. */
function convert(tensor: Tensor, device = tensor.device, dtype = tensor.dtype): void {
  const target = { device, dtype: isFloatingPoint(tensor.dtype) ? dtype : tensor.dtype };
  if (target.dtype === tensor.dtype && target.device === tensor.device) return;
  const grad = tensor.requiresGrad ? tensor.grad : null;
  replace(tensor, tensor.detach().to(target));
  if (grad !== null) tensor.grad = grad.to(target);
}
