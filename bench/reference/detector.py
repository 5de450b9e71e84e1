"""Seconds of GenEval's detector in Python (transformers), the counterpart of bench/detector.ts.

    detector.py SHAPE_JSON PICTURE SCALE_JSON REPEATS

Weights are random. The published resize, and mmdet's post-processing for instances. Prints one line of JSON.
"""
import importlib.metadata
import json
import platform
import re
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# Only torchvision's Python parts are imported: a wheel whose operators do not fit this torch must not stop that.
real = torch.library.register_fake
torch.library.register_fake = lambda op, *args, **options: (lambda f: f) if str(op).startswith("torchvision::") else real(op, *args, **options)
import torchvision  # noqa: E402,F401

torch.library.register_fake = real
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig  # noqa: E402

MEAN, STD = torch.tensor([123.675, 116.28, 103.53])[:, None, None], torch.tensor([58.395, 57.12, 57.375])[:, None, None]


def network(shape):
    swin = shape["backbone"]
    backbone = SwinConfig(embed_dim=swin["width"], depths=swin["depths"], num_heads=swin["heads"], window_size=swin["window"], mlp_ratio=swin["mlpRatio"], image_size=224, drop_path_rate=0.0, out_features=["stage1", "stage2", "stage3", "stage4"])
    width = shape["width"]
    config = Mask2FormerConfig(backbone_config=backbone, feature_size=width, mask_feature_size=width, hidden_dim=width, num_attention_heads=shape["heads"], encoder_layers=shape["encoder"]["layers"], encoder_feedforward_dim=shape["encoder"]["hidden"],
                               decoder_layers=shape["decoder"]["layers"] + 1, dim_feedforward=shape["decoder"]["hidden"], num_queries=shape["queries"], num_labels=shape["classes"])
    return Mask2FormerForUniversalSegmentation(config).eval()


def prepare(picture, scale):
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    factor = min(scale[0] / max(picture.size), scale[1] / min(picture.size))
    size = (int(picture.height * factor + 0.5), int(picture.width * factor + 0.5))
    x = (F.interpolate(x, size=size, mode="bilinear") - MEAN) / STD
    return F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32)), size


def detections(out, padded, resized, original, keep=100):
    masks = F.interpolate(out.masks_queries_logits, size=padded, mode="bilinear")[:, :, : resized[0], : resized[1]]
    masks = F.interpolate(masks, size=original, mode="bilinear")[0]
    table = out.class_queries_logits[0].softmax(-1)[:, :-1].flatten()
    values, flat = table.topk(min(keep, len(table)))
    chosen = masks[flat // 80]
    binary = chosen > 0
    scores = values * (chosen.sigmoid() * binary).flatten(1).sum(1) / (binary.flatten(1).sum(1) + 1e-6)
    boxes = []
    for mask in binary:
        ys, xs = torch.where(mask)
        boxes.append([int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1] if len(ys) else [0, 0, 0, 0])
    return scores, flat % 80, boxes, binary


def measured(repeats, work):
    work()
    times = {"seconds": [], "cpuSeconds": []}
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        work()
        times["seconds"].append(time.perf_counter() - start)
        times["cpuSeconds"].append(time.process_time() - cpu)
    return times


def main():
    shape, picture, scale, repeats = json.loads(sys.argv[1]), Image.open(sys.argv[2]).convert("RGB"), json.loads(sys.argv[3]), int(sys.argv[4])
    torch.manual_seed(0)
    model = network(shape)

    def forward():
        x, resized = prepare(picture, scale)
        return model(pixel_values=x), tuple(x.shape[2:]), resized

    with torch.inference_mode():
        times = {"network": measured(repeats, forward), "detections": measured(repeats, lambda: detections(*forward(), (picture.height, picture.width)))}
    peak = int(re.search(r"^VmHWM:\s+(\d+) kB", open("/proc/self/status").read(), re.M)[1]) * 1024
    versions = {"python": platform.python_version(), "reference torch": torch.__version__, "transformers": importlib.metadata.version("transformers")}
    print(json.dumps({"times": times, "peakBytes": peak, "versions": versions}))


main()
