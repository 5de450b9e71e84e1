"""
Records small checkpoint files of `torch.save` and what they hold, for the reader of packages/torch/src/io/torch-checkpoint.ts.

    python tests/reference/record_checkpoints.py packages/torch/src/io/fixtures

  values.pt     every dtype; views with offsets, strides, shared storages, repeated values; parameters; plain values of every kind
  plain.pt      the same in the layout before torch 1.6
  objects.pt    a training checkpoint with objects of other classes below hyper_parameters, callbacks and optimizer_states
  evil.pt       a state dict with an object that runs a command when Python loads it
  script.pt     a TorchScript archive
  values.json   dtype, shape and bytes (base64, C order) of each tensor in values.pt and plain.pt
"""
import argparse, base64, collections, json, os, sys, types

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
    torch.save({"state_dict": collections.OrderedDict(weight=torch.ones(2), other=Command())}, path("evil.pt"))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path("script.pt"))

    def describe(t):
        t = t.detach().contiguous()
        raw = t.view(torch.uint8) if t.ndim > 0 else t.reshape(1).view(torch.uint8)
        return {"dtype": str(t.dtype)[6:], "shape": list(t.shape), "base64": base64.b64encode(raw.numpy().tobytes()).decode()}

    with open(path("values.json"), "w") as f:
        json.dump({"torch": torch.__version__, "tensors": {k: describe(v) for k, v in state.items()}}, f, indent=1)
        f.write("\n")


main()
