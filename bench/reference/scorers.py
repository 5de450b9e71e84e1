"""Seconds for a batch of pictures with the published libraries, the counterpart of bench/scorers-run.ts.

    scorers.py JOB_JSON

Each scorer decodes and prepares the pictures by itself, as the published evaluation does. Attention is what the
libraries take by themselves, scaled_dot_product_attention where they have it. Prints one line of JSON: the measurement.
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
from scorer_weights import image_reward_networks, vqa_networks


def read(folder, *names):
    """The values of a file; each tensor gets memory of its own where it is copied into a network."""
    file = next(folder / name for name in names if (folder / name).exists())
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    values = torch.load(file, weights_only=True, mmap=True)
    return values.get("state_dict", values)


def part(values, prefix):
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def hugging_face(folder, dtype):
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig.from_pretrained(folder)).to(dtype).eval()
    model.load_state_dict(read(folder, "model.safetensors", "pytorch_model.bin"), strict=False)
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
    model.load_state_dict(read(folder, "HPS_v2.1_compressed.pt"))
    table = folder / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
    tokenizer = SimpleTokenizer(bpe_path=str(table)) if table.exists() else SimpleTokenizer()
    prepare = reference.family_c(config["vision_cfg"]["image_size"])

    def score(pictures, prompts):
        pixels = torch.stack([prepare(picture) for picture in pictures]).to(dtype)
        return (model.encode_image(pixels, normalize=True) * model.encode_text(tokenizer(prompts), normalize=True)).sum(-1)

    return score


def aesthetic(folder, tower, dtype):
    from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPConfig.from_pretrained(tower)
    vision = CLIPVisionConfig(**config.vision_config.to_dict())
    vision.projection_dim = config.projection_dim
    model = CLIPVisionModelWithProjection(vision).to(dtype).eval()
    model.load_state_dict(read(tower, "model.safetensors", "pytorch_model.bin"), strict=False)
    head = torch.load(next(folder.glob("*.pth")), weights_only=True)
    prepare = reference.family_a(model.config.image_size)

    def score(pictures, _prompts):
        pixels = torch.stack([prepare(picture) for picture in pictures]).to(dtype)
        x = F.normalize(model(pixel_values=pixels).image_embeds.float(), dim=-1)
        for layer in (0, 2, 4, 6, 7):
            x = F.linear(x, head[f"layers.{layer}.weight"], head[f"layers.{layer}.bias"])
        return x[:, 0]

    return score


def image_reward(folder, dtype):
    from transformers import BertTokenizer

    architecture = json.loads((folder / "architecture.json").read_text())
    vision, text = (network.to(dtype) for network in image_reward_networks(folder))
    head = reference.affine_chain(architecture["head"])
    values = read(folder, "ImageReward.pt")
    vision.load_state_dict(part(values, "blip.visual_encoder."))
    text.load_state_dict(part(values, "blip.text_encoder."), strict=False)
    head.load_state_dict(part(values, "mlp.layers."))
    tokenizer = BertTokenizer.from_pretrained(folder / "tokenizer")
    prepare = reference.family_a(architecture["vision"]["image"])

    def score(pictures, prompts):
        tokens = vision.forward_features(torch.stack([prepare(picture) for picture in pictures]).to(dtype))
        ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=architecture["text_length"], return_tensors="pt")
        seen = torch.ones(tokens.shape[:2], dtype=torch.long)
        state = text(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], encoder_hidden_states=tokens, encoder_attention_mask=seen).last_hidden_state
        return (head(state[:, 0].float())[:, 0] - reference.REWARD_MEAN) / reference.REWARD_STD

    return score


def clip_jina(folder, dtype):
    from timm.models.eva import Eva, checkpoint_filter_fn
    from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model, PreTrainedTokenizerFast

    v, t = json.loads((folder / "config.json").read_text())["vision_config"], json.loads((folder / "text_model_config.json").read_text())
    vision = Eva(img_size=v["image_size"], patch_size=v["patch_size"], embed_dim=v["width"], depth=v["layers"], num_heads=v["width"] // v["head_width"], mlp_ratio=v["mlp_ratio"], qkv_fused=False, swiglu_mlp=True, scale_mlp=True,
                 scale_attn_inner=True, use_rot_pos_emb=True, ref_feat_shape=(v["pt_hw_seq_len"],) * 2, num_classes=0, global_pool="token").eval()
    config = JinaEmbeddingsV3Config(vocab_size=t["vocab_size"], hidden_size=t["hidden_size"], num_hidden_layers=t["num_hidden_layers"], num_attention_heads=t["num_attention_heads"], intermediate_size=t["intermediate_size"],
                                    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, rope_parameters={"rope_type": "default", "rope_theta": t["rotary_emb_base"]})
    text = JinaEmbeddingsV3Model(config, add_pooling_layer=False).eval()
    values = read(folder, "model.safetensors", "pytorch_model.bin")
    vision.load_state_dict(checkpoint_filter_fn({k: x.float() for k, x in part(values, "vision_model.").items()}, vision))
    roberta = part(values, "text_model.transformer.roberta.")

    def merged(name, embedding=False):
        w, a, b = (roberta[f"{name}.parametrizations.weight.{x}"].float() for x in ("original", "0.lora_A", "0.lora_B"))
        return w + (a[0] @ b[0] if embedding else b[0] @ a[0])
    state = {f"embeddings.{n}.weight": merged(f"embeddings.{n}", True) for n in ("word_embeddings", "token_type_embeddings")} | {f"embeddings.LayerNorm.{e}": roberta[f"emb_ln.{e}"] for e in ("weight", "bias")}
    for i in range(t["num_hidden_layers"]):
        old, new = f"encoder.layers.{i}.", f"layers.{i}."
        for q, w, b in zip("qkv", merged(old + "mixer.Wqkv").chunk(3), roberta[old + "mixer.Wqkv.bias"].chunk(3)):
            state |= {f"{new}self_attn.{q}_proj.weight": w, f"{new}self_attn.{q}_proj.bias": b}
        for theirs, ours in (("mixer.out_proj", "self_attn.o_proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            state |= {f"{new}{ours}.weight": merged(old + theirs), f"{new}{ours}.bias": roberta[f"{old}{theirs}.bias"]}
        for theirs, ours in (("norm1", "post_attention_layernorm"), ("norm2", "post_mlp_layernorm")):
            state |= {f"{new}{ours}.{e}": roberta[f"{old}{theirs}.{e}"] for e in ("weight", "bias")}
    text.load_state_dict(state)
    del state, roberta
    scale = values["logit_scale"].float().exp()
    vision, text = vision.to(dtype), text.to(dtype)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", model_max_length=1024)
    prepare = reference.family_a(v["image_size"])

    def score(pictures, prompts):
        image = vision.forward_features(torch.stack([prepare(picture) for picture in pictures]).to(dtype))[:, 0]
        ids = tokenizer(prompts, padding=True, truncation=True, max_length=1024, return_tensors="pt")
        states = text(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state
        kept = ids["attention_mask"][..., None]
        pooled = (states * kept).sum(1) / kept.sum(1)
        return scale * (F.normalize(image, dim=-1) * F.normalize(pooled, dim=-1)).sum(-1)

    return score


def vqa(folder, dtype):
    from transformers import PreTrainedTokenizerFast

    tower, projector, t5 = (network.to(dtype) for network in vqa_networks(folder))
    values = read(folder, "pytorch_model.bin")
    t5.load_state_dict({k: x for k, x in values.items() if not k.startswith(("mm_projector.", "vision_tower."))}, strict=False)
    projector.load_state_dict(part(values, "mm_projector."))
    seen = part(values, "vision_tower.vision_tower.")
    own = tower.state_dict()
    tower.load_state_dict({k: seen[k if k in seen else f"vision_model.{k}"] for k in own if "position_ids" not in k}, strict=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    prepare = reference.family_b(tower.config.image_size)
    encode = lambda text: [i for i in tokenizer(text, add_special_tokens=False)["input_ids"] if i != 1] + [1]
    labels = torch.tensor(encode("Yes"))

    def score(pictures, prompts):
        pixels = torch.stack([prepare(reference.square_pad(picture)) for picture in pictures]).to(dtype)
        image = projector(tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:])
        rows = []
        for k, prompt in enumerate(prompts):
            before, after = f'{reference.SYSTEM} USER: <image>\nDoes this figure show "{prompt}"? Please answer yes or no. ASSISTANT: '.split("<image>")
            rows.append(torch.cat([t5.shared(torch.tensor(encode(before))), image[k], t5.shared(torch.tensor(encode(after)))]))
        longest = max(map(len, rows))
        states = torch.stack([torch.cat([row, row.new_zeros(longest - len(row), row.shape[1])]) for row in rows])
        mask = torch.stack([(torch.arange(longest) < len(row)).long() for row in rows])
        logits = t5(inputs_embeds=states, attention_mask=mask, labels=labels.repeat(len(rows), 1)).logits
        log = F.log_softmax(logits.float(), -1)
        return log.gather(-1, labels.view(1, -1, 1).expand(len(rows), -1, 1)).mean((1, 2)).exp()

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
        "image_reward_score": lambda: image_reward(weights["image_reward_score"], dtype),
        "clip_score": lambda: clip_jina(weights["clip_score"], dtype),
        "vqa_score": lambda: vqa(weights["vqa_score"], dtype),
    }
    seconds, processor, scores = [], [], {}
    with torch.inference_mode():
        scorers = {key: make[key]() for key in job["keys"]}
        for batch in job["batches"]:
            start, used = time.perf_counter(), time.process_time()
            for key, score in scorers.items():
                scores[key] = score([Image.open(file).convert("RGB") for file in batch["files"]], batch["prompts"]).tolist()
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[1:], "processorSeconds": processor[1:], "peakBytes": peak, "dtype": job["dtype"], "scores": scores}))


main()
