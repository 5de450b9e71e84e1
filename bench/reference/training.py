"""Seconds of some training steps of the published network, loss and optimiser in eager mode, by part; see bench/training.ts.

    training.py RECIPE_JSON STEPS

The recipe is that of `miro train`, with every value, as JSON. Self-conditioning's first pass, clipping and the loss scale are as in the published
training; the average is moved tensor by tensor with two operations, as there. Prints one line of JSON. One more step comes first, unmeasured.
"""
import copy
import importlib.metadata
import json
import platform
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "reference"))
from make_reference import allow_missing_torchvision, parameter_groups  # noqa: E402

allow_missing_torchvision()
from miro.models.loss import FlowMatchingLoss  # noqa: E402
from miro.models.networks.rin import CADRINTextCond  # noqa: E402
from miro.models.preconditioning import FlowPrecond  # noqa: E402
from miro.models.scheduler import LinearScheduler  # noqa: E402
from miro.utils.lr_scheduler import WarmupCosineDecayLR  # noqa: E402
from miro.utils.optimizers import Lamb  # noqa: E402

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def main():
    recipe, steps = json.loads(sys.argv[1]), int(sys.argv[2])
    args, trainer, optimizer, schedule = recipe["network"], recipe["trainer"], recipe["optimizer"], recipe["lr_scheduler"]
    device, B, dtype = trainer["device"], trainer["batch_size"], PRECISIONS[trainer["precision"]]
    torch.manual_seed(0)
    net = CADRINTextCond(**args).train().to(device)
    pre = FlowPrecond(**recipe["preconditioning"]).train().to(device)
    ema = copy.deepcopy(net).requires_grad_(False)
    loss = FlowMatchingLoss(LinearScheduler(start=1, end=0, clip_min=1e-9), torch.zeros(1, args["label_dim"], device=device), conditioning_key="text_tokens",
                            self_cond_rate=recipe["loss"]["self_cond_rate"], do_gradnorm_reweighting=True)
    groups = parameter_groups(net, pre, optimizer["weight_decay"])
    opt = Lamb(groups, lr=optimizer["lr"], betas=optimizer["betas"], eps=optimizer["eps"], decouple=False)
    sched = WarmupCosineDecayLR(opt, schedule["warmup_steps"], trainer["max_steps"], schedule["rate"])
    trained = [p for group in opt.param_groups for p in group["params"]]
    averages = [(p, average) for p, average in zip(net.parameters(), ema.parameters()) if p.requires_grad]
    decay = recipe["ema"]["decay"]
    scaler = torch.amp.GradScaler(device.split(":")[0], init_scale=trainer["loss_scale"]["init"], enabled=dtype == torch.float16)
    seconds = {part: [] for part in ("gradients", "clip", "optimizer", "ema")}

    def batch():
        made = {"x_0": 0.5 * torch.randn(B, args["num_input_channels"], args["data_size"], args["data_size"], device=device),
                "text_tokens_embeddings": torch.randn(B, recipe["data"]["text_len"], args["label_dim"], device=device),
                "text_tokens_mask": torch.ones(B, recipe["data"]["text_len"], dtype=torch.bool, device=device)}
        return made | {f"{key}_coherence": torch.rand(B, device=device) for key in args["coherence_keys"]}

    def now():
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    for step in range(steps + 1):
        given = batch()
        marks = [now()]
        with torch.autocast(device.split(":")[0], dtype=dtype, enabled=dtype != torch.float32):
            value = loss(pre, net, None, given, step)[0].mean()
        scaler.scale(value).backward()
        marks.append(now())
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(trained, trainer["gradient_clip_val"])
        marks.append(now())
        scaler.step(opt)
        scaler.update()
        sched.step(step + 1)
        opt.zero_grad()
        marks.append(now())
        with torch.no_grad():
            for p, average in averages:
                average.mul_(decay).add_(p, alpha=1 - decay)
        marks.append(now())
        if step > 0:
            for part, a, b in zip(seconds, marks, marks[1:]):
                seconds[part].append(b - a)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if device == "cpu" else torch.cuda.max_memory_allocated()
    print(json.dumps({
        "seconds": seconds,
        "peakBytes": peak,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "reference torch": torch.__version__, "reference miro-t2i": importlib.metadata.version("miro-t2i")},
    }))


main()
