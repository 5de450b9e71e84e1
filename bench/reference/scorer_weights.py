"""Random weights in the published layouts, for bench/scorers.ts.

    scorer_weights.py OUT CASE,CASE... [--size full|tiny]

Shapes are the published ones (of VQAScore those of CLIP-FlanT5-XL: XXL needs 49 GB in float32). All layers of a tower
are one layer in the file, which torch.save keeps once: the files take 3 GB, not 30. Loaded, every layer has its own
memory. The scores mean nothing.
"""
import argparse
import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
import make_scorer_reference as reference  # shapes, configurations and tokenizers

XL = dict(width=2048, kv=64, heads=32, ff=5120, layers=24)
GENERATOR = torch.Generator().manual_seed(0)


def alike(shapes):
    """Values for names with shapes; what differs in the number of a layer alone, and is of one shape, is one tensor."""
    values, made = {}, {}
    for name, shape in shapes.items():
        key = (re.sub(r"\.\d+\.", ".#.", name), tuple(shape))
        if key not in made:
            made[key] = torch.empty(shape)
            reference.fill([(name, made[key])], GENERATOR)
        values[name] = made[key]
    return values


def on_meta(make):
    with torch.device("meta"):
        return make()


def shapes_of(module):
    return {k: v.shape for k, v in module.state_dict().items() if not k.endswith(("position_ids", "attn_mask"))}


def hugging_face_clip(folder, arch, merges, kind, activation):
    _, _, vocab = reference.clip_tokenizer_files(folder, merges)
    model = on_meta(lambda: reference.hf_clip(arch[kind], vocab, activation))
    model.config.save_pretrained(str(folder))
    torch.save(alike(shapes_of(model)) | {"logit_scale": torch.tensor(4.6)}, folder / "pytorch_model.bin")


def hpsv2(folder, arch, merges):
    _, _, vocab = reference.clip_tokenizer_files(folder / "tokenizer", merges)
    config = reference.open_clip_config(arch["clip_h"], vocab, False)
    reference.write_json(folder / "open_clip_config.json", {"model_cfg": config})
    state = alike(shapes_of(on_meta(lambda: reference.open_clip_model(config)))) | {"logit_scale": torch.tensor(4.6)}
    torch.save({"state_dict": state}, folder / "HPS_v2.1_compressed.pt")


def aesthetic(folder, arch, _merges):
    widths = [arch["clip_l"]["joint"]] + arch["head"]
    names = shapes_of(reference.affine_chain(widths))
    torch.save({f"layers.{k}": v for k, v in alike(names).items()}, folder / "sac+logos+ava1-l14-linearMSE.pth")


def image_reward(folder, arch, merges):
    spec = arch["image_reward"]
    v, t = spec["vision"], spec["text"]
    run = argparse.Namespace(bert_vocab=None)
    _, vocab, _ = reference.bert_tokenizer(run, folder / "tokenizer", cut=merges is not None)
    positions = 512 if merges is None else 48
    reference.write_json(folder / "med_config.json", dict(hidden_act="gelu", hidden_size=t["width"], intermediate_size=4 * t["width"], layer_norm_eps=1e-12, max_position_embeddings=positions,
                                                          num_attention_heads=t["heads"], num_hidden_layers=t["layers"], vocab_size=vocab, add_cross_attention=True))
    reference.write_json(folder / "architecture.json", dict(vision=v | dict(mlp=4 * v["width"], layer_norm_eps=1e-6), head=[t["width"]] + arch["head"], text_length=35))
    vision, text = on_meta(lambda: image_reward_networks(folder))
    head = reference.affine_chain([t["width"]] + arch["head"])
    shapes = {f"blip.visual_encoder.{k}": s for k, s in shapes_of(vision).items()} | {f"blip.text_encoder.{k}": s for k, s in shapes_of(text).items()} | {f"mlp.layers.{k}": s for k, s in shapes_of(head).items()}
    torch.save(alike(shapes), folder / "ImageReward.pt")


def image_reward_networks(folder):
    """timm's vision transformer and transformers' BERT that looks at pictures, of a folder's shape."""
    import json

    from timm.models.vision_transformer import VisionTransformer
    from transformers import BlipTextConfig, BlipTextModel

    v, m = json.loads((folder / "architecture.json").read_text())["vision"], json.loads((folder / "med_config.json").read_text())
    vision = VisionTransformer(img_size=v["image"], patch_size=v["patch"], embed_dim=v["width"], depth=v["layers"], num_heads=v["heads"], mlp_ratio=4, qkv_bias=True, num_classes=0, global_pool="").eval()
    config = BlipTextConfig(vocab_size=m["vocab_size"], hidden_size=m["hidden_size"], encoder_hidden_size=v["width"], intermediate_size=m["intermediate_size"], num_hidden_layers=m["num_hidden_layers"],
                            num_attention_heads=m["num_attention_heads"], max_position_embeddings=m["max_position_embeddings"], layer_norm_eps=m["layer_norm_eps"], hidden_act="gelu", is_decoder=True,
                            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return vision, BlipTextModel(config, add_pooling_layer=False).eval()


def clip_jina(folder, arch, merges):
    spec = arch["clip_jina"]
    v, t = spec["vision"], spec["text"]
    _, used = reference.xlmr_tokenizer(folder)
    vocab, rank, W, D = 250002 if merges is None else used, 4, v["width"], t["width"]
    FF, hidden, grid = 4 * D, int(W * 2.6667), v["image"] // v["patch"]
    reference.write_json(folder / "config.json", dict(
        model_type="jina_clip", projection_dim=W,
        text_config=dict(embed_dim=D, default_lora_task="retrieval.query", hf_model_config_kwargs=dict(lora_adaptations=["retrieval.query"], lora_alpha=4, lora_rank=rank), hf_model_name_or_path="jinaai/jina-embeddings-v3", pooler_type="mean_pooler"),
        vision_config=dict(embed_dim=W, head_width=W // v["heads"], image_size=v["image"], intp_freq=True, layers=v["layers"], mlp_ratio=2.6667, naive_swiglu=True, patch_size=v["patch"], pt_hw_seq_len=v["reference"], qkv_bias=True,
                           rope_embeddings=True, subln=True, width=W)))
    reference.write_json(folder / "text_model_config.json", dict(vocab_size=vocab, hidden_size=D, num_hidden_layers=t["layers"], num_attention_heads=t["heads"], intermediate_size=FF, hidden_act="gelu", layer_norm_eps=1e-5,
                                                                 max_position_embeddings=8194, type_vocab_size=1, pad_token_id=1, position_embedding_type="rotary", rotary_emb_base=20000.0))
    p, r = "vision_model.", "text_model.transformer.roberta."
    shapes = {p + "cls_token": [1, 1, W], p + "pos_embed": [1, grid * grid + 1, W], p + "patch_embed.proj.weight": [W, 3, v["patch"], v["patch"]], p + "patch_embed.proj.bias": [W], p + "norm.weight": [W], p + "norm.bias": [W]}
    for i in range(v["layers"]):
        b = f"{p}blocks.{i}."
        shapes |= {b + n: s for n, s in {"norm1.weight": [W], "norm1.bias": [W], "norm2.weight": [W], "norm2.bias": [W], "attn.q_proj.weight": [W, W], "attn.k_proj.weight": [W, W], "attn.v_proj.weight": [W, W], "attn.q_bias": [W],
                   "attn.v_bias": [W], "attn.inner_attn_ln.weight": [W], "attn.inner_attn_ln.bias": [W], "attn.proj.weight": [W, W], "attn.proj.bias": [W], "mlp.w1.weight": [hidden, W], "mlp.w1.bias": [hidden], "mlp.w2.weight": [hidden, W],
                   "mlp.w2.bias": [hidden], "mlp.ffn_ln.weight": [hidden], "mlp.ffn_ln.bias": [hidden], "mlp.w3.weight": [W, hidden], "mlp.w3.bias": [W]}.items()}

    def adapted(name, rows, cols, embedding=False):
        a, b = ((rows, rank), (rank, cols)) if embedding else ((rank, cols), (rows, rank))
        base = f"{r}{name}.parametrizations.weight."
        return {base + "original": [rows, cols], base + "0.lora_A": [1, *a], base + "0.lora_B": [1, *b]}
    shapes |= adapted("embeddings.word_embeddings", vocab, D, True) | adapted("embeddings.token_type_embeddings", 1, D, True) | {f"{r}emb_ln.{e}": [D] for e in ("weight", "bias")}
    for i in range(t["layers"]):
        for n, rows, cols in (("mixer.Wqkv", 3 * D, D), ("mixer.out_proj", D, D), ("mlp.fc1", FF, D), ("mlp.fc2", D, FF)):
            shapes |= adapted(f"encoder.layers.{i}.{n}", rows, cols) | {f"{r}encoder.layers.{i}.{n}.bias": [rows]}
        shapes |= {f"{r}encoder.layers.{i}.{n}.{e}": [D] for n in ("norm1", "norm2") for e in ("weight", "bias")}
    half = halves(alike(shapes) | {"logit_scale": torch.tensor(4.6)})
    torch.save(half, folder / "pytorch_model.bin")


def halves(values):
    """In bfloat16; what was one tensor stays one."""
    made = {}
    return {name: made.setdefault(id(value), value.bfloat16()) for name, value in values.items()}


def vqa(folder, arch, merges):
    v, t = arch["vqa"]["vision"], XL if merges is None else arch["vqa"]["text"]
    _, trained, _ = reference.t5_tokenizer(folder)
    (folder / "spiece.model").unlink()  # tokenizer.json holds the same model
    reference.write_json(folder / "config.json", dict(
        vocab_size=32100 if merges is None else trained, d_model=t["width"], d_kv=t["kv"], d_ff=t["ff"], num_layers=t["layers"], num_decoder_layers=t["layers"], num_heads=t["heads"], relative_attention_num_buckets=32,
        relative_attention_max_distance=128, layer_norm_epsilon=1e-6, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, model_type="clip_t5", mm_hidden_size=v["width"],
        mm_projector_type="mlp2x_gelu"))
    reference.write_json(folder / "architecture.json", dict(vision=v | dict(mlp=4 * v["width"], activation="quick_gelu", layer_norm_eps=1e-5)))
    tower, projector, t5 = on_meta(lambda: vqa_networks(folder))
    shapes = {k: s for k, s in shapes_of(t5).items() if not k.endswith("embed_tokens.weight")} | {f"mm_projector.{k}": s for k, s in shapes_of(projector).items()}
    shapes |= {f"vision_tower.vision_tower.{k if k.startswith('vision_model.') else 'vision_model.' + k}": s for k, s in shapes_of(tower).items()}
    torch.save(halves(alike(shapes)), folder / "pytorch_model.bin")


def vqa_networks(folder):
    """transformers' vision tower and T5 of a folder's shape, and the projector between them."""
    import json

    from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration

    c, v = json.loads((folder / "config.json").read_text()), json.loads((folder / "architecture.json").read_text())["vision"]
    tower = CLIPVisionModel(CLIPVisionConfig(hidden_size=v["width"], intermediate_size=v["mlp"], num_hidden_layers=v["layers"], num_attention_heads=v["heads"], image_size=v["image"], patch_size=v["patch"], hidden_act="quick_gelu",
                                             projection_dim=v["width"])).eval()
    D = c["d_model"]
    projector = torch.nn.Sequential(torch.nn.Linear(v["width"], D), torch.nn.GELU(), torch.nn.Linear(D, D)).eval()
    names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "decoder_start_token_id")
    t5 = T5ForConditionalGeneration(T5Config(dropout_rate=0.0, tie_word_embeddings=False, **{name: c[name] for name in names})).eval()
    t5.lm_head = torch.nn.Linear(D, c["vocab_size"], bias=False)  # this library version ties the head to the embedding whatever the config says
    return tower, projector, t5


CASES = {
    "clip_openai": lambda *a: hugging_face_clip(*a, "clip_l", "quick_gelu"),
    "pick_score": lambda *a: hugging_face_clip(*a, "clip_h", "gelu"),
    "sciscore": lambda *a: hugging_face_clip(*a, "clip_h", "gelu"),
    "hpsv2": hpsv2, "aesthetic": aesthetic, "image_reward": image_reward, "clip_jina": clip_jina, "vqa": vqa,
}


def main():
    ap = argparse.ArgumentParser(description="Random weights of the scorers for the benchmark.")
    ap.add_argument("out", type=Path)
    ap.add_argument("cases")
    ap.add_argument("--size", choices=reference.ARCH, default="full")
    a = ap.parse_args()
    arch = reference.ARCH[a.size]
    for case in a.cases.split(","):
        folder = a.out / case
        folder.mkdir(parents=True)
        with torch.no_grad():
            CASES[case](folder, arch, arch["merges"])


if __name__ == "__main__":
    main()
