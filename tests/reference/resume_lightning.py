"""
Resumes a checkpoint that `miro convert RUN --to ckpt` has written in PyTorch Lightning, with the published network, optimiser and schedule.

    python tests/reference/resume_lightning.py FOLDER [--steps 3]

FOLDER holds last.ckpt and config.json. The module has the attributes of the published training (network, one EMA copy for each decay,
preconditioning, data_preprocessing, postprocessing, uncond_conditioning) and, like it, loads checkpoints without an autoencoder.
`Trainer.fit(ckpt_path=…)` restores it; before the first step everything that was restored is compared with the file. Then it trains
some steps on random batches, stores a checkpoint of its own, and compares the names in it. Needs torch, pytorch_lightning and miro-t2i.
"""
import argparse, copy, json, logging, math, sys, types, warnings
from pathlib import Path

import torch

from make_reference import allow_missing_torchvision, parameter_groups

allow_missing_torchvision()
if not hasattr(sys.modules["torchvision"], "transforms"):  # torchmetrics, which Lightning loads, asks for parts of it by name
    for name in ("transforms", "models"):
        sys.modules[f"torchvision.{name}"] = types.ModuleType(f"torchvision.{name}")
        setattr(sys.modules["torchvision"], name, sys.modules[f"torchvision.{name}"])
    sys.modules["torchvision.models"].__getattr__ = lambda name: None

warnings.filterwarnings("ignore")
for name in ("pytorch_lightning", "lightning.pytorch"):
    logging.getLogger(name).setLevel(logging.ERROR)

try:
    import pytorch_lightning as lightning
except ImportError:
    import lightning.pytorch as lightning

BATCH, TEXT = 2, 3


class Affine(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))
        self.register_buffer("bias", torch.zeros(1, channels, 1, 1))


class Batches(torch.utils.data.IterableDataset):
    def __init__(self, network):
        self.network = network

    def __iter__(self):
        side, keys = self.network["data_size"], self.network["coherence_keys"]
        gen = torch.Generator().manual_seed(1)
        while True:
            batch = {"x_0": 0.5 * torch.randn(BATCH, self.network["num_input_channels"], side, side, generator=gen),
                     "text_tokens_embeddings": torch.randn(BATCH, TEXT, self.network["label_dim"], generator=gen),
                     "text_tokens_mask": torch.ones(BATCH, TEXT, dtype=torch.bool)}
            yield batch | {f"{key}_coherence": torch.rand(BATCH, generator=gen) for key in keys}


class Module(lightning.LightningModule):
    def __init__(self, config, stored):
        super().__init__()
        from miro.models.loss import FlowMatchingLoss
        from miro.models.networks.rin import CADRINTextCond
        from miro.models.preconditioning import FlowPrecond
        from miro.models.scheduler import LinearScheduler
        network, preconditioning = config["network"], dict(config["preconditioning"])
        self.stored = stored
        self.strict_loading = False  # the published code loads so, for the autoencoder
        self.network = CADRINTextCond(**network)
        self.preconditioning = FlowPrecond(**{"num_latents": network["num_latents"], "latents_dim": network["latents_dim"], **preconditioning})
        self.averages = sorted({key.split(".")[0] for key in stored["state_dict"] if key.startswith("ema_network")})
        for name in self.averages:
            setattr(self, name, copy.deepcopy(self.network).requires_grad_(False).eval())
        self.data_preprocessing = Affine(network["num_input_channels"])
        self.postprocessing = Affine(network["num_input_channels"])
        self.uncond_conditioning = torch.nn.Parameter(torch.zeros_like(stored["state_dict"]["uncond_conditioning"]), requires_grad=False)
        self.loss = FlowMatchingLoss(LinearScheduler(start=1, end=0, clip_min=1e-9), torch.zeros(1, network["label_dim"]),
                                     conditioning_key="text_tokens", self_cond_rate=0.9 if network["use_self_conditioning"] else 0.0)
        reweights = preconditioning["do_gradnorm_reweighting"]
        self.unused = set() if reweights else {key for key in stored["state_dict"] if key.startswith("preconditioning.")}
        self.loss.do_gradnorm_reweighting = reweights
        self.rates, self.losses = [], []

    def configure_optimizers(self):
        from miro.utils.lr_scheduler import WarmupCosineDecayLR
        from miro.utils.optimizers import Lamb
        # Everything but the parameter groups comes from the checkpoint.
        optimizer = Lamb(parameter_groups(self.network, self.preconditioning, 0.5), lr=0.5, betas=(0.5, 0.5), eps=1e-8, decouple=False)
        schedule = WarmupCosineDecayLR(optimizer, warmup_steps=1, total_steps=2, rate=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler, metric):
        scheduler.step(self.global_step)

    def on_train_start(self):
        stored, steps = self.stored, self.stored["global_step"]
        assert self.global_step == steps, (self.global_step, steps)
        own = self.state_dict()
        # Without reweighting the published preconditioning has no layers.
        assert set(stored["state_dict"]) - set(own) == self.unused, set(own) ^ set(stored["state_dict"])
        for key, value in own.items():
            assert torch.equal(value, stored["state_dict"][key]), key
        optimizer, wanted = self.optimizers().optimizer, stored["optimizer_states"][0]
        found = optimizer.state_dict()
        for group, other in zip(found["param_groups"], wanted["param_groups"], strict=True):
            for key, value in other.items():
                assert group[key] == value, key
        assert found["state"].keys() == wanted["state"].keys()
        for number, moments in wanted["state"].items():
            for key, value in moments.items():
                same = torch.equal(found["state"][number][key], value) if torch.is_tensor(value) else found["state"][number][key] == value
                assert same, (number, key)
        self.moments = len(wanted["state"])
        schedule = self.lr_schedulers().state_dict()
        for key, value in stored["lr_schedulers"][0].items():
            assert schedule[key] == value, (key, schedule[key], value)

    def training_step(self, batch, index):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        squared, _ = self.loss(self.preconditioning, self.network, None, batch, index)
        value = squared.mean()
        self.losses.append(value.item())
        return value

    def on_train_batch_end(self, *_):
        for name in self.averages:
            for p, average in zip(self.network.parameters(), getattr(self, name).parameters()):
                if p.requires_grad:
                    average.lerp_(p.detach(), 1e-3)


def rate_at(schedule, step):
    """The published schedule."""
    base, warmup, total, rate = schedule["base_lr"][0], schedule["warmup_steps"], schedule["total_steps"], schedule["rate"]
    if step < warmup:
        return base * step / warmup
    return base * 0.5 * (1 + math.cos(rate * math.pi * (step - warmup) / max(1, total - warmup)))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder", type=Path)
    ap.add_argument("--steps", type=int, default=3)
    args = ap.parse_args()
    path = args.folder / "last.ckpt"
    stored = torch.load(path, weights_only=True)
    module = Module(json.loads((args.folder / "config.json").read_text()), stored)
    begun = stored["global_step"]
    trainer = lightning.Trainer(max_steps=begun + args.steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=2.0)
    trainer.fit(module, torch.utils.data.DataLoader(Batches(module_config(args.folder)), batch_size=None), ckpt_path=str(path))
    assert trainer.global_step == begun + args.steps, trainer.global_step
    assert all(math.isfinite(loss) for loss in module.losses)
    wanted = [rate_at(stored["lr_schedulers"][0], begun + i) for i in range(args.steps)]
    assert all(math.isclose(rate, other, rel_tol=1e-9) for rate, other in zip(module.rates, wanted, strict=True)), (module.rates, wanted)
    own = args.folder / "resumed.ckpt"
    trainer.save_checkpoint(own)
    resumed = torch.load(own, weights_only=True)
    own.unlink()
    assert set(resumed["state_dict"]) == set(stored["state_dict"]) - module.unused
    moved = sum(not torch.equal(value, stored["state_dict"][key]) for key, value in resumed["state_dict"].items() if key.startswith("network."))
    assert moved > 0
    loops = [set(part["loops"]["fit_loop"]) for part in (stored, resumed)]
    print(json.dumps({"lightning": lightning.__version__, "torch": torch.__version__, "from": begun, "to": trainer.global_step,
                      "tensors": len(stored["state_dict"]), "moments": module.moments, "moved": moved, "rates": module.rates,
                      "losses": module.losses, "same loops": loops[0] == loops[1]}))


def module_config(folder):
    return json.loads((folder / "config.json").read_text())["network"]


main()
