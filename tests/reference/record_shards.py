"""Makes a small data set in the published layout and records what the published Python code reads from it.

    git clone https://github.com/nicolas-dufour/miro   # the folder must be called miro
    python tests/reference/record_shards.py --repository miro --output tests/reference/fixtures/shards

Needs torch, numpy, pillow, webdataset, wids and tqdm; of Lightning only a rank is asked for, which is given here where the
package is missing. The archives are written by webdataset's TarWriter, as the published preparation does; pictures, latents,
text states and scores are random, in the published dtypes and member names, but small: latents (4, 8, 8) and (4, 16, 16),
text states 16 wide.

    raw/0000{0,1,2}.tar              key.jpg, key.txt, key.json, 13 + 11 + 8 samples
    enriched/cc12m/0000{0,1}.tar     the same samples with scores in the metadata and the .npy members
    enriched/laion/00002.tar
    recorded/index-*.json            wids-index.json of each root
    recorded/coherence_bins_*.json   caches of bin edges, under their published names
    recorded/total_size_*.json       of the first root
    recorded/batches.safetensors     NAME/KEY: collated batches, NAME is listed in recorded.json
    recorded/recorded.json           everything else: batches, keys, filters, bin edges of made-up values, orders of the samplers
"""
import argparse
import io
import itertools
import json
import os
import random
import shutil
import sys
import types

import numpy as np
import torch
import torch.distributed as dist
import webdataset as wds
from PIL import Image
from safetensors.torch import save_file

SCORES = ["clip_score", "aesthetic_score", "image_reward_score", "pick_a_score_score", "hpsv2_score", "vqa_score", "sciscore_score"]
SHARDS = [("cc12m", 13), ("cc12m", 11), ("laion", 8)]
WIDTH = 16


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def make_shards(output):
    rng = np.random.default_rng(5)
    number = 0
    for shard, (root, count) in enumerate(SHARDS):
        os.makedirs(f"{output}/raw", exist_ok=True)
        os.makedirs(f"{output}/enriched/{root}", exist_ok=True)
        raw = wds.TarWriter(f"{output}/raw/{shard:05}.tar")
        enriched = wds.TarWriter(f"{output}/enriched/{root}/{shard:05}.tar")
        for _ in range(count):
            sample, members = make_sample(rng, number, root)
            raw.write({k: sample[k] for k in ("__key__", "jpg", "txt", "json")})
            metadata = json.dumps({**json.loads(sample["json"]), **members.pop("scores")}).encode()
            text = {} if number == 26 else {"txt": sample["txt"]}
            enriched.write({"__key__": sample["__key__"], "jpg": sample["jpg"], **text, "json": metadata, **members})
            number += 1
        raw.close()
        enriched.close()


def make_sample(rng, number, root):
    ramp = np.linspace(0, 1, 40)[None, :, None] * np.linspace(0.2, 1, 32)[:, None, None] * rng.uniform(0, 255, 3)
    picture = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(picture, "JPEG", quality=80)
    size = {} if number == 11 else {"width": 200 if number == 5 else int(rng.integers(256, 900)), "height": int(rng.integers(256, 900))}
    metadata = {"key": f"{number:09}", "caption": f"caption {number}, <PERSON> in a café", **size, "status": "success"}
    if number == 9:
        metadata["similarity"] = float("nan")  # written as the bare word NaN
    lattice = lambda low, high, steps: float(np.float16(low + (high - low) * rng.integers(0, steps + 1) / steps))
    scores = {}
    for prefix in ("", "synthetic_"):
        scores |= {
            f"{prefix}aesthetic_score": float(rng.uniform(0.4, 0.8)),
            f"{prefix}clip_score": float(torch.tensor(rng.uniform(0.2, 0.45)).bfloat16().float()),
            f"{prefix}hpsv2_score": lattice(0.15, 0.38, 40),
            f"{prefix}image_reward_score": float(rng.uniform(-0.07, 1.05)),
            f"{prefix}pick_a_score_score": lattice(0.15, 0.27, 12),
            f"{prefix}sciscore_score": lattice(0.1, 0.4, 9),
            f"{prefix}vqa_score": float(rng.uniform(0, 1) ** 0.3),
        }
    if number == 3:
        del scores["vqa_score"]
    if number == 7:
        scores["synthetic_vqa_score"] = float("nan")
    if number == 13:
        del scores["synthetic_hpsv2_score"]
    latents = lambda side: {
        f"vae_embeddings_mean_{8 * side * 4}.npy": npy((rng.standard_normal((4, side, side)) * 6).astype(np.float16)),
        f"vae_embeddings_std_{8 * side * 4}.npy": npy(rng.uniform(1e-4, 0.6, (4, side, side)).astype(np.float16)),
    }
    states = lambda low, high: npy(rng.standard_normal((int(rng.integers(low, high)), WIDTH)).astype(np.float16))
    members = {"scores": scores, "flan_t5_xl_embeddings.npy": states(1, 24), **latents(8), **latents(16)}
    if number == 22:
        for name in [name for name in scores if name.startswith("synthetic_")]:
            del scores[name]
    else:
        members["synthetic_flan_t5_xl_embeddings.npy"] = states(12, 40)
    sample = {
        "__key__": f"{number:09}" if root == "cc12m" else f"part_1/{number:09}",
        "jpg": picture.getvalue(),
        "txt": f"caption {number}, <PERSON> in a café",
        "json": json.dumps(metadata).encode(),
    }
    return sample, members


def published(repository):
    sys.path.insert(0, os.path.dirname(os.path.abspath(repository)))
    try:
        import lightning_fabric  # noqa: F401
    except ImportError:
        rank_zero = types.ModuleType("lightning_fabric.utilities.rank_zero")
        rank_zero._get_rank = lambda: 0
        for name in ("lightning_fabric", "lightning_fabric.utilities"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["lightning_fabric.utilities.rank_zero"] = rank_zero
        lightning = types.ModuleType("pytorch_lightning")
        lightning.LightningDataModule = object
        sys.modules.setdefault("pytorch_lightning", lightning)
    from miro.data import datamodule, text_wids_dataset, wids_samplers
    from miro.models import preprocessing

    return datamodule, text_wids_dataset, wids_samplers, preprocessing


def record_batches(modules, record, tensors, roots):
    datamodule, text_wids_dataset, _, preprocessing = modules
    collate = lambda length: datamodule.dict_collate_and_pad(["flan_t5_xl"], max_length=length)
    common = dict(
        root=roots,
        text_embedding_name="flan_t5_xl",
        vae_embedding_name_mean="vae_embeddings_mean_256",
        vae_embedding_name_std="vae_embeddings_std_256",
        return_image=False,
        return_text=False,
        coherence_scores=SCORES,
    )
    cases = {
        "plain": dict(num_bins=8),
        "quantile": dict(bin_coherence=True, num_bins=8),
        "refined": dict(bin_coherence=True, num_bins=6, bin_strategy="refined_quantile", refine_last_n_bins=2, refine_factor=3),
        "uniform": dict(bin_coherence=True, num_bins=5, bin_strategy="uniform"),
        "main": dict(bin_coherence=True, num_bins=64, synthetic_embedding_prob=1.0),
        "strict": dict(bin_coherence=True, num_bins=8, clip_filter_threshold=0.3, aesthetic_threshold=0.5),
    }
    for name, options in cases.items():
        dataset = text_wids_dataset.TextWIDSDataset(**common, **options)
        raw = [dataset.dataset[i] for i in range(len(dataset.dataset))]
        passing = [
            i for i, s in enumerate(raw) if dataset._passes_filter(s.get(".json", {})) and ".txt" in s and ".jpg" in s
        ]
        chosen = passing[:: 2 if name == "plain" else 3]
        length = 256 if name == "main" else 20
        batch = collate(length)([dataset[i] for i in chosen])
        for key, value in batch.items():
            tensors[f"{name}/{key}"] = value.contiguous()
        record["batches"][name] = {
            "options": options, "max_length": length, "indices": chosen, "passing": passing, "length": len(dataset),
            "bins": {k: v.tolist() for k, v in dataset.bins.items()},
        }
        if name == "plain":
            record["keys"] = [s["__key__"] for s in raw]
    for sample in (False, True):
        torch.manual_seed(11)
        model = preprocessing.PrecomputedSDLatentPreconditioning(
            input_key_mean="vae_embeddings_mean_256", input_key_std="vae_embeddings_std_256",
            output_key_root="x_0", vae_sample=sample, channel_wise_normalisation=True,
        )
        batch = {k.split("/")[1]: v.clone() for k, v in tensors.items() if k.startswith("plain/vae")}
        with torch.no_grad():
            tensors[f"x_0/{'sample' if sample else 'mean'}"] = model(batch)["x_0"].contiguous()
    torch.manual_seed(11)
    tensors["x_0/noise"] = torch.randn_like(tensors["plain/vae_embeddings_mean_256"])


def record_bins(modules, record):
    compute = modules[1]._compute_bins
    made = {
        "lattice": [round(0.15 + (i * i % 211) / 1000, 3) for i in range(4000)],
        "skewed": [((i * 7919) % 10007 / 10007) ** 4 for i in range(5000)],
        "wide": [((i * 104729) % 9973 / 9973) * 3 - 1 for i in range(3000)],
        "few": [0.25, 0.5, 0.5, 0.75],
        "constant": [0.5] * 10,
    }
    for (name, values), (strategy, bins, last, factor) in itertools.product(
        made.items(),
        [("quantile", 64, 0, 1), ("quantile", 7, 0, 1), ("uniform", 16, 0, 1), ("refined_quantile", 64, 4, 8), ("refined_quantile", 64, 0, 1)],
    ):
        edges = compute(torch.tensor(values, dtype=torch.float32), bins, strategy, last, factor)
        record["bins"].append({
            "values": name, "strategy": strategy, "num_bins": bins, "refine_last_n_bins": last, "refine_factor": factor,
            "edges": None if edges is None else edges.tolist(),
        })


def record_orders(modules, record):
    _, text_wids_dataset, wids_samplers, _ = modules
    dist.is_initialized = lambda: True  # the samplers ask the process group for nothing but its size and rank
    for lengths, ranks, workers, batch, seed, shuffle in [
        ([13, 11, 8], 1, 2, 3, 0, True), ([13, 11, 8], 1, 1, 4, 7, False), ([10, 9, 12, 7, 11, 6, 10], 2, 3, 2, 3, True),
        ([5, 6], 1, 4, 2, 0, True), ([4] * 31, 1, 16, 2, 0, True),
    ]:
        for rank, epoch in itertools.product(range(ranks), (0, 1, 5)):
            dist.get_world_size, dist.get_rank = (lambda: ranks), (lambda: rank)
            dataset = types.SimpleNamespace(lengths=lengths)
            sampler = text_wids_dataset.ShardExclusiveSampler(
                dataset, workers, batch, num_replicas=ranks, rank=rank, shuffle=shuffle, seed=seed)
            sampler.set_epoch(epoch)
            record["orders"].append({
                "kind": "shard_exclusive", "shard_lengths": lengths, "ranks": ranks, "rank": rank, "workers": workers,
                "batch_size": batch, "seed": seed, "shuffle": shuffle, "epoch": epoch, "indices": list(sampler), "length": len(sampler),
            })
    for count, ranks, chunk, seed, shuffle in [(32, 1, 5, 0, True), (50, 3, 7, 4, True), (20, 2, 100, 1, True), (20, 2, 6, 1, False)]:
        for rank, epoch in itertools.product(range(ranks), (0, 1, 2)):
            dist.get_world_size, dist.get_rank = (lambda: ranks), (lambda: rank)
            sampler = wids_samplers.DistributedChunkedSampler(
                range(count), num_replicas=ranks, num_samples=count, rank=rank, shuffle=shuffle, chunksize=chunk, seed=seed)
            sampler.set_epoch(epoch)
            record["orders"].append({
                "kind": "chunked", "count": count, "ranks": ranks, "rank": rank, "chunk_size": chunk, "seed": seed,
                "shuffle": shuffle, "epoch": epoch, "indices": list(sampler),
            })
    for count, ranks, shuffle, drop_last in itertools.product((10, 3), (1, 4), (False, True), (False, True)):
        for rank in range(ranks):
            sampler = wids_samplers.DistributedLocalSampler(
                range(count), num_replicas=ranks, rank=rank, shuffle=shuffle, drop_last=drop_last, seed=9)
            sampler.set_epoch(2)
            record["orders"].append({
                "kind": "local", "count": count, "ranks": ranks, "rank": rank, "seed": 9, "shuffle": shuffle,
                "drop_last": drop_last, "epoch": 2, "indices": list(sampler),
            })


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", required=True, help="folder of the published repository, called miro")
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    modules = published(arguments.repository)
    output = os.path.abspath(arguments.output)
    shutil.rmtree(output, ignore_errors=True)
    make_shards(output)
    os.makedirs(f"{output}/recorded")
    os.chdir(f"{output}/enriched")
    random.seed(0)
    record = {"scores": SCORES, "batches": {}, "bins": [], "orders": [], "torch": torch.__version__, "wids": "0.1.11"}
    tensors = {}
    record_batches(modules, record, tensors, "cc12m laion")
    record_bins(modules, record)
    record_orders(modules, record)
    for root in ("cc12m", "laion"):
        shutil.move(f"{root}/wids-index.json", f"{output}/recorded/index-{root}.json")
        for name in sorted(os.listdir(root)):
            if name.endswith(".json"):
                shutil.move(f"{root}/{name}", f"{output}/recorded/{name}") if root == "cc12m" else os.remove(f"{root}/{name}")
    save_file(tensors, f"{output}/recorded/batches.safetensors")
    with open(f"{output}/recorded/recorded.json", "w") as file:
        json.dump(record, file, separators=(",", ":"))


main()
