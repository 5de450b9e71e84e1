#!/usr/bin/env python3
"""Records what the published code (PyPI `miro-t2i`) computes with unusual configurations, two release folders with
seeded random weights.

    python tests/reference/record_configurations.py tests/reference/fixtures/configurations

  <name>/config.json, model.safetensors (float16 parameters), uncond_embedding.npy: the release
  <name>/reference.safetensors:
      case.<i>.*         a batch and F, z of the network, D (and logvar) of the preconditioner
      grad.<parameter>   GRADIENT_VALUES values at even distances of d(mean F^2 + mean z^2) in training mode, batch of
                         case 0
      run.<i>            .noise and .latents of the pipeline
  <name>/reference.json: the pipeline's calls

Text encoder and autoencoder are those of fixtures/tiny. Set-up as of make_reference.py, which this imports.
"""

import argparse, json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from make_reference import allow_missing_torchvision, thinned

GRADIENT_VALUES = 32
TINY = Path(__file__).parent / "fixtures" / "tiny"
NAN, INF = float("nan"), float("inf")
COMMON = dict(
    num_input_channels=4,
    label_dim=48,
    data_dim=16,
    latents_dim=32,
    num_processing_layers=1,
    num_blocks=1,
    read_write_heads=2,
)
CONFIGURATIONS = {
    # Patches of one latent, rewards of other names, no log-variance, a shifted schedule with a floor, an unconditional
    # text of one dimension.
    "block": dict(
        network=COMMON
        | dict(
            data_size=3,
            patch_size=1,
            num_cond_tokens=7,
            num_latents=3,
            compute_heads=4,
            latent_mlp_multiplier=2,
            data_mlp_multiplier=5,
            num_text_registers=5,
            use_cond_rin_block=True,
            concat_cond_token_to_latents=False,
            use_self_conditioning=True,
            coherence_keys=["brightness", "a-b"],
        ),
        preconditioning=dict(sigma_data=1.2, do_gradnorm_reweighting=False),
        scheduler=dict(start=1, end=0, shift=2.0, clip_min=1e-3),
        max_text_len=7,
        unconditional=(48,),
    ),
    # Conditioning among the latents, large patches, no registers, a deep log-variance, no scaling, a shift that the
    # published schedule leaves out, an unconditional text longer than prompts can be, which lengthens them all (padding
    # is attended here), guided or not.
    "concat": dict(
        network=COMMON
        | dict(
            data_size=6,
            patch_size=3,
            num_cond_tokens=5,
            num_latents=9,
            compute_heads=1,
            num_text_registers=0,
            coherence_keys=["vqa_score"],
        ),
        preconditioning=dict(do_normalization="none", logvar_channels=8, logvar_mlp_layers=2),
        scheduler=dict(start=1, end=0, shift=0.5),
        max_text_len=5,
        unconditional=(7, 48),
    ),
}
RUNS = [
    dict(prompts=[""], num_inference_steps=1, guidance_scale=1.0),
    dict(
        prompts=["a cat", "x" * 90],
        num_inference_steps=3,
        guidance_scale=0.5,
        num_images_per_prompt=2,
        reward_targets=0.3,
        negative_reward_targets=-0.5,
    ),
    dict(
        prompts=["  A red cube \n", "a cat", "two dogs on a sofa"],
        num_inference_steps=2,
        guidance_scale=-2.0,
        reward_targets=1.5,
    ),
    dict(
        prompts=["a cat"],
        num_inference_steps=2,
        guidance_scale=3.0,
        reward_targets=NAN,
        negative_reward_targets=NAN,
    ),
]


def batch(case, c, gen):
    n, B = c["network"], 2
    length = [c["max_text_len"], 1, 9, 4, 3][case]
    real = [[length, length], [1, 0], [2, 9], [0, 0], [3, 2]][case]
    b = {
        "y": torch.randn(B, 4, n["data_size"], n["data_size"], generator=gen),
        "gamma": torch.tensor([[1e-9, 1.0], [0.5, 0.1], [0.25, 0.9], [0.7, 0.7], [0.3, 0.6]][case]),
        "text_tokens_embeddings": torch.randn(B, length, 48, generator=gen),
        "text_tokens_mask": torch.arange(length)[None] < torch.tensor(real)[:, None],
        "previous_latents": torch.randn(B, n["num_latents"], n["latents_dim"], generator=gen)
        if case != 1
        else torch.zeros(B, n["num_latents"], n["latents_dim"]),
    }
    if case == 2:
        b["text_tokens_mask"][1, 3] = False  # a hole
    if case == 4:
        del b["previous_latents"]  # nothing for the network, zeros for the preconditioning
    if case != 3:  # there, no reward is known
        values = [[0.2, 0.8], [NAN, 0.4], [-1.5, INF], None, [0.5, 1.0]][case]
        b |= {
            f"{key}_coherence": torch.tensor(values[::-1] if i else values) for i, key in enumerate(n["coherence_keys"])
        }
    return b


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder", type=Path)
    folder = ap.parse_args().folder
    from diffusers import AutoencoderKL
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

    tok = PreTrainedTokenizerFast(
        tokenizer_file=str(TINY / "text_encoder" / "tokenizer.json"),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    encoder = T5EncoderModel.from_pretrained(str(TINY / "text_encoder")).eval()
    vae = AutoencoderKL.from_pretrained(str(TINY / "vae")).eval()
    allow_missing_torchvision()
    import miro.pipeline as mp
    from miro.models.networks.rin import CADRINTextCond
    from miro.models.postprocessing import VAEDecoderPostProcessing
    from miro.models.preconditioning import FlowPrecond
    from miro.models.preprocessing import PrecomputedSDLatentPreconditioning
    from miro.models.scheduler import LinearScheduler

    sampler = mp.flow_euler_sampler
    for seed, (name, c) in enumerate(CONFIGURATIONS.items()):
        out, gen = folder / name, torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        out.mkdir(parents=True, exist_ok=True)
        n, sizes = c["network"], dict(num_latents=c["network"]["num_latents"], latents_dim=c["network"]["latents_dim"])
        net, pre = CADRINTextCond(**n).eval(), FlowPrecond(**sizes, **c["preconditioning"]).eval()
        normal = dict(channel_wise_normalisation=True)
        parts = dict(
            data_preprocessing=PrecomputedSDLatentPreconditioning(**normal),
            postprocessing=VAEDecoderPostProcessing(vae=vae, **normal),
        )
        with torch.no_grad():
            for k, p in [*net.named_parameters(), *pre.named_parameters()]:
                if not p.is_floating_point() or p.numel() == 0:
                    continue
                noise = torch.randn(p.shape, generator=gen)
                p.copy_(
                    (
                        noise * 0.7 / p[0].numel() ** 0.5
                        if p.dim() > 1
                        else 1 + 0.2 * noise
                        if k.endswith("weight")
                        else 0.2 * noise
                    )
                    .half()
                    .float()
                )
        config = dict(
            network=n,
            preconditioning=sizes | c["preconditioning"],
            data_preprocessing=normal,
            postprocessing=normal,
            scheduler=c["scheduler"],
            coherence_keys=n["coherence_keys"],
            data_resolution=n["data_size"],
            max_text_len=c["max_text_len"],
        )
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        trained = {id(p) for m in (net, pre) for p in m.parameters() if p.is_floating_point()}
        state = {
            f"{prefix}.{k}": v.detach().half() if id(v) in trained else v.detach()
            for prefix, m in (("network", net), ("preconditioning", pre))
            for k, v in m.state_dict(keep_vars=True).items()
        }
        state |= {f"{prefix}.{k}": m.state_dict()[k] for prefix, m in parts.items() for k in ("scale", "bias")}
        save_file({k: v.contiguous().clone() for k, v in state.items()}, str(out / "model.safetensors"))
        uncond = 0.5 * torch.randn(c["unconditional"], generator=gen)
        np.save(out / "uncond_embedding.npy", uncond.numpy())

        rec = {}
        for case in range(5):
            b = batch(case, c, gen)
            if n.get("concat_cond_token_to_latents", True):
                b.pop("previous_latents", None)
            with torch.no_grad():
                F, z = net(dict(b))
                D, _, *logvar = pre(net, dict(b), return_logvar=pre.do_gradnorm_reweighting)
            rec |= {f"case.{case}.{k}": v for k, v in (b | dict(F=F, z=z, D=D)).items()} | {
                f"case.{case}.logvar": v for v in logvar
            }
            if case == 0:
                F, z = net.train()(dict(b))
                ((F**2).mean() + (z**2).mean()).backward()
                rec |= {
                    f"grad.{k}": thinned(p.grad, GRADIENT_VALUES)
                    for k, p in net.named_parameters()
                    if p.grad is not None and p.numel()
                }
                net.eval().zero_grad()
        pipe = mp.MiroPipeline(
            network=net,
            preconditioning=pre,
            scheduler=LinearScheduler(**c["scheduler"]),
            uncond_embedding=uncond,
            config=config,
            text_encoder=encoder,
            tokenizer=tok,
            **parts,
        )
        runs = []
        for i, run in enumerate(RUNS):
            kept, last = {}, n["coherence_keys"][-1]
            run = {k: {last: v} if "targets" in k else v for k, v in run.items()}

            def capture(*args, **kw):
                kept["noise"] = args[1]["y"].clone()
                kept["latents"] = sampler(*args, **kw)
                return kept["latents"]

            mp.flow_euler_sampler = capture
            pipe(
                run["prompts"],
                generator=torch.Generator().manual_seed(i),
                output_type="numpy",
                **{k: v for k, v in run.items() if k != "prompts"},
            )
            rec |= {f"run.{i}.{k}": v for k, v in kept.items()}
            runs.append({k: {last: None} if "targets" in k and v[last] != v[last] else v for k, v in run.items()})
        save_file({k: v.detach().contiguous().clone() for k, v in rec.items()}, str(out / "reference.safetensors"))
        (out / "reference.json").write_text(json.dumps(dict(runs=runs), indent=2) + "\n")
        print(f"{out}: {len(rec)} tensors")


main()
