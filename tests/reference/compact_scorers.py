#!/usr/bin/env python3
"""What `npm test` needs of a recording of make_scorer_reference.py: the CLIP scorers, GenEval and pictures, without what is stored twice.

Use: compact_scorers.py RECORDING OUT
"""
import hashlib, json, re, shutil, sys
from pathlib import Path

from safetensors.torch import load_file, save_file

CASES = {
    "pictures": r"(square|tall|wide|noise|surplus3|surplus227|strip|rgba|grey|palette)\.png",
    "preprocess": None,
    "clip_openai": r"model\.safetensors|config\.json|merges\.txt|preprocessor_config\.json",
    "pick_score": r"model\.safetensors|config\.json|merges\.txt|preprocessor_config\.json",
    "hpsv2": r"HPS_v2\.1_compressed\.pt|open_clip_config\.json|tokenizer/.*",
    "aesthetic": r"sac.*\.pth",
    "clip_jina": r"model\.safetensors|(config|text_model_config|preprocessor_config|tokenizer)\.json",
    "vqa": r"pytorch_model.*|config\.json|architecture\.json|tokenizer\.json",
    "image_reward": r"ImageReward\.pt|architecture\.json|med_config\.json|tokenizer/vocab\.txt",
    "geneval": r"rules\.json",
    "detector": r"mask2former.*\.pth|config\.json|mmdet2_keys\.json",
    "colour": r"mask_\w+\.png",
}
TENSORS = {
    "preprocess": r"V\.40\.\w+|[AB]\.32\.\w+|C\.32\.(tall|noise|surplus3)|letterbox\.32\.(tall|noise)|C\.224\.\w+",
    "clip_openai": r"text\.ids|(image|text)\.(normalised|projected)|logits",
    "pick_score": r"text\.ids|(image|text)\.(normalised|projected)|logits",
    "hpsv2": r"text\.ids|(image|text)\.(normalised|projected)|cosine",
    "clip_jina": r"text\.ids|(image|text)\.normalised|logits",
    "aesthetic": r"head\..*|image\.normalised|raw",
    "detector": r"merge\..*|pipeline\..*|noise64x64\.(?!mask_logits\.before).*|noise96x128\.(input_uint8|class_logits|queries)|(noise|strip)\.(?!input|class_scores|quality).*",
    "colour": r"pixels_uint8.*|logits.*|answer.*|classifier|text\.ids.*",
    "vqa": r"text\.ids|image\.(features|projected)|(embeddings|encoder|decoder|logits)\..*|label_logprobs|score",
    "image_reward": r"text\.(ids|mask|last_hidden\.picture0)|image\.tokens|pooled|mlp|reward|stored",
}
source, out = map(Path, sys.argv[1:])
table = json.loads((source / "scorers.json").read_text())
cases = {}
for key, files in CASES.items():
    (out / key).mkdir(parents=True, exist_ok=True)
    for path in sorted((source / key).rglob("*")):
        name = str(path.relative_to(source / key))
        if path.is_file() and files and re.fullmatch(files, name):
            (out / key / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / key / name)
    if key in TENSORS:
        tensors = {k: v for k, v in load_file(source / key / "reference.safetensors").items() if re.fullmatch(TENSORS[key], k)}
        save_file(tensors, out / key / "reference.safetensors")
    case = table["cases"][key]
    if key == "detector":  # what the other layout's file holds, without the file
        weights = load_file(source / key / "model.safetensors")
        digests = {k: hashlib.sha256(v.numpy().tobytes()).hexdigest()[:16] for k, v in weights.items()}
        (out / key / "hugging_face.json").write_text(json.dumps(digests, separators=(",", ":")) + "\n")
        case["detections"] = {k: {} for k in case["detections"]}
    cases[key] = {k: case[k] for k in ("folder", "library", "odd_ids", "published_sizes", "pictures", "classes", "objects", "scale", "published_pipeline", "detections", "captions", "cleaned_captions", "rows", "label_ids") if k in case}
# One case a line.
line = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
body = ",\n".join(f"{line(key)}:{line(case)}" for key, case in cases.items())
rest = line({key: value for key, value in table.items() if key != "cases"})
(out / "scorers.json").write_text(f'{{"cases":{{\n{body}\n}},{rest[1:]}\n', encoding="utf-8")
