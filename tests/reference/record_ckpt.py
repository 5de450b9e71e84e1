"""
Records training checkpoints in the layout of the published code (PyTorch Lightning's `.ckpt`) with the published network, optimiser and
schedule at a tiny size, and what they hold by name.

    python tests/reference/record_ckpt.py packages/miro/src/training/fixtures

  epoch=0-step=3.ckpt     three steps with random gradients: state_dict with two averages and an autoencoder, optimiser, schedule, loss scale
  compiled.ckpt           the same network under a compiled wrapper's names, with `output_scaling`, without optimiser
  ckpt.json               the network's arguments; of each trained parameter its value, moments and averages, as SHA-256 of the float32 bytes
"""
import argparse, collections, copy, hashlib, json, os

import torch

from make_reference import allow_missing_torchvision, parameter_groups

NETWORK = dict(data_size=4, num_input_channels=4, label_dim=6, num_cond_tokens=5, data_dim=8, num_latents=4, latents_dim=16,
               num_processing_layers=1, num_blocks=1, patch_size=2, read_write_heads=2, compute_heads=2, use_cond_rin_block=True,
               concat_cond_token_to_latents=False, use_self_conditioning=True, num_text_registers=2,
               coherence_keys=["clip_score", "sharpness"], coherence_dropout=0.0)
DECAYS = [0.9999, 0.999]
STEPS = 3


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder")
    folder = ap.parse_args().folder
    os.makedirs(folder, exist_ok=True)
    allow_missing_torchvision()
    from miro.models.networks.rin import CADRINTextCond
    from miro.models.preconditioning import FlowPrecond
    from miro.utils.lr_scheduler import WarmupCosineDecayLR
    from miro.utils.optimizers import Lamb

    torch.manual_seed(3407)
    net = CADRINTextCond(**NETWORK)
    pre = FlowPrecond(num_latents=NETWORK["num_latents"], latents_dim=NETWORK["latents_dim"], sigma_data=0.5)
    averages = {("ema_network" if i == 0 else "ema_network_" + str(d).replace(".", "_")): copy.deepcopy(net).requires_grad_(False) for i, d in enumerate(DECAYS)}

    groups = parameter_groups(net, pre, weight_decay=0.01)
    opt = Lamb(groups, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, eps=1e-8, decouple=False)
    sched = WarmupCosineDecayLR(opt, warmup_steps=5, total_steps=100, rate=0.8)
    trained = {f"network.{k}": p for k, p in net.named_parameters() if p.requires_grad}
    trained |= {f"preconditioning.{k}": p for k, p in pre.named_parameters() if p.requires_grad}
    for step in range(STEPS):
        for p in trained.values():
            p.grad = torch.randn_like(p)
        opt.step()
        sched.step(step + 1)
        for average, decay in zip(averages.values(), DECAYS):
            for k, p in net.named_parameters():
                if p.requires_grad:
                    average.get_parameter(k).lerp_(p.detach(), 1 - decay)

    state = collections.OrderedDict()
    state.update({f"network.{k}": v for k, v in net.state_dict().items()})
    state.update({"data_preprocessing.scale": torch.ones(1, 4, 1, 1), "data_preprocessing.bias": torch.zeros(1, 4, 1, 1)})
    state.update({f"preconditioning.{k}": v for k, v in pre.state_dict().items()})
    for name, average in averages.items():
        state.update({f"{name}.{k}": v for k, v in average.state_dict().items()})
    state.update({"postprocessing.scale": torch.ones(1, 4, 1, 1), "postprocessing.bias": torch.zeros(1, 4, 1, 1)})
    state.update({"postprocessing.vae.decoder.conv_in.weight": torch.randn(2, 4, 3, 3), "uncond_conditioning": torch.randn(1, 6)})
    torch.save({
        "epoch": 0, "global_step": STEPS, "pytorch-lightning_version": "2.6.0", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_loop.batch_progress": {"total": {"ready": STEPS, "completed": STEPS}}}},
        "callbacks": {"EMACallback": {}, "ModelCheckpoint{'monitor': None}": {"best_model_score": None, "best_k_models": {}}},
        "optimizer_states": [opt.state_dict()], "lr_schedulers": [sched.state_dict()],
        "MixedPrecision": {"scale": 4096.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 7},
    }, os.path.join(folder, f"epoch=0-step={STEPS}.ckpt"))

    compiled = collections.OrderedDict()
    for name, module in [("network", net)]:
        compiled.update({f"{name}._orig_mod.{k}": v for k, v in module.state_dict().items()})
        compiled[f"{name}._orig_mod.output_scaling"] = torch.ones(4)
    compiled.update({f"preconditioning.{k}": v for k, v in pre.state_dict().items()})
    torch.save({"epoch": 0, "global_step": STEPS, "state_dict": compiled}, os.path.join(folder, "compiled.ckpt"))

    text = lambda t: hashlib.sha256(t.detach().float().contiguous().numpy().tobytes()).hexdigest()
    described = {}
    for k, p in trained.items():
        s = opt.state[p]
        described[k] = {"value": text(p), "exp_avg": text(s["exp_avg"]), "exp_avg_sq": text(s["exp_avg_sq"]), "step": int(s["step"])}
        if k.startswith("network."):
            described[k] |= {name: text(average.get_parameter(k[len("network."):])) for name, average in averages.items()}
    with open(os.path.join(folder, "ckpt.json"), "w") as f:
        json.dump({"torch": torch.__version__, "network": NETWORK, "decays": DECAYS, "schedule": sched.state_dict(), "parameters": described}, f, indent=1)
        f.write("\n")


main()
