"""Samples a second of Python's readers over a folder of shards; see bench/loader.ts.

    loader.py evict FOLDER                                          drops the shards from the page cache
    loader.py wids|webdataset FOLDER --batch B --workers W --epochs N

Each sample's text embeddings, latents' mean and std, and clip_score are decoded; batches pad texts to their longest.
"""

import argparse
import io
import json
import os
import resource
import time
from pathlib import Path

TEXT = "flan_t5_xl_embeddings.npy"
ARRAYS = [TEXT, "vae_embeddings_mean_256.npy", "vae_embeddings_std_256.npy"]


def shards(folder):
    return sorted(str(path) for path in Path(folder).glob("*.tar"))


def evict(folder):
    for path in shards(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    print(json.dumps({}))


def decode(sample):
    import numpy as np
    import torch

    get = lambda name: sample["." + name] if "." + name in sample else sample[name]  # noqa: E731
    read = lambda name: (lambda raw: raw if isinstance(raw, io.IOBase) else io.BytesIO(raw))(get(name))  # noqa: E731
    result = {name: torch.from_numpy(np.load(read(name))) for name in ARRAYS}
    result["clip_score"] = json.load(read("json"))["clip_score"]
    return result


def collate(samples):
    import torch

    batch = {name: torch.stack([sample[name] for sample in samples]) for name in ARRAYS if name != TEXT}
    texts = [sample[TEXT] for sample in samples]
    longest = max(len(text) for text in texts)
    padded = torch.zeros(len(texts), longest, texts[0].shape[1], dtype=texts[0].dtype)
    mask = torch.zeros(len(texts), longest, dtype=torch.bool)
    for i, text in enumerate(texts):
        padded[i, : len(text)] = text
        mask[i, : len(text)] = True
    batch["text"], batch["mask"] = padded, mask
    batch["clip_score"] = torch.tensor([sample["clip_score"] for sample in samples])
    return batch


def cpu_seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=["evict", "wids", "webdataset"])
    parser.add_argument("folder")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    if args.reader == "evict":
        return evict(args.folder)

    import torch
    import webdataset
    import wids

    torch.set_num_threads(1)
    if args.reader == "wids":
        index = str(Path(args.folder) / "wids-index.json")
        # Without a copy of each shard to the cache folder, and without eviction: what is best for it.
        dataset = wids.ShardListDataset(index, localname=lambda url: url, lru_size=1000, transformations=[decode])
        assert len(dataset) == sum(len(wids.wids.IndexedTarSamples(path=path)) for path in shards(args.folder))
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
        loader = torch.utils.data.DataLoader(
            dataset, args.batch, sampler=order * args.epochs, num_workers=args.workers, collate_fn=collate, drop_last=True
        )
    else:
        dataset = webdataset.WebDataset(shards(args.folder), shardshuffle=False, empty_check=False).map(decode).repeat(args.epochs)
        loader = torch.utils.data.DataLoader(dataset, args.batch, num_workers=args.workers, collate_fn=collate, drop_last=True)

    # Clock and processor time begin with the first batch asked for: starting Python and workers is in, importing torch is not.
    cpu, start, samples, total = cpu_seconds(), time.perf_counter(), 0, 0.0
    for batch in loader:
        samples += len(batch["clip_score"])
        total += float(batch["clip_score"].sum())
    del loader  # workers end, and their processor time counts
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "samples": samples,
                "seconds": seconds,
                "cpuSeconds": cpu_seconds() - cpu,
                "sum": total,
                "versions": {"torch": torch.__version__, "webdataset": webdataset.__version__, "wids": wids.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
