"""Records tar archives as Python's tarfile and webdataset write them, and what tarfile, webdataset and wids read in them.

    python tests/reference/record_tars.py packages/miro/src/data/shards/fixtures/tars.json.gz

Needs webdataset and wids. The output is the same on every run.
"""

import base64
import gzip
import hashlib
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import webdataset
from wids.wids import IndexedTarSamples

LONG = "folder-of-a-long-name/" * 9 + "0007"


def add(tar, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def archive(format, members, **options):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format, **options) as tar:
        for name, content, fields in members:
            add(tar, name, content, **fields)
    return stream.getvalue()


PLAIN = [
    ("a/", b"", {"type": tarfile.DIRTYPE}),
    ("a/0001.jpg", b"jpeg" * 200, {}),
    ("a/0001.TXT", "größe".encode(), {}),
    ("./a.b/0002.seg.png", b"x" * 512, {}),
    ("./a.b/0002.json", b"{}", {}),
    ("__meta__/info.txt", b"not a sample", {}),
    ("README", b"not a sample", {}),
]
NAMES = [
    (f"{LONG}.jpg", b"long", {}),
    (f"{LONG}.txt", b"name", {}),
    ("schöne-Äpfel/日本.txt", b"text", {}),
    ("z" * 120 + ".txt", b"no slash to split at", {}),
]


def webdataset_archive():
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, mtime=1234567890.25) as sink:
        for i in range(3):
            sink.write(
                {
                    "__key__": f"{i:04}",
                    "jpg": bytes([i]) * (700 + i),
                    "txt": f"caption {i}",
                    "json": {"clip_score": i / 4, "width": 300},
                    "vae_embeddings_mean_256.npy": np.arange(8, dtype=np.float16).reshape(2, 4) + i,
                }
            )
    return stream.getvalue()


ARCHIVES = {
    "ustar": archive(tarfile.USTAR_FORMAT, PLAIN + [(f"{'p' * 90}/{'q' * 90}.txt", b"prefix", {})]),
    "gnu": archive(tarfile.GNU_FORMAT, PLAIN + NAMES),
    "pax": archive(tarfile.PAX_FORMAT, PLAIN + NAMES),
    "pax with times": archive(tarfile.PAX_FORMAT, [(n, c, {**f, "mtime": 1.5}) for n, c, f in PLAIN]),
    "pax with a global header": archive(tarfile.PAX_FORMAT, PLAIN, pax_headers={"comment": "made by a test"}),
    "empty": archive(tarfile.USTAR_FORMAT, []),
    "webdataset": webdataset_archive(),
    "hard link": archive(tarfile.USTAR_FORMAT, [("a.txt", b"a", {}), ("b.txt", b"", {"type": tarfile.LNKTYPE, "linkname": "a.txt"})]),
    "symbolic link": archive(tarfile.USTAR_FORMAT, [("a.txt", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})]),
    "device": archive(tarfile.USTAR_FORMAT, [("a.txt", b"", {"type": tarfile.CHRTYPE})]),
    "absolute": archive(tarfile.USTAR_FORMAT, [("/etc/passwd.txt", b"x", {})]),
    "parent": archive(tarfile.USTAR_FORMAT, [("a/../../b.txt", b"x", {})]),
}


def tarfile_members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [
            {
                "name": info.name,
                "offset": info.offset_data,
                "size": info.size,
                "sha256": hashlib.sha256(tar.extractfile(info).read()).hexdigest(),
            }
            for info in tar
            if info.type in tarfile.REGULAR_TYPES
        ]


def webdataset_samples(path):
    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [
        {"key": sample["__key__"], "extensions": [key for key in sample if not key.startswith("__")]} for sample in dataset
    ]


def wids_samples(path):
    """None where wids cannot read the archive."""
    try:
        samples = IndexedTarSamples(path=str(path))
        return [
            {"key": sample["__key__"], "extensions": [key[1:] for key in sample if key.startswith(".")]}
            for sample in (samples[i] for i in range(len(samples)))
        ]
    except (AssertionError, AttributeError, ValueError):
        return None


def main():
    recorded = {}
    for name, data in ARCHIVES.items():
        entry = {"tar": base64.b64encode(data).decode(), "members": tarfile_members(data)}
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(data)
            file.flush()
            entry["webdataset"] = webdataset_samples(Path(file.name))
            entry["wids"] = wids_samples(Path(file.name))
        recorded[name] = entry
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(json.dumps(recorded).encode(), mtime=0))
    print(f"{target}: {len(recorded)} archives, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
