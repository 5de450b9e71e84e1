"""Seconds for a batch of pictures with the published libraries, the counterpart of bench/scorers-run.ts.

    scorers.py JOB_JSON

Each scorer decodes and prepares the pictures by itself, as the published evaluation does. Prints one line of JSON: the
measurement, or null where a scorer is not compared.
"""
import json
import resource
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
import make_scorer_reference as reference  # its transforms, and torchvision beside a CPU torch


def hugging_face(folder, dtype):
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prepare = reference.family_b(model.config.vision_config.image_size)

    def score(pictures, prompts):
        pixels = torch.stack([prepare(picture) for picture in pictures]).to(dtype)
        tokens = tokenizer(prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        text = model.text_projection(model.text_model(**tokens).pooler_output)
        return model.logit_scale.exp() * (F.normalize(image, dim=-1) * F.normalize(text, dim=-1)).sum(-1)

    return score


def hpsv2(folder, dtype):
    from open_clip import SimpleTokenizer

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = reference.open_clip_model(config).to(dtype)
    model.load_state_dict(torch.load(folder / "HPS_v2.1_compressed.pt", weights_only=True)["state_dict"])
    table = folder / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
    tokenizer = SimpleTokenizer(bpe_path=str(table)) if table.exists() else SimpleTokenizer()
    prepare = reference.family_c(config["vision_cfg"]["image_size"])

    def score(pictures, prompts):
        pixels = torch.stack([prepare(picture) for picture in pictures]).to(dtype)
        return (model.encode_image(pixels, normalize=True) * model.encode_text(tokenizer(prompts), normalize=True)).sum(-1)

    return score


def aesthetic(folder, tower, dtype):
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(tower, dtype=dtype).eval()
    head = torch.load(next(folder.glob("*.pth")), weights_only=True)
    prepare = reference.family_a(model.config.image_size)

    def score(pictures, _prompts):
        pixels = torch.stack([prepare(picture) for picture in pictures]).to(dtype)
        x = F.normalize(model(pixel_values=pixels).image_embeds.float(), dim=-1)
        for layer in (0, 2, 4, 6, 7):
            x = F.linear(x, head[f"layers.{layer}.weight"], head[f"layers.{layer}.bias"])
        return x[:, 0]

    return score


def main():
    job = json.loads(sys.argv[1])
    dtype = getattr(torch, job["dtype"])
    weights = {key: Path(folder) for key, folder in job["weights"].items()}
    make = {
        "clip_openai": lambda: hugging_face(weights["clip_openai"], dtype),
        "pick_a_score_score": lambda: hugging_face(weights["pick_a_score_score"], dtype),
        "sciscore_score": lambda: hugging_face(weights["sciscore_score"], dtype),
        "hpsv2_score": lambda: hpsv2(weights["hpsv2_score"], dtype),
        "aesthetic_score": lambda: aesthetic(weights["aesthetic_score"], weights["clip_openai"], dtype),
    }
    if any(key not in make for key in job["keys"]):
        print("null")
        return
    seconds = []
    with torch.inference_mode():
        scorers = [make[key]() for key in job["keys"]]
        for batch in job["batches"]:
            start = time.perf_counter()
            for score in scorers:
                score([Image.open(file).convert("RGB") for file in batch["files"]], batch["prompts"]).tolist()
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[1:], "peakBytes": peak, "dtype": job["dtype"]}))


main()
