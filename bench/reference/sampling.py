"""Seconds for each guided step of the published sampler, with random weights. Any DTYPE but float32 is by autocast.

    sampling.py NETWORK_JSON TEXT_TOKENS GUIDANCE [STEPS [DEVICE BATCH DTYPE]]

Prints one line of JSON. The first step is not counted.
"""
import importlib.metadata
import importlib.machinery
import json
import platform
import sys
import time
import types

import torch

try:
    import torchvision  # noqa: F401
except Exception:  # the package imports it for one centre-crop that is not reached here
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision"].__spec__ = importlib.machinery.ModuleSpec("torchvision", None)

from miro.models.networks.rin import CADRINTextCond
from miro.models.preconditioning import FlowPrecond
from miro.models.sampler import flow_euler_sampler
from miro.models.scheduler import LinearScheduler

def main():
    args = json.loads(sys.argv[1])
    tokens, guidance = int(sys.argv[2]), float(sys.argv[3])
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    device, batch, dtype = (sys.argv[5], int(sys.argv[6]), getattr(torch, sys.argv[7])) if len(sys.argv) > 7 else ("cpu", 1, torch.float32)
    torch.manual_seed(0)
    network = CADRINTextCond(**args).eval().to(device)
    precond = FlowPrecond(num_latents=args["num_latents"], latents_dim=args["latents_dim"]).eval().to(device)
    side, keys = args["data_size"], [f"{k}_coherence" for k in args["coherence_keys"]]
    uncond = torch.randn(1, 1, args["label_dim"], device=device).expand(batch, -1, -1)
    starts = []

    def mark():
        if device != "cpu":
            torch.cuda.synchronize()
        starts.append(time.perf_counter())

    def model(batch):
        mark()
        return precond(network, batch)

    def inputs():
        return {"y": torch.randn(batch, 4, side, side, device=device), "previous_latents": None,
                "text_tokens_embeddings": torch.randn(batch, tokens, args["label_dim"], device=device),
                "text_tokens_mask": torch.ones(batch, tokens, dtype=torch.bool, device=device)} | {k: torch.ones(batch, device=device) for k in keys}

    with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype=dtype if dtype != torch.float32 else torch.bfloat16, enabled=dtype != torch.float32):
        flow_euler_sampler(model, inputs(), num_steps=steps, scheduler=LinearScheduler(start=1, end=0, clip_min=1e-9),
                           conditioning_keys=["text_tokens"],
                           uncond_tokens={"text_tokens_embeddings": uncond, "text_tokens_mask": torch.ones(batch, 1, dtype=torch.bool, device=device)},
                           cfg_rate=guidance, coherence_keys=keys, coherence_values={k: 1.0 for k in keys},
                           uncoherence_values={k: 0.0 for k in keys}, sigma_data=0.5, data_mean=0.5, data_std=0.5)
        mark()

    print(json.dumps({
        "steps": [b - a for a, b in zip(starts[1:], starts[2:])],
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "versions": {"python": platform.python_version(), "reference torch": torch.__version__, "reference miro-t2i": importlib.metadata.version("miro-t2i")},
    }))

main()
