"""
Trains the published network with the published loss, optimiser and schedule for 200 steps, and records the curves.

    python tests/reference/record_training.py tests/reference/fixtures/training

The folder's recipe.yaml says how, and is the recipe of the same run of `miro train`; its paths are taken from the working directory.

  python/log.jsonl    a line a step under the names of `miro train`'s log: loss, raw loss, log-variance, gradient norm before clipping, learning rate
  final.safetensors   of each parameter, and of its average (`ema.`), FINAL_VALUES values at even distances after the last step

Everything random comes from generators whose seeds are mixed from the recipe's seed and the step, as packages/miro/src/training does it:
  batch of step k = 0, 1, …      seed(recipe seed, 1, k):     latents / 2, text states (normal), then one reward after the other (uniform)
  draws of update k = 1, 2, …    seed(recipe seed, 3, k):     those of the published loss in its order (time, what is kept of the first pass), but for
  noise of row i in update k     seed(recipe seed, 6, k, i)
Nothing of the published code is corrected. Its first update runs at the full learning rate, which the recipe asks `miro train` for too.
"""
import argparse, copy, json
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from make_reference import allow_missing_torchvision, parameter_groups, thinned

FINAL_VALUES = 32


def mix_seed(*parts):
    """splitmix64 over the parts, its highest 53 bits: `mixSeed` of packages/miro/src/training/batches/batches.ts."""
    mask, state = 2 ** 64 - 1, 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + part * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & mask
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
        state ^= state >> 31
    return state >> 11


def random_batch(recipe, step):
    """The batch that `data.kind: random` makes for a step."""
    network, B = recipe["network"], recipe["trainer"]["batch_size"]
    gen = torch.Generator().manual_seed(mix_seed(recipe["seed"], 1, step))
    side, length = network["data_size"], recipe["data"]["text_len"]
    batch = {"x_0": 0.5 * torch.randn(B, network["num_input_channels"], side, side, generator=gen),
             "text_tokens_embeddings": torch.randn(B, length, network["label_dim"], generator=gen),
             "text_tokens_mask": torch.ones(B, length, dtype=torch.bool)}
    return batch | {f"{key}_coherence": torch.rand(B, generator=gen) for key in network["coherence_keys"]}


@contextmanager
def noise_of_rows(seed, k):
    """Every `torch.randn` inside gives each row the noise of its own generator."""
    def randn(shape, **_):
        return torch.stack([original(shape[1:], generator=torch.Generator().manual_seed(mix_seed(seed, 6, k, i))) for i in range(shape[0])])
    original, torch.randn = torch.randn, randn
    try:
        yield
    finally:
        torch.randn = original


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder", type=Path)
    folder = ap.parse_args().folder
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    allow_missing_torchvision()
    from miro.models.loss import FlowMatchingLoss
    from miro.models.networks.rin import CADRINTextCond
    from miro.models.preconditioning import FlowPrecond
    from miro.models.scheduler import LinearScheduler
    from miro.utils.lr_scheduler import WarmupCosineDecayLR
    from miro.utils.optimizers import Lamb

    sizes, settings, optimizer = recipe["network"], recipe["trainer"], recipe["optimizer"]
    net = CADRINTextCond(**sizes).train()
    pre = FlowPrecond(num_latents=sizes["num_latents"], latents_dim=sizes["latents_dim"], **recipe["preconditioning"]).train()
    weights = load_file(Path(recipe["initialization"]["from"]) / "model.safetensors")
    for prefix, module in [("network.", net), ("preconditioning.", pre)]:
        module.load_state_dict({k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)})
    ema = copy.deepcopy(net).requires_grad_(False)

    loss = FlowMatchingLoss(LinearScheduler(**recipe["scheduler"]), torch.zeros(1, sizes["label_dim"]), conditioning_key="text_tokens",
                            do_gradnorm_reweighting=recipe["preconditioning"]["do_gradnorm_reweighting"], **recipe["loss"])
    groups = parameter_groups(net, pre, optimizer["weight_decay"])
    opt = Lamb(groups, lr=optimizer["lr"], betas=optimizer["betas"], eps=optimizer["eps"], decouple=False)
    schedule = recipe["lr_scheduler"]
    sched = WarmupCosineDecayLR(opt, warmup_steps=schedule["warmup_steps"], total_steps=settings["max_steps"], rate=schedule["rate"])
    trained = [p for group in opt.param_groups for p in group["params"]]

    lines = []
    for step in range(settings["max_steps"]):
        gen = torch.Generator().manual_seed(mix_seed(recipe["seed"], 3, step + 1))
        batch = random_batch(recipe, step)
        with noise_of_rows(recipe["seed"], step + 1):
            squared, terms = loss(pre, net, None, batch, step, generator=gen)
        value = squared.mean()
        opt.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, settings["gradient_clip_val"])
        rates = {f"lr-Lamb/pg{i + 1}": group["lr"] for i, group in enumerate(opt.param_groups)}
        opt.step()
        sched.step(step + 1)
        for p, average in zip(net.parameters(), ema.parameters()):
            if p.requires_grad:
                average.lerp_(p.detach(), 1 - recipe["ema"]["decay"])
        lines.append({"step": step + 1, "train/loss": value.item(), "train/raw_loss": terms["raw_loss"].item(), "train/logvar": terms["logvar"].item(),
                      "train/grad_norm": norm.item(), **rates})

    (folder / "python").mkdir(exist_ok=True)
    (folder / "python" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = [("network.", net), ("preconditioning.", pre), ("ema.", ema)]
    final = {prefix + k: p.detach() for prefix, module in named for k, p in module.named_parameters() if p.is_floating_point()}
    save_file({k: thinned(v, FINAL_VALUES).clone() for k, v in final.items()}, str(folder / "final.safetensors"))
    print(f"loss {lines[0]['train/loss']:.4f} to {lines[-1]['train/loss']:.4f}, raw loss {lines[0]['train/raw_loss']:.4f} to {lines[-1]['train/raw_loss']:.4f}")


main()
