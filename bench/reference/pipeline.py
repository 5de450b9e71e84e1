"""Seconds of the text encoder and of the decoder in Python (transformers, diffusers), the counterpart of bench/pipeline.ts.

    pipeline.py T5_JSON TOKENS VAE_JSON SIDE REPEATS

Weights are one constant: the time does not depend on them. Prints one line of JSON.
"""
import importlib.metadata
import json
import platform
import sys
import time

import torch
from diffusers import AutoencoderKL
from transformers import T5Config, T5EncoderModel


def constant(make, dtype):
    with torch.device("meta"):
        model = make()
    model = model.to(dtype).to_empty(device="cpu").eval()
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    return model


def seconds(repeats, work):
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def main():
    t5, tokens, vae, side, repeats = json.loads(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    result = {}
    with torch.inference_mode():
        encoder = constant(lambda: T5EncoderModel(T5Config(**t5)), torch.bfloat16)
        ids, mask = torch.ones(1, tokens, dtype=torch.long), torch.ones(1, tokens, dtype=torch.long)
        result["text encoder bfloat16"] = seconds(repeats, lambda: encoder(input_ids=ids, attention_mask=mask))
        del encoder
        config = {k: v for k, v in vae.items() if not k.startswith("_")}
        for dtype in (torch.float32, torch.bfloat16):
            decoder = constant(lambda: AutoencoderKL(**config), dtype)
            z = torch.randn(1, vae["latent_channels"], side, side, dtype=dtype)
            result[f"decoder {str(dtype)[6:]}"] = seconds(repeats, lambda: decoder.decode(z).sample)
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "diffusers")}
    print(json.dumps({"seconds": result, "versions": {"python": platform.python_version(), "reference torch": torch.__version__} | versions}))


main()
