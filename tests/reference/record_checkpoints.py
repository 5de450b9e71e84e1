"""
Records small checkpoint files of `torch.save` and what they hold, for the reader of packages/torch/src/io/torch-checkpoint.ts.

    python tests/reference/record_checkpoints.py packages/torch/src/io/fixtures

  values.pt     every dtype; views with offsets, strides, shared storages, repeated values; parameters; plain values of every kind
  plain.pt      the same in the layout before torch 1.6
  objects.pt    a training checkpoint with objects of other classes below hyper_parameters, callbacks and optimizer_states
  odd-N.pt      pickle protocol N = 2, 4, 5: objects of any class beside a state dict of tensors that are put together in rare ways
  odd-plain.pt  the same in the layout before torch 1.6
  adamw.ckpt    two steps of AdamW, whose steps are tensors, with NumPy's numbers and an object beside it
  evil.pt       a state dict with an object that runs a command when Python loads it
  script.pt     a TorchScript archive
  values.json   dtype, shape and bytes (base64, C order) of each tensor in values.pt and plain.pt; of those in odd-*.pt under "odd"
"""
import argparse, base64, collections, datetime, decimal, fractions, json, os, pathlib, sys, types, uuid

import numpy as np
import torch


def state_dict():
    g = torch.Generator().manual_seed(3407)
    base = torch.randn(5, 7, generator=g)
    shared = torch.arange(24, dtype=torch.float32)
    out = collections.OrderedDict()
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        out[f"float.{dtype}"[6:]] = torch.randn(3, 4, generator=g).to(dtype)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        out[str(dtype)] = torch.randint(0, 100, (2, 3), generator=g).to(dtype)
    out["bool"] = torch.tensor([True, False, True])
    out["transposed"] = base.t()
    out["slice"] = base[1:4, 2:5]
    out["every.second"] = shared[1::2]
    out["shared.whole"] = shared.view(4, 6)
    out["shared.part"] = shared[8:]
    out["permuted"] = torch.randn(2, 3, 4, generator=g).permute(2, 0, 1)
    out["repeated"] = torch.tensor([1.5, -2.0]).expand(3, 2)
    out["scalar"] = torch.tensor(2.5)
    out["empty"] = torch.zeros(0, 4)
    out["parameter"] = torch.nn.Parameter(torch.randn(4, generator=g))
    out["frozen"] = torch.nn.Parameter(torch.tensor([True, False]), requires_grad=False)
    out["uint16"] = torch.tensor([1, 60000], dtype=torch.uint16)
    out._metadata = collections.OrderedDict([("", {"version": 1})])
    return out


class Command:
    def __reduce__(self):
        return (os.system, ("echo this ran",))


class Config(dict):
    """As OmegaConf's: a dictionary with a state, whose parts know their parent."""

    def __init__(self, parent, **items):
        super().__init__(**items)
        self.__dict__["_parent"] = parent


class Named:
    """Made with keyword arguments."""

    def __new__(cls, *, value):
        self = super().__new__(cls)
        self.value = value
        return self

    def __getnewargs_ex__(self):
        return (), {"value": self.value}


class Tagged(torch.Tensor):
    pass


def odd(plain):
    """(tensors, what stands beside them)"""
    g = torch.Generator().manual_seed(7)
    rand = lambda *shape: torch.randn(*shape, generator=g)
    attributed, parameter = rand(3), torch.nn.Parameter(rand(2))
    attributed.note, parameter.note = "an attribute", "another"
    whole = rand(10)
    tensors = {
        "negative": torch.complex(rand(4), rand(4)).conj().imag,
        "negative.strided": torch.complex(rand(3, 4), rand(3, 4)).conj().imag.t()[1:, ::2],
        "attributed": attributed,
        "parameter": parameter,
        "buffer": torch.nn.Buffer(rand(2)),
        "trained": rand(2).requires_grad_(),
        "shared.first": whole[:5],
        "shared.second": whole[5:],
        "shared.whole": whole,
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3.0),
        "expanded": torch.ones(1).expand(3),
    }
    if not plain:
        tensors["float8"] = rand(2).to(torch.float8_e4m3fn)
    among = {
        "tagged": rand(2).as_subclass(Tagged), "sparse": torch.eye(2).to_sparse(), "none": None, "number": 100,
        "quantized": torch.quantize_per_tensor(rand(2), 0.1, 0, torch.qint8), "meta": torch.empty(2, device="meta"),
        "conjugate": torch.complex(rand(2), rand(2)).conj(),
    }
    parent = Config(None, a=1)
    parent["child"] = Config(parent, b=2)
    loop = []
    loop.append((loop, {"loop": loop}))
    tuple_loop = ([],)
    tuple_loop[0].append(tuple_loop)
    deep = []
    for _ in range(300):
        deep = [deep]
    beside = {
        "global_step": np.int64(5), "best_loss": np.float64(0.5), "float32": np.float32(1.5), "bool": np.bool_(True),
        "uint8": np.uint8(200), "int16": np.int16(-2), "big_endian": np.dtype(">i4").type(70000).astype(">i4"),
        "float16": np.float16(1.0), "datetime64": np.datetime64("2024-01-01"), "array": np.arange(200.0),
        "objects": np.array([{}, None], dtype=object), "config": parent, "named": Named(value=1),
        "path": pathlib.PosixPath("/x/y"), "set": {"a"}, "frozenset": frozenset([1, 2]), "bytes": b"ab\xff", "no_bytes": b"",
        "many_bytes": b"x" * 2000, "bytearray": bytearray(b"abc"), "complex": 1 + 2j, "range": range(3), "slice": slice(1, 2),
        "date": datetime.datetime(2024, 1, 2), "delta": datetime.timedelta(1), "decimal": decimal.Decimal("1.5"),
        "fraction": fractions.Fraction(1, 3), "uuid": uuid.UUID(int=1), "defaultdict": collections.defaultdict(int, a=1),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]), "counter": collections.Counter("aab"),
        "deque": collections.deque([1, 2], maxlen=3), "namespace": argparse.Namespace(lr=1), "class": argparse.Namespace,
        "function": os.path.join, "builtin": len, "device": torch.device("cuda:0"), "rng_state": torch.zeros(3, dtype=torch.uint8),
        "loop": loop, "tuple_loop": tuple_loop, "deep": deep, "huge": 1 << 5000,
        "surrogate": "caf\udce9", "module": torch.nn.Linear(1, 1), "ellipsis": ..., "not_implemented": NotImplemented,
        "exception": ValueError("x"), "storage": rand(2).untyped_storage(), "dtype": torch.float8_e5m2,
        "layout": torch.strided, "generic": list[int], "type": int,
    }
    return tensors, among, beside


def record_odd(path, describe):
    # The classes above must be importable by a name of their own.
    sys.modules["somebody"] = types.ModuleType("somebody")
    for cls in (Config, Named, Tagged):
        cls.__module__ = "somebody"
        setattr(sys.modules["somebody"], cls.__name__, cls)
    for name, protocol in (("2", 2), ("4", 4), ("5", 5), ("plain", 2)):
        tensors, among, beside = odd(name == "plain")
        if name == "plain":
            del beside["storage"], among["meta"]
        torch.save({"state_dict": {**tensors, **among}, **beside}, path(f"odd-{name}.pt"), pickle_protocol=protocol,
                   _use_new_zipfile_serialization=name != "plain")
    tensors, _, _ = odd(False)
    return {key: describe(tensor) for key, tensor in tensors.items()}


def main():
    folder = argparse.ArgumentParser()
    folder.add_argument("folder")
    folder = folder.parse_args().folder
    os.makedirs(folder, exist_ok=True)
    path = lambda name: os.path.join(folder, name)

    state = state_dict()
    plain = {
        "none": None, "yes": True, "no": False, "small": 7, "negative": -3, "wide": 1 << 20, "long": 1 << 40, "huge": -(1 << 90),
        "float": 0.1, "text": "naïve \u2603", "list": [1, [2, "three"]], "tuple": (1,), "tuples": ((1, 2), (1, 2, 3, 4), ()),
        "size": torch.Size([3, 4]), "dtype": torch.bfloat16, "numbers": {1: "one", 2: "two"},
    }
    everything = {"epoch": 3, "state_dict": state, "plain": plain}
    torch.save(everything, path("values.pt"))
    torch.save({**everything, "state_dict": collections.OrderedDict((k, v) for k, v in state.items() if k != "uint16")},
               path("plain.pt"), _use_new_zipfile_serialization=False)
    torch.save({
        "state_dict": collections.OrderedDict(weight=torch.ones(2)),
        "hyper_parameters": argparse.Namespace(lr=1e-3, nested=collections.Counter("abc")),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0), "path": types.SimpleNamespace(a=1)}},
        "optimizer_states": [{"state": collections.defaultdict(dict, {0: {"step": 3, "exp_avg": torch.ones(2)}}), "note": np.float64(1)}],
    }, path("objects.pt"))
    linear = torch.nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        linear.bias.copy_(torch.tensor([0.5, 0.25]))
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        linear(torch.tensor([[1.0, -1.0]])).sum().backward()
        optimizer.step()
    torch.save({
        "state_dict": {**{f"network.{k}": v for k, v in linear.state_dict().items()}, "network.extra": datetime.date(2024, 1, 2)},
        "optimizer_states": [optimizer.state_dict()], "global_step": np.int64(2), "best": np.float64(0.5), "cfg": argparse.Namespace(a=1),
    }, path("adamw.ckpt"))
    torch.save({"state_dict": collections.OrderedDict(weight=torch.ones(2), other=Command())}, path("evil.pt"))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path("script.pt"))

    def describe(t):
        t = t.detach().resolve_neg().contiguous()
        raw = t.view(torch.uint8) if t.ndim > 0 else t.reshape(1).view(torch.uint8)
        return {"dtype": str(t.dtype)[6:], "shape": list(t.shape), "base64": base64.b64encode(raw.numpy().tobytes()).decode()}

    with open(path("values.json"), "w") as f:
        json.dump({"torch": torch.__version__, "tensors": {k: describe(v) for k, v in state.items()},
                   "odd": record_odd(path, describe)}, f, indent=1)
        f.write("\n")


main()
