// The native addon: where it lies, what it exports, and the state it shares with JavaScript.
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { addonFile, loadAdvice, theseSurroundings } from "./addon-file.js";
import { TorchError } from "./errors.js";
import { cpuCacheBytes, processors } from "./limits.js";
import { loadNamedLibtorch } from "./named-libtorch.js";
import { shortenSpinning } from "./spinning.js";

/** A tensor's name in native code: slot index and generation in one integer of 53 bits. 0 is no tensor. */
export type Handle = number;

/** What the native addon was built against, see `buildInfo`. */
export interface BuildInfo {
  /** Version of libtorch that the addon was compiled against. */
  torchVersion: string;
  /** Whether the addon was compiled against a libtorch with CUDA. */
  cuda: boolean;
  /** Processor features that matter here: `avx2`, `avx512f`, `avx512_vnni`, `avx512_bf16`, `amx_bf16`, `amx_int8`. */
  capabilities: string[];
  /** Whether bfloat16 matrix products are faster than float32 ones on this processor. */
  fastBfloat16: boolean;
  /** Whether attention in half precision may be cuDNN's on CUDA, which `MIRO_CUDNN_ATTENTION=1` allows. */
  cudnnAttention: boolean;
  /** The instruction set that ATen's kernels were chosen for, such as `AVX512`. */
  aten: string;
  /** The loaded `libtorch_cpu` file. */
  libraryPath: string;
  /** The addon's file: of a clone's build, or of this platform's package. */
  addonPath: string;
}

type HostArray = ArrayBufferView | ArrayBuffer;

/** Pixels, their row's width, the windows (first, counts, weights, starts), and where the result goes. */
type PixelPass = [
  source: Uint8Array,
  width: number,
  first: Int32Array,
  counts: Int32Array,
  weights: Int32Array,
  starts: Int32Array,
  target: Uint8Array,
];

/** @internal The addon's functions; each is described where it is written, in native/src. */
export interface Native {
  setup(errorClass: typeof TorchError, flags: Int32Array, cacheBytes: number, threads: number): void;
  operator(name: string, overload: string): number;
  call(operator: number, ...args: unknown[]): any;
  schemas(): string[];
  schema(name: string): string;
  shape(t: Handle): number[];
  strides(t: Handle): number[];
  dtype(t: Handle): number;
  device(t: Handle): string;
  numel(t: Handle): number;
  isContiguous(t: Handle): boolean;
  copyToHost(t: Handle, target: HostArray): void;
  fromHost(source: HostArray, shape: readonly number[], dtype: number): Handle;
  item(t: Handle): number;
  free(t: Handle): void;
  isValid(t: Handle): boolean;
  alias(t: Handle): Handle;
  same(a: Handle, b: Handle): boolean;
  beginScope(): void;
  endScope(escaping: Handle[]): void;
  keep(t: Handle): void;
  track(t: Handle, object: object): void;
  sweep(): [freed: number, freedBytes: number, heldBytes: number];
  setBudget(bytes: number): void;
  share(t: Handle): number;
  receive(token: number): Handle;
  backward(tensors: Handle[], gradients: Handle[], retainGraph: boolean, createGraph: boolean): void;
  grad(
    outputs: Handle[],
    inputs: Handle[],
    gradOutputs: Handle[],
    retainGraph: boolean,
    createGraph: boolean,
    allowUnused: boolean,
  ): Handle[];
  requiresGrad(t: Handle): boolean;
  setRequiresGrad(t: Handle, on: boolean): void;
  isLeaf(t: Handle): boolean;
  getGrad(t: Handle): Handle;
  setGrad(t: Handle, gradient: Handle): void;
  setGradMode(enabled?: boolean): boolean;
  beginInference(): void;
  endInference(): void;
  beginAutocast(device: string, dtype: number, enabled: boolean, cache: boolean): number;
  endAutocast(device: string, state: number): void;
  generatorNew(device: string): number;
  generatorDefault(device: string): number;
  trackGenerator(id: number, object: object): void;
  generatorSeed(id: number, seed: number | bigint): void;
  generatorInitialSeed(id: number): bigint;
  generatorGetState(id: number): Handle;
  generatorSetState(id: number, state: Handle): void;
  manualSeed(seed: number | bigint): void;
  setNumThreads(n: number): void;
  getNumThreads(): number;
  loopThreads(): number;
  memoryStats(): [live: number, peak: number, cached: number, tensors: number];
  emptyCache(): void;
  cudaMemory(device: number): [allocated: number, reserved: number, peak: number];
  cudaAllowTf32(matmul?: boolean, cudnn?: boolean): [matmul: boolean, cudnn: boolean];
  cudaDevices(): (string | number)[];
  cudaAvailable(): boolean;
  cudaDeviceCount(): number;
  cudaSynchronize(device?: number): void;
  gpuProgramFailure(): string;
  gradients(parameters: Float64Array): Handle[];
  clearGradients(parameters: Float64Array): void;
  clipGradients(parameters: Float64Array, maxNorm: number): Handle;
  unscaleGradients(parameters: Float64Array, inverseScale: Handle, found: Handle): void;
  moveTowards(targets: Float64Array, sources: Float64Array, weight: number): void;
  optimizerStep(
    algorithm: "adamw" | "lamb",
    settings: Float64Array,
    parameters: Float64Array,
    firsts: Float64Array,
    seconds: Float64Array,
    steps: Float64Array,
    allSteps: Handle,
    skip: Handle,
  ): void;
  linear(x: Handle, weight: Handle, bias: Handle): Handle;
  swiGlu(x: Handle): Handle;
  multiHeadAttention(q: Handle, k: Handle, v: Handle, mask: Handle): Handle;
  rmsNorm(x: Handle, weight: Handle, eps: number, forProduct: boolean): Handle;
  layerNorm(x: Handle, weight: Handle, bias: Handle, eps: number): Handle;
  toBytes(x: Handle, levels: number, smallest: number): [bytes: Handle, steps: Handle];
  scaleRows_(y: Handle, steps: Handle, bias: Handle, more: Handle): void;
  gateRows_(y: Handle, gate: Handle, steps: Handle, bias: Handle, gateBias: Handle): void;
  filterRows(...pass: PixelPass): void;
  filterColumns(...pass: [...PixelPass, left: number, count: number]): void;
  pinned(bytes: number): Handle;
  copyBeside(t: Handle, device: string): Handle;
  copyOut(sources: Handle[], targets: Handle[]): number;
  eventRecord(t: Handle): number;
  eventIsDone(event: number): boolean;
  eventWait(event: number): void;
  eventBefore(event: number, t: Handle): void;
  eventFree(event: number): void;
  graphNew(device: number, pool?: number): number;
  graphPool(): number;
  graphEnter(graph: number): void;
  graphLeave(graph: number): void;
  graphBegin(graph: number): void;
  graphEnd(graph: number): void;
  graphReplay(graph: number): void;
  graphFree(graph: number): void;
  storeTcp(host: string, port: number, serves: boolean, timeoutMs: number, prefix: string): Promise<number>;
  storeFile(path: string, worldSize: number, timeoutMs: number): Promise<number>;
  storePort(store: number): number;
  storeFree(store: number): void;
  storeSet(store: number, key: string, text: string): Promise<void>;
  storeGet(store: number, key: string): Promise<string>;
  groupNew(store: number, backend: string, rank: number, worldSize: number, timeoutMs: number): Promise<number>;
  groupFree(group: number): Promise<void>;
  groupAllReduce(group: number, t: Handle, operation: string): Promise<void>;
  groupQueueAllReduce(group: number, t: Handle, operation: string): void;
  groupCheck(group: number): void;
  groupBroadcast(group: number, t: Handle, root: number): Promise<void>;
  groupAllGather(group: number, t: Handle): Promise<Handle[]>;
  groupBarrier(group: number): Promise<void>;
  reducerNew(
    group: number,
    parameters: Handle[],
    names: string[],
    bucketBytes: number,
    firstBucketBytes: number,
    findUnused: boolean,
  ): Promise<number>;
  reducerFree(reducer: number): void;
  reducerForward(reducer: number): boolean;
  reducerBackward(reducer: number, outputs: Handle[]): void;
  reducerFinalize(reducer: number): void;
  reducerStatistics(reducer: number): number[];
  buildInfo(): Omit<BuildInfo, "addonPath">;
  readRows(t: Handle, descriptors: Int32Array, places: Float64Array, cancelled: Int32Array): Promise<Uint8Array>;
}

/** flags[0] is raised by the addon when forgotten tensors may be worth collecting. */
export const flags = new Int32Array(4);

/** The folder of this package. */
const home = () => dirname(dirname(fileURLToPath(import.meta.url)));

/** @internal The addon's file. @throws TorchError where there is none */
export const addonPath = (): string => addonFile(theseSurroundings(home()));

function load(): Native {
  const file = addonPath();
  const cacheBytes = cpuCacheBytes(process.env);
  shortenSpinning(process.env);
  loadNamedLibtorch(file);
  try {
    const addon = createRequire(import.meta.url)(file) as Native;
    addon.setup(TorchError, flags, cacheBytes, process.env.OMP_NUM_THREADS ? 0 : processors());
    // A copy: Node-API makes its object of functions one property after another, which leaves V8 with a dictionary.
    return { ...addon };
  } catch (error) {
    const { message } = error as Error;
    throw new TorchError(`the native addon ${file} could not be loaded: ${message}; ${loadAdvice(home(), message)}`);
  }
}

/**
 * The addon's functions. The first access loads the addon and libtorch: importing the package alone loads no native
 * code. Never copied into a constant at the top of a module, which would load them too.
 * @internal
 */
export let native: Native = new Proxy({} as Native, {
  get(_, name: keyof Native) {
    native = load();
    return native[name];
  },
});
