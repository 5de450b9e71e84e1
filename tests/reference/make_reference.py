#!/usr/bin/env python3
"""Run the published Python implementation (PyPI `miro-t2i`) on seeded random weights and record what it produces.

One call writes a folder that another implementation can load and must agree with:

  checkpoint/        config.json, model.safetensors, uncond_embedding.npy   (upstream release layout)
  text_encoder/      a T5 encoder in Hugging Face layout, with its tokenizer (Unigram + the nmt_nfkc character map)
  vae/               an AutoencoderKL in diffusers layout
  reference.safetensors   every input and every output, see below
  reference.json     prompts, token ids, options, versions

reference.safetensors holds, all float32 unless said:
  text.ids (int64) text.mask (bool) text.embeddings            tokenizer and encoder
  net.<case>.y/gamma/embeddings/mask/previous/reward.<key> -> net.<case>.F, net.<case>.z     one network forward per case
  net.grad.<parameter>                                         gradients of mean(F^2)+mean(z^2) for case `grad`
  precond.D, precond.z, precond.logvar                         FlowPrecond around the network on the batch of case `plain` (y is the noisy latent before scaling)
  variant.<name>.*                                             the other constructor variants; weights and constructor arguments in variants/<name>/
  sample.noise -> sample.latents -> sample.images (uint8)      the whole pipeline, per guidance setting
  vae.decode.in -> vae.decode.out, vae.encode.in -> vae.encode.mean/std
  train.<step>.*                                               five training steps: batch, every random draw, loss; LAMB, warm-up cosine, clipping (at 0.5, so that it acts);
                                                               train.final.<parameter> and train.ema.<parameter> afterwards
  train_reweighted.*                                           the same with log-variance reweighting of the loss

Every gradient of a `k_norm.bias` (and of the key third of a `qkv.bias`) is exactly zero in theory, because softmax ignores a constant: what is recorded there is rounding noise, which Adam turns into real updates. Leave them out of comparisons.

Set-up (CPU): pip install torch==2.13.0 numpy diffusers transformers sentencepiece protobuf einops omegaconf pyyaml pillow safetensors
              pip install --no-deps miro-t2i==0.1.4
Use:          make_reference.py OUT [--size tiny|small|full] [--seed N] [--steps N] [--compact]

--compact makes a recording small enough to commit. A variant takes the checkpoint's weights wherever name and shape agree and stores only the others;
of every gradient and trained weight, COMPACT_VALUES values are kept at even distances (flattened, every ceil(n / COMPACT_VALUES)-th); the tokenizer is kept as tokenizer.json alone.
"""
import argparse, copy, importlib.machinery, importlib.metadata, io, json, sys, types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

COMPACT_VALUES = 128
REWARDS = ["clip_score", "aesthetic_score", "image_reward_score", "pick_a_score_score", "hpsv2_score", "vqa_score", "sciscore_score"]
SIZES = {
    # latent side, data width, latents, latent width, heads (read/write, compute), layers, blocks, text width, rewards
    "tiny": dict(res=8, data=32, n=8, width=64, rw=2, comp=4, layers=1, blocks=2, label=48, t5=(48, 2, 3, 16, 96), vae=(16, 32), keys=REWARDS[:3], text_len=40),
    "small": dict(res=16, data=64, n=32, width=128, rw=4, comp=8, layers=2, blocks=2, label=96, t5=(96, 3, 4, 24, 192), vae=(16, 32, 32, 32), keys=REWARDS, text_len=24),
    "full": dict(res=32, data=512, n=256, width=1024, rw=16, comp=32, layers=4, blocks=4, label=2048, t5=(2048, 2, 32, 64, 5120), vae=(128, 256, 512, 512), keys=REWARDS, text_len=77),
}
PROMPTS = [
    "A red cube to the left of a blue sphere, studio photograph.",
    "Café naïve — “ﬁve” ½-price ＡＢＣ umbrellas…",
    "an oil painting of a fox wearing a green scarf in the snow",
    "a cat",
]
CORPUS = PROMPTS + [
    "a photo of a cat", "two dogs on a sofa", "the quick brown fox jumps over the lazy dog", "three yellow birds above a tree",
    "a watercolor landscape with mountains and a river at dawn", "portrait of an old man with a long white beard",
    "an astronaut riding a horse on mars", "a bowl of fruit on a wooden table", "neon city street at night in the rain",
]


def thinned(v, count):
    """At most `count` values of a tensor at even distances; a smaller tensor as it is."""
    return v.flatten()[::-(-v.numel() // count)] if v.numel() > count else v


def compacted(rec):
    """The recording with the tensors that are as large as the network thinned out."""
    prefixes = ("net.grad.", "train.final.", "train.ema.", "train_reweighted.final.", "train_reweighted.ema.")
    inputs = tuple(f"net.grad.{k}" for k in ("y", "gamma", "embeddings", "mask", "previous", "reward.", "F", "z"))

    return {k: thinned(v, COMPACT_VALUES) if k.startswith(prefixes) and not k.startswith(inputs) else v for k, v in rec.items()}


def allow_missing_torchvision():
    """The released package imports torchvision for one centre-crop that no path here reaches; there is no CPU build of it to install.
    Call after transformers and diffusers are loaded: they look for it on their own."""
    try:
        import torchvision  # noqa: F401
    except Exception:
        stub = types.ModuleType("torchvision")
        stub.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
        sys.modules["torchvision"] = stub


def parameter_groups(net, pre, weight_decay):
    """The optimiser's groups of the published configuration: norms, embeddings and biases of the network in the second one."""
    from miro.models.networks.rin import RMSNorm
    plain = {f"{m}.{p}" if m else p for m, module in net.named_modules() if isinstance(module, (torch.nn.LayerNorm, torch.nn.Embedding, RMSNorm))
             for p, _ in module.named_parameters(recurse=False)}
    plain |= {k for k, _ in net.named_parameters() if "bias" in k}
    return [{"params": [p for k, p in net.named_parameters() if k not in plain] + list(pre.parameters()), "weight_decay": weight_decay, "layer_adaptation": True},
            {"params": [p for k, p in net.named_parameters() if k in plain], "weight_decay": 0.0, "layer_adaptation": False}]


def build_tokenizer(out: Path):
    import sentencepiece as spm
    from transformers import T5TokenizerFast
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 8), model_writer=model, vocab_size=180, model_type="unigram",
                                   pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2)
    out.mkdir(parents=True, exist_ok=True)
    (out / "spiece.model").write_bytes(model.getvalue())
    tok = T5TokenizerFast.from_pretrained(str(out), extra_ids=0)
    tok.save_pretrained(str(out))
    return tok


def randomize(module, gen, scale=0.5):
    """Replace constant initial values (zeros, ones) too, so that no term of the network is silently inactive."""
    with torch.no_grad():
        for name, p in list(module.named_parameters()) + list(module.named_buffers()):
            if not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=gen)
            if name.endswith(("freqs", "phases")):
                continue
            if p.dim() >= 2:
                fan_in = p[0].numel()
                p.copy_(noise * (scale / fan_in ** 0.5 if p.dim() != 2 or p.shape[0] > 1 else 1))
                if "pos_embedding" in name or "registers" in name or name.endswith("latents"):
                    p.copy_(noise * 0.5)
            elif name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(0.1 * noise)


def record_training(rec, info, s, net, pre, emb, mask, uncond, gen, prefix="train", reweight=False, steps=5):
    """Five optimiser steps of the published loss, LAMB and schedule, with every random draw kept."""
    net, pre, B = copy.deepcopy(net), copy.deepcopy(pre), min(4, len(emb))
    from miro.models.loss import FlowMatchingLoss
    from miro.models.scheduler import LinearScheduler
    from miro.utils.lr_scheduler import WarmupCosineDecayLR
    from miro.utils.optimizers import Lamb
    net.train(), pre.train()
    loss_fn = FlowMatchingLoss(LinearScheduler(start=1, end=0, clip_min=1e-9), torch.from_numpy(uncond), conditioning_key="text_tokens",
                               self_cond_rate=0.9, cond_drop_rate=0.3, do_gradnorm_reweighting=reweight)
    no_decay = [k for k, p in net.named_parameters() if p.requires_grad and p.dim() < 2]
    named = {k: p for k, p in net.named_parameters() if p.requires_grad}
    if reweight:
        named |= {f"preconditioning.{k}": p for k, p in pre.named_parameters() if p.requires_grad}
    opt = Lamb([{"params": [p for k, p in named.items() if k not in no_decay], "weight_decay": 0.01, "layer_adaptation": True},
                {"params": [named[k] for k in no_decay], "weight_decay": 0.0, "layer_adaptation": False}],
               lr=1e-2, betas=(0.9, 0.999), eps=1e-8, decouple=False)
    sched = WarmupCosineDecayLR(opt, warmup_steps=3, total_steps=20)
    ema = {k: p.detach().clone() for k, p in named.items()}
    sched.step(1)
    for step in range(steps):
        b = {"x_0": 0.5 * torch.randn(B, 4, s["res"], s["res"], generator=gen), "text_tokens_embeddings": emb[:B].clone(), "text_tokens_mask": mask[:B].clone()}
        for k in s["keys"]:
            b[f"{k}_coherence"] = torch.rand(B, generator=gen)
        rec.update({f"{prefix}.{step}.in.{k}": v.clone() for k, v in b.items()})
        draws, counts = {}, {}

        def spy(name, fn):
            def wrapped(*args, **kw):
                out = fn(*args, **kw)
                i = counts[name] = counts.get(name, -1) + 1
                draws[f"{name}{i}"] = out.clone()
                return out
            return wrapped
        saved = torch.rand, torch.randn, torch.normal
        torch.rand, torch.randn, torch.normal = spy("rand", saved[0]), spy("randn", saved[1]), spy("normal", saved[2])
        try:
            losses, _ = loss_fn(pre, net, None, b, step, generator=gen)
        finally:
            torch.rand, torch.randn, torch.normal = saved
        rec.update({f"{prefix}.{step}.draw.{k}": v for k, v in draws.items()})
        loss = losses.mean()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(named.values()), 0.5)
        rec |= {f"{prefix}.{step}.loss": loss.detach().reshape(1), f"{prefix}.{step}.grad_norm": norm.detach().reshape(1),
                f"{prefix}.{step}.lr": torch.tensor([g["lr"] for g in opt.param_groups])}
        opt.step()
        sched.step(step + 2)
        for k, p in named.items():
            ema[k].lerp_(p.detach(), 0.1)
    rec |= {f"{prefix}.final.{k}": p.detach() for k, p in named.items()}
    rec |= {f"{prefix}.ema.{k}": v for k, v in ema.items()}
    info[prefix] = dict(reweighted=reweight, steps=steps, batch=B, self_cond_rate=0.9, cond_drop_rate=0.3, lr=1e-2, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01,
                         no_decay="parameters with fewer than two dimensions: no weight decay and no trust ratio", warmup_steps=3, total_steps=20,
                         first_schedule_step=1, clip=0.5, ema_decay=0.9, draws="rand0: text drop (< cond_drop_rate); normal0: logit-normal time; randn0: noise; rand1: self-conditioning keep (> 1 - self_cond_rate)")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out", type=Path)
    ap.add_argument("--size", choices=SIZES, default="tiny")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--steps", type=int, default=6)
    ap.add_argument("--compact", action="store_true")
    ap.add_argument("--prompts", nargs="*", default=PROMPTS)
    a = ap.parse_args()
    s = SIZES[a.size]
    torch.manual_seed(a.seed)
    gen = torch.Generator().manual_seed(a.seed + 1)
    a.out.mkdir(parents=True, exist_ok=True)
    rec, info = {}, {"size": a.size, "seed": a.seed, "torch": torch.__version__, "miro": importlib.metadata.version("miro-t2i"), "prompts": a.prompts}

    # --- text encoder ---------------------------------------------------------------------------------------------
    from transformers import T5Config, T5EncoderModel
    tok = build_tokenizer(a.out / "text_encoder")
    d, layers, heads, dkv, dff = s["t5"]
    cfg = T5Config(vocab_size=max(len(tok), 192), d_model=d, num_layers=layers, num_heads=heads, d_kv=dkv, d_ff=dff,
                   feed_forward_proj="gated-gelu", tie_word_embeddings=False, dropout_rate=0.0)
    enc = T5EncoderModel(cfg).eval()
    randomize(enc, gen, 0.7)
    enc.save_pretrained(str(a.out / "text_encoder"), safe_serialization=True)

    # --- autoencoder ----------------------------------------------------------------------------------------------
    from diffusers import AutoencoderKL
    chans = s["vae"]
    vae = AutoencoderKL(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * len(chans),
                        up_block_types=("UpDecoderBlock2D",) * len(chans), block_out_channels=chans, layers_per_block=2,
                        latent_channels=4, norm_num_groups=8 if a.size != "full" else 32, scaling_factor=0.13025,
                        sample_size=s["res"] * 2 ** (len(chans) - 1)).eval()
    vae.save_pretrained(str(a.out / "vae"), safe_serialization=True)

    # --- network and release folder -------------------------------------------------------------------------------
    allow_missing_torchvision()
    from miro.models.networks.rin import CADRINTextCond
    from miro.models.preconditioning import FlowPrecond
    from miro.models.preprocessing import PrecomputedSDLatentPreconditioning
    from miro.models.postprocessing import VAEDecoderPostProcessing
    from miro.models.scheduler import LinearScheduler
    from miro.pipeline import MiroPipeline
    net_cfg = dict(data_size=s["res"], num_input_channels=4, label_dim=s["label"], num_cond_tokens=s["text_len"], data_dim=s["data"],
                   num_latents=s["n"], latents_dim=s["width"], num_processing_layers=s["layers"], num_blocks=s["blocks"], patch_size=2,
                   read_write_heads=s["rw"], compute_heads=s["comp"], use_cond_rin_block=True, concat_cond_token_to_latents=False,
                   use_self_conditioning=True, coherence_keys=s["keys"], coherence_dropout=0.0)
    net = CADRINTextCond(**net_cfg).eval()
    randomize(net, gen)
    pre_cfg = dict(num_latents=s["n"], latents_dim=s["width"], sigma_data=0.5)
    pre = FlowPrecond(**pre_cfg).eval()
    data_pre = PrecomputedSDLatentPreconditioning(channel_wise_normalisation=True)
    post = VAEDecoderPostProcessing(vae=vae, channel_wise_normalisation=True)
    config = dict(network=net_cfg, preconditioning=pre_cfg, data_preprocessing=dict(channel_wise_normalisation=True),
                  postprocessing=dict(channel_wise_normalisation=True), coherence_keys=s["keys"], data_resolution=s["res"],
                  max_text_len=s["text_len"], scheduler=dict(start=1, end=0, clip_min=1e-9))
    ck = a.out / "checkpoint"
    ck.mkdir(exist_ok=True)
    (ck / "config.json").write_text(json.dumps(config, indent=2))
    state = {f"network.{k}": v.detach().clone().contiguous() for k, v in net.state_dict().items()}
    state |= {f"preconditioning.{k}": v.detach().clone().contiguous() for k, v in pre.state_dict().items()}
    state |= {f"data_preprocessing.{k}": v.detach().clone().contiguous() for k, v in data_pre.state_dict().items()}
    state |= {f"postprocessing.{k}": v.detach().clone().contiguous() for k, v in post.state_dict().items() if not k.startswith("vae.")}
    save_file(state, str(ck / "model.safetensors"))
    with torch.no_grad():
        empty = tok([""], return_tensors="pt")
        uncond = enc(input_ids=empty["input_ids"], attention_mask=empty["attention_mask"]).last_hidden_state[0].float().numpy()
    np.save(ck / "uncond_embedding.npy", uncond)
    info["parameters"] = sum(p.numel() for p in net.parameters())

    # --- text -----------------------------------------------------------------------------------------------------
    t = tok(a.prompts, return_tensors="pt", padding="max_length", max_length=s["text_len"], truncation=True)
    with torch.no_grad():
        emb = enc(input_ids=t["input_ids"], attention_mask=t["attention_mask"]).last_hidden_state.float()
    rec |= {"text.ids": t["input_ids"], "text.mask": t["attention_mask"].bool(), "text.embeddings": emb}
    info["untruncated_ids"] = [tok(p)["input_ids"] for p in a.prompts]

    # --- network forwards ------------------------------------------------------------------------------------------
    B, rows = 2, [0, len(a.prompts) - 1]  # the last prompt is short: its mask has padding

    def batch(case):
        b = {"y": torch.randn(B, 4, s["res"], s["res"], generator=gen), "gamma": torch.rand(B, generator=gen),
             "text_tokens_embeddings": emb[rows].clone(), "text_tokens_mask": t["attention_mask"][rows].bool(),
             "previous_latents": torch.randn(B, s["n"], s["width"], generator=gen) if case != "no_previous" else torch.zeros(B, s["n"], s["width"])}
        for k in s["keys"]:
            b[f"{k}_coherence"] = torch.rand(B, generator=gen)
        if case == "nan_reward":
            b[f"{s['keys'][0]}_coherence"][0] = float("nan")
        if case == "missing_reward":
            del b[f"{s['keys'][1]}_coherence"]
        return b

    def record(case, b, F, z):
        rec.update({f"net.{case}.y": b["y"], f"net.{case}.gamma": b["gamma"], f"net.{case}.embeddings": b["text_tokens_embeddings"],
                    f"net.{case}.mask": b["text_tokens_mask"], f"net.{case}.previous": b["previous_latents"], f"net.{case}.F": F, f"net.{case}.z": z})
        rec.update({f"net.{case}.reward.{k}": b[f"{k}_coherence"] for k in s["keys"] if f"{k}_coherence" in b})

    for case in ["plain", "no_previous", "nan_reward", "missing_reward"]:
        b = batch(case)
        with torch.no_grad():
            F, z = net(dict(b))
        record(case, b, F, z)
        if case == "plain":
            with torch.no_grad():
                D, z, logvar = pre(net, dict(b), return_logvar=True)
            rec.update({"precond.D": D, "precond.z": z, "precond.logvar": logvar})
    if a.size != "full":
        for name, flags in {"concat": dict(use_cond_rin_block=False, concat_cond_token_to_latents=True, use_self_conditioning=False, num_latents=s["n"] + s["text_len"] + 1),
                            "concat_and_block": dict(use_cond_rin_block=True, concat_cond_token_to_latents=True, use_self_conditioning=False, num_latents=s["n"] + s["text_len"] + 1),
                            "single_reward": dict(coherence_keys=s["keys"][:1])}.items():
            args = net_cfg | flags
            other = CADRINTextCond(**args).eval()
            randomize(other, gen)
            kept = other.state_dict()
            if a.compact:
                base = {k: v for k, v in net.state_dict().items() if k in kept and kept[k].shape == v.shape}
                other.load_state_dict(base, strict=False)
                kept = {k: v for k, v in other.state_dict().items() if k not in base}
            folder = a.out / "variants" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "network.json").write_text(json.dumps(args, indent=2))
            save_file({k: v.detach().clone().contiguous() for k, v in kept.items()}, str(folder / "network.safetensors"))
            b = batch("plain")
            with torch.no_grad():
                F, z = other(dict(b))
            rec.update({f"variant.{name}.{k}": v for k, v in b.items() if torch.is_tensor(v)} | {f"variant.{name}.F": F, f"variant.{name}.z": z})
        net.train()
        b = batch("grad")
        F, z = net(dict(b))
        ((F ** 2).mean() + (z ** 2).mean()).backward()
        record("grad", b, F.detach(), z.detach())
        rec |= {f"net.grad.{k}": p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
        net.zero_grad(set_to_none=True)
        net.eval()

    # --- autoencoder ----------------------------------------------------------------------------------------------
    zin = torch.randn(1, 4, s["res"], s["res"], generator=gen)
    side = s["res"] * 2 ** (len(chans) - 1)
    ximg = torch.rand(1, 3, side, side, generator=gen) * 2 - 1
    with torch.no_grad():
        post_q = vae.encode(ximg).latent_dist
        rec |= {"vae.decode.in": zin, "vae.decode.out": vae.decode(zin).sample, "vae.encode.in": ximg, "vae.encode.mean": post_q.mean, "vae.encode.std": post_q.std}

    # --- whole pipeline -------------------------------------------------------------------------------------------
    pipe = MiroPipeline(network=net, preconditioning=pre, data_preprocessing=data_pre, postprocessing=post,
                        scheduler=LinearScheduler(start=1, end=0, clip_min=1e-9), uncond_embedding=torch.from_numpy(uncond.astype(np.float32)),
                        config=config, text_encoder=enc, tokenizer=tok)
    import miro.pipeline as mp
    original = mp.flow_euler_sampler
    runs = [("guided", dict(guidance_scale=7.0), {}), ("unguided", dict(guidance_scale=0.0), {}),
            ("targets", dict(guidance_scale=3.0, reward_targets={s["keys"][0]: 0.25}, negative_reward_targets={s["keys"][1]: 0.5}), {}),
            ("pairs", dict(guidance_scale=7.0, num_images_per_prompt=2), {})]
    info["runs"] = {}
    for name, kw, _ in runs:
        kept = {}

        def capture(*args, **k):
            kept["noise"] = args[1]["y"].clone()
            kept["latents"] = original(*args, **k)
            return kept["latents"]
        mp.flow_euler_sampler = capture
        seed = 1000 + len(info["runs"])
        images = pipe(a.prompts if name != "unguided" else a.prompts[0], num_inference_steps=a.steps,
                      generator=torch.Generator().manual_seed(seed), output_type="numpy", **kw)
        rec |= {f"sample.{name}.noise": kept["noise"], f"sample.{name}.latents": kept["latents"],
                f"sample.{name}.images": torch.from_numpy(np.ascontiguousarray(np.stack(list(images))))}
        info["runs"][name] = dict(seed=seed, steps=a.steps, **kw)
    mp.flow_euler_sampler = original

    if a.size != "full":
        record_training(rec, info, s, net, pre, emb, t["attention_mask"].bool(), uncond, gen)
        record_training(rec, info, s, net, pre, emb, t["attention_mask"].bool(), uncond, gen, prefix="train_reweighted", reweight=True)

    if a.compact:
        info["compact"] = COMPACT_VALUES
        rec = compacted(rec)
        for name in ("spiece.model", "special_tokens_map.json"):
            (a.out / "text_encoder" / name).unlink(missing_ok=True)
    save_file({k: v.detach().contiguous().clone() for k, v in rec.items()}, str(a.out / "reference.safetensors"))
    (a.out / "reference.json").write_text(json.dumps(info, indent=2, ensure_ascii=False))
    print(f"{a.out}: {len(rec)} tensors, network {info['parameters'] / 1e6:.1f}M parameters")


if __name__ == "__main__":
    main()
