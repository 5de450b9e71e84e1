/**
 * `node --import ./scripts/device/fake-cuda.mjs PROGRAM …`: a device "cuda" without a GPU.
 *
 * Tensors there are meta tensors: they have shapes, dtypes and gradients, and no values (`item()` is 1, data are
 * zeros), so only the places in the code count, not what is computed. When the process ends, what was found is written
 * to standard error, or as a JSON line each to the file that FAKE_CUDA_LOG names:
 *
 *   mix      an operator that got tensors of two devices (a CPU scalar beside CUDA tensors is allowed, as in PyTorch)
 *   wait the host waits for the device: item, data, a copy to the CPU, an operator whose result's size depends on
 *     values
 *   copy     a blocking copy to the device
 *   queued   a copy to the device that does not block
 *   poll     the host asks, without waiting, whether the device has come so far (it has at the second time)
 *   capture  any of these while a graph is captured, where it is an error
 *   missing  an operator without a meta kernel: it ran on the CPU with zeros, and gradients end there
 *
 * Worker threads and child processes that inherit NODE_OPTIONS report on their own.
 */
import { appendFileSync } from "node:fs";
import process from "node:process";

const found = new Map();

/** Frames that say nothing about who asked: this file and the engine's own layers. */
const LAYERS = /fake-cuda|torch\/(dist|src)\/(tensor|creation|ops\.generated|scope|autograd|native)|nn\/functional/;

function note(kind, what) {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 40;
  const frames = new Error().stack.split("\n").slice(1);
  Error.stackTraceLimit = limit;
  const site = frames
    .filter((line) => /\/(packages|bench|tests)\//.test(line) && !LAYERS.test(line))
    .slice(0, 4)
    .map((line) => /((?:packages|bench|tests)\/.*?:\d+):\d+\)?$/.exec(line)?.[1] ?? line.trim())
    .join(" < ");
  const key = JSON.stringify([kind, what, site]);
  found.set(key, (found.get(key) ?? 0) + 1);
}

process.on("exit", () => {
  const all = [...found].map(([key, times]) => {
    const [kind, what, site] = JSON.parse(key);
    return { kind, what, site, times };
  });
  all.sort((a, b) => (a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : b.times - a.times));
  const log = process.env.FAKE_CUDA_LOG;
  if (log) appendFileSync(log, all.map((one) => `${JSON.stringify(one)}\n`).join(""));
  else
    for (const { kind, what, site, times } of all)
      process.stderr.write(`${String(times).padStart(6)} × ${kind.padEnd(8)} ${what}  at ${site}\n`);
});

const load = process.dlopen;
process.dlopen = function (module, file, ...rest) {
  load.call(this, module, file, ...rest);
  if (/miro_torch\.node$/.test(file)) replace(module.exports);
};

/** What an argument of a schema is, as far as devices are concerned. */
function kindOf(declaration) {
  if (/^Tensor(\([^)]*\))?\??(?=\s)/.test(declaration)) return "tensor";
  if (/^Tensor(\([^)]*\))?\??\[/.test(declaration)) return "tensors";
  return /^Device/.test(declaration) ? "device" : "other";
}

/** Operators whose result has a size that only the device knows, or is a value of the host's. */
const LOOKS = /nonzero|masked_select|unique|_local_scalar_dense|is_nonzero|equal$|repeat_interleave\.Tensor/;

/** libtorch's number of the dtype uint8. */
const UINT8 = 0;

/** Bytes of a value by the number of its dtype: uint8, int32, int64, float64. */
const WIDTHS = { 0: 1, 3: 4, 4: 8, 7: 8 };

const NO_META_KERNEL = /not implemented|Could not run|overrideable|not support|with Meta tensors/i;

function replace(native) {
  const own = { ...native };
  const plans = new Map();
  const known = new Map();
  const events = [];
  const sent = new Map();
  let capturing = false;

  const isMeta = (t) => own.device(t) === "meta";
  const place = (device) => (/^cuda(:0)?$/.test(device) ? "meta" : device);
  const waits = (what) => note(capturing ? "capture" : "wait", what);

  /** An operator for this file's own use. */
  function operator(name, overload = "") {
    const key = `${name}.${overload}`;
    if (!known.has(key)) known.set(key, own.operator(name, overload));
    return known.get(key);
  }
  const zeros = (t, device, dtype = own.dtype(t)) =>
    own.call(operator("aten::zeros"), own.shape(t), dtype, null, device);

  native.operator = (name, overload) => {
    const index = own.operator(name, overload);
    const text = own.schema(overload ? `${name}.${overload}` : name);
    const declarations = text.slice(text.indexOf("(") + 1, text.lastIndexOf(") ->")).split(/, (?![^(]*\))/);
    plans.set(index, { name, kinds: declarations.filter((declaration) => declaration !== "*").map(kindOf) });
    return index;
  };

  native.call = (index, ...given) => {
    const { name, kinds } = plans.get(index);
    const args = given.map((value, i) => (kinds[i] === "device" && typeof value === "string" ? place(value) : value));
    const tensors = args.flatMap((value, i) => {
      if (kinds[i] === "tensor" && typeof value === "number") return own.isValid(value) ? [value] : [];
      return kinds[i] === "tensors" && Array.isArray(value)
        ? value.filter((t) => typeof t === "number" && own.isValid(t))
        : [];
    });
    const there = tensors.map(isMeta);
    const onDevice = there.includes(true);
    if (name === "aten::pin_memory" || name === "aten::_pin_memory") return own.alias(args[0]);
    if (name === "aten::copy_") {
      if (there[0] && !there[1]) arrives(name, args[2] === true, tensors[1]);
      if (!there[0] && there[1]) {
        waits("copy_ to the host");
        own.call(operator("aten::zero_"), tensors[0]);
        return undefined;
      }
    } else if (name === "aten::_to_copy") {
      const goesThere = args[3] == null ? there[0] : args[3] === "meta";
      if (goesThere && !there[0]) {
        arrives(name, args[5] === true, tensors[0]);
        return remembered(tensors[0], own.call(index, ...args));
      }
      if (!goesThere && there[0]) {
        waits("a copy to the host");
        return zeros(tensors[0], "cpu", args[1] ?? own.dtype(tensors[0]));
      }
    } else if (onDevice && there.includes(false)) {
      const strangers = tensors.filter((t, i) => !there[i] && own.shape(t).length > 0);
      // Indices on the CPU are sent to the device; the rest is an error there.
      if (strangers.length > 0 && /^aten::index($|_)/.test(name)) arrives(`${name} with indices`, false, strangers[0]);
      else if (strangers.length > 0) {
        const shown = tensors.slice(0, 6).map((t, i) => `${there[i] ? "cuda" : "cpu"}[${own.shape(t)}]`);
        note("mix", `${name} ${shown.join(" ")}`);
      }
    }
    if (onDevice && LOOKS.test(name)) waits(name);
    if (name === "aten::layer_norm" && there[0]) return scaled(args);
    try {
      return own.call(index, ...args);
    } catch (error) {
      if (!onDevice || !NO_META_KERNEL.test(error.message)) throw error;
      note("missing", name);
      return onZeros(index, args, kinds);
    }
  };

  /** A tensor of the host's is copied to the device. */
  function arrives(name, queued, t) {
    if (capturing) note("capture", `${name} from the host`);
    else
      note(
        queued ? "queued" : "copy",
        `${name} of ${own.numel(t) < 65536 ? "less than 64 Ki" : "64 Ki and more"} values`,
      );
  }

  /** A few values that come back as they went, so that a process agrees with itself. */
  function remembered(source, there) {
    const width = WIDTHS[own.dtype(source)];
    if (own.numel(source) > 4 || own.dtype(source) !== own.dtype(there) || width === undefined) return there;
    const values = new Uint8Array(width * own.numel(source));
    own.copyToHost(source, values);
    sent.set(there, values);
    return there;
  }

  /** Layer norm has no meta kernel; the same shapes and gradients everywhere are enough. */
  function scaled([x, , weight, bias]) {
    const product = weight == null ? own.alias(x) : own.call(operator("aten::mul", "Tensor"), x, weight);
    return bias == null ? product : own.call(operator("aten::add", "Tensor"), product, bias);
  }

  /** Runs an operator on the CPU with zeros, for the shapes of what it gives. */
  function onZeros(index, args, kinds) {
    const made = [];
    const here = (t) => {
      if (typeof t !== "number" || !isMeta(t)) return t;
      made.push(zeros(t, "cpu"));
      return made.at(-1);
    };
    const placed = args.map((value, i) => {
      if (kinds[i] === "tensor") return here(value);
      if (kinds[i] === "tensors" && Array.isArray(value)) return value.map(here);
      return kinds[i] === "device" ? "cpu" : value;
    });
    const result = own.call(index, ...placed);
    for (const t of made) own.free(t);
    const back = (t) => (typeof t === "number" ? zeros(t, "meta") : t);
    return Array.isArray(result) ? result.map(back) : back(result);
  }

  // Through the operator, which autocast for CUDA does not see on meta tensors, and which tells of two devices.
  const linear = native.operator("aten::linear", "");
  native.linear = (x, weight, bias) => native.call(linear, x, weight, bias === 0 ? null : bias);
  const [layerNorm, cast] = [native.operator("aten::layer_norm", ""), native.operator("aten::to", "dtype")];
  native.layerNorm = (x, weight, bias, eps) => {
    const normed = native.call(layerNorm, x, own.shape(x).slice(-1), weight, bias, eps, true);
    return native.call(cast, normed, own.dtype(x), false, false, null);
  };
  const [transpose, flatten] = [
    native.operator("aten::transpose", "int"),
    native.operator("aten::flatten", "using_ints"),
  ];
  const attention = native.operator("aten::scaled_dot_product_attention", "");
  native.multiHeadAttention = (q, k, v, mask) => {
    const swapped = (t) => native.call(transpose, t, 1, 2);
    const found = native.call(attention, swapped(q), swapped(k), swapped(v), mask === 0 ? null : mask, 0, false, null);
    return native.call(flatten, swapped(found), 2, -1);
  };
  native.device = (t) => own.device(t).replace("meta", "cuda:0");
  native.item = (t) => {
    if (!isMeta(t)) return own.item(t);
    waits("item");
    return 1;
  };
  native.copyToHost = (t, target) => {
    if (!isMeta(t)) return own.copyToHost(t, target);
    waits("data");
    const bytes = new Uint8Array(target.buffer ?? target, target.byteOffset ?? 0, target.byteLength);
    if (sent.get(t)?.length === bytes.length) bytes.set(sent.get(t));
    else bytes.fill(0);
  };
  // What has no meta kernels: nothing is computed, and nothing waits.
  const own0d = (device) => own.call(operator("aten::zeros"), [], null, null, device);
  native.clipGradients = (parameters, ...rest) =>
    parameters.some(isMeta) ? own0d("meta") : own.clipGradients(parameters, ...rest);
  native.unscaleGradients = (parameters, ...rest) =>
    parameters.some(isMeta) ? undefined : own.unscaleGradients(parameters, ...rest);
  native.optimizerStep = (algorithm, settings, parameters, ...rest) =>
    parameters.some(isMeta) ? undefined : own.optimizerStep(algorithm, settings, parameters, ...rest);
  native.moveTowards = (targets, ...rest) => (targets.some(isMeta) ? undefined : own.moveTowards(targets, ...rest));
  native.pinned = (size) => own.fromHost(new Uint8Array(size), [size], UINT8);
  native.copyBeside = (t, device) => {
    if (place(device) === "meta") arrives("copyBeside", true, t);
    return zeros(t, place(device));
  };
  native.copyOut = (_sources, targets) => {
    note("queued", "copyOut");
    for (const t of targets) own.call(operator("aten::zero_"), t);
    events.push({ what: "a copy to the host", asked: 1 });
    return events.length - 1;
  };
  native.eventRecord = () => {
    events.push({ what: "an event", asked: 0 });
    return events.length - 1;
  };
  native.eventIsDone = (id) => {
    note("poll", events[id].what);
    return events[id].asked++ > 0;
  };
  native.eventWait = (id) => waits(events[id].what);
  for (const name of ["eventBefore", "eventFree"]) native[name] = () => undefined;
  native.graphPool = () => 0;
  native.generatorNew = (device) => own.generatorNew(place(device) === "meta" ? "cpu" : device);
  native.generatorDefault = native.generatorNew;
  native.cudaAvailable = () => true;
  native.cudaDeviceCount = () => 1;
  native.cudaDevices = () => ["No GPU", 80 * 2 ** 30, 9, 0];
  native.cudaSynchronize = (index = "of whichever is current") => waits(`synchronize ${index}`);
  native.cudaMemory = () => [1, 1, 1];
  // Of a process group this process is the only one that runs; the others add nothing.
  let ranks = 1;
  native.groupNew = async (_store, _backend, _rank, worldSize) => {
    ranks = worldSize;
    return 0;
  };
  native.groupAllReduce = async () => waits("an all-reduce");
  native.groupQueueAllReduce = () => note("queued", "an all-reduce");
  native.groupAllGather = async (_group, t) =>
    Array.from({ length: ranks }, () => {
      const same = own.alias(t);
      if (sent.has(t)) sent.set(same, sent.get(t));
      return same;
    });
  native.reducerNew = async () => 0;
  native.reducerForward = () => false;
  native.reducerStatistics = () => [0, 0, 0];
  for (const name of ["groupFree", "groupBarrier", "groupBroadcast"]) native[name] = async () => undefined;
  for (const name of ["groupCheck", "reducerBackward", "reducerFinalize", "reducerFree"])
    native[name] = () => undefined;
  native.graphNew = () => 0;
  native.graphBegin = () => {
    capturing = true;
  };
  native.graphEnd = () => {
    capturing = false;
  };
  for (const name of ["graphFree", "graphEnter", "graphLeave", "graphReplay"]) native[name] = () => undefined;
}
