#!/usr/bin/env python3
"""Record what the reference tokenizer (transformers' T5TokenizerFast) makes of odd text.

Trains a SentencePiece Unigram model of 8,000 pieces on the emoji names of emojibase-data in some thirty languages, loads it as
T5TokenizerFast, and writes what packages/miro/src/text/tokenizer.test.ts compares with:

  tokenizer.json.gz        the tokenizer as transformers saves it, its character map left out (the package holds the same bytes)
  recorded.json.gz         {"strings": [...], "ids": [...], "newer": [...], "decoded": [...]}: ids of every string; of the first 2,000 also
                           with the normaliser and pre-tokeniser that newer conversions have, and decoded again

The strings are pseudo-random: code points of every script and block that normalisation treats specially, grapheme clusters of all
kinds, mutated words, special tokens in disguise.

Set-up: pip install transformers tokenizers sentencepiece protobuf; npm ci
Use:    record_tokenizer.py [--count 12000] [--seed 0] [--out packages/miro/src/text/fixtures]
"""
import argparse, gzip, hashlib, io, json, random, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RANGES = [  # first, last, weight
    (0x20, 0x7E, 30), (0x00, 0x1F, 3), (0x7F, 0x9F, 2), (0xA0, 0xFF, 8), (0x100, 0x24F, 6), (0x250, 0x2FF, 3), (0x300, 0x36F, 14),
    (0x370, 0x3FF, 4), (0x400, 0x52F, 4), (0x591, 0x5F4, 4), (0x600, 0x6FF, 6), (0x700, 0x7FF, 2), (0x800, 0x8FF, 4), (0x900, 0x97F, 8),
    (0x980, 0xDFF, 8), (0xE00, 0xEFF, 5), (0xF00, 0xFFF, 3), (0x1000, 0x109F, 3), (0x1100, 0x11FF, 5), (0x1200, 0x17FF, 3), (0x1800, 0x1AFF, 3),
    (0x1B00, 0x1CFF, 3), (0x1D00, 0x1DFF, 4), (0x1E00, 0x1FFF, 5), (0x2000, 0x206F, 10), (0x2070, 0x209F, 3), (0x20D0, 0x20F0, 3), (0x2100, 0x218F, 5),
    (0x2190, 0x23FF, 2), (0x2460, 0x24FF, 4), (0x2500, 0x27BF, 3), (0x2A00, 0x2BFF, 1), (0x2C00, 0x2DFF, 2), (0x2E80, 0x2FFF, 3), (0x3000, 0x30FF, 8),
    (0x3130, 0x33FF, 6), (0x4E00, 0x4F00, 3), (0x9000, 0x9100, 2), (0xA000, 0xABFF, 4), (0xAC00, 0xD7A3, 4), (0xD7B0, 0xD7FF, 2), (0xE000, 0xF8FF, 1),
    (0xF900, 0xFAFF, 3), (0xFB00, 0xFB4F, 6), (0xFB50, 0xFDFF, 5), (0xFE00, 0xFE0F, 4), (0xFE10, 0xFE6F, 4), (0xFE70, 0xFEFF, 3), (0xFF00, 0xFFEF, 10),
    (0xFFF0, 0xFFFF, 3), (0x10000, 0x10FFF, 2), (0x11000, 0x11FFF, 4), (0x13000, 0x13FFF, 1), (0x16000, 0x16FFF, 1), (0x1B000, 0x1B2FF, 1),
    (0x1D100, 0x1D24F, 2), (0x1D400, 0x1D7FF, 5), (0x1E000, 0x1EFFF, 2), (0x1F000, 0x1FAFF, 8), (0x20000, 0x2A6DF, 1), (0x2F800, 0x2FA1F, 2),
    (0xE0000, 0xE01EF, 2), (0xF0000, 0x10FFFF, 1),
]
MARKS = "\u0300\u0301\u0302\u0303\u0308\u0327\u0323\u030a\u0345\u064b\u0651\u0670\u093c\u094d\u0903\u09be\u0e33\u0e31\u3099\u309a\uff9e\uff9f\u200d\u200c\ufe0f\u20e3\u1ab0\u0591"
JOINTS = ["\u200d", "\ufe0f", "\U0001f3fd", "\u00a9", "\u00ae", "\u2122", "\u2764", "\U0001f468", "\U0001f469", "\U0001f1e9", "\U0001f1ea", "\U000e0067", "\u0600", "\u06dd", "\u070f", "\u08e2", "\u0d4e"]
SPECIAL = ["</s>", "<pad>", "<unk>", "<extra_id_0>", "<extra_id_7>", "<extra_id_99>", "<extra_id_100>", "\uff1c/s\uff1e", "\uff1cunk\uff1e", "\uff1cextra_id_3\uff1e", "\u2581", "\u2581\u2581", "\r\n", "\n", "\t", "  ", " ", "\u3000", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\0", "\u00ad", "\u200b"]


def corpus():
    texts, seen = [], set()
    for file in sorted((ROOT / "node_modules/emojibase-data").glob("*/data.json")):
        for entry in json.loads(file.read_text()):
            for text in [entry.get("label", ""), " ".join(entry.get("tags", []))]:
                if text and text not in seen:
                    seen.add(text)
                    texts.append(text)
    return texts


def scalar(rng, ranges, weights):
    while True:
        first, last, _ = rng.choices(ranges, weights)[0]
        code = rng.randint(first, last)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def make_strings(rng, texts, count):
    weights = [w for *_, w in RANGES]
    fixed = ["", " ", "a", "\u00e9", "e\u0301", "a photo of a cat", "Caf\u00e9 na\u00efve \u2014 \u201c\ufb01ve\u201d \u00bd-price \uff21\uff22\uff23 umbrellas\u2026", "x" * 300]
    strings, seen = list(fixed), set(fixed)
    while len(strings) < count:
        kind = rng.random()
        if kind < 0.35:  # any characters, marks thrown in
            s = "".join(rng.choice(MARKS) if rng.random() < 0.2 else scalar(rng, RANGES, weights) for _ in range(rng.randint(1, 12)))
        elif kind < 0.50:  # characters of one neighbourhood
            some = [r for r in rng.choices(RANGES, weights, k=2)]
            s = "".join(scalar(rng, some, [1] * len(some)) for _ in range(rng.randint(1, 10)))
        elif kind < 0.62:  # clusters
            s = "".join(rng.choice([rng.choice(JOINTS), rng.choice(MARKS), scalar(rng, RANGES, weights)]) for _ in range(rng.randint(2, 8)))
        elif kind < 0.90:  # mutated words
            words = rng.choice(texts).split()
            at = rng.randrange(len(words))
            s = list(" ".join(words[at:at + rng.randint(1, 4)]))
            for _ in range(rng.randint(0, 3)):
                s.insert(rng.randint(0, len(s)), rng.choice([rng.choice(MARKS), scalar(rng, RANGES, weights), rng.choice(SPECIAL)]))
            s = "".join(s)
        else:  # special tokens and white space
            s = "".join(rng.choice([rng.choice(SPECIAL), rng.choice(SPECIAL), rng.choice(rng.choice(texts).split()), scalar(rng, RANGES, weights)]) for _ in range(rng.randint(1, 6)))
        if s not in seen:
            seen.add(s)
            strings.append(s)
    return strings


def write(path, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--count", type=int, default=12000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--out", type=Path, default=ROOT / "packages/miro/src/text/fixtures")
    a = ap.parse_args()
    import sentencepiece as spm
    from tokenizers import Tokenizer
    from transformers import T5TokenizerFast
    texts = corpus()
    with tempfile.TemporaryDirectory() as folder:
        model = io.BytesIO()
        spm.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, vocab_size=8000, model_type="unigram", character_coverage=0.9995,
                                       pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2)
        (Path(folder) / "spiece.model").write_bytes(model.getvalue())
        tok = T5TokenizerFast.from_pretrained(folder)
        tok.save_pretrained(folder)
        file = json.loads((Path(folder) / "tokenizer.json").read_text())
    strings = make_strings(random.Random(a.seed), texts, a.count)
    ids = [tok(s)["input_ids"] for s in strings]
    charsmap = file["normalizer"]["precompiled_charsmap"]
    # Conversions without "legacy" behaviour look like this.
    newer = json.loads(json.dumps(file))
    newer["normalizer"] = {"type": "Sequence", "normalizers": [file["normalizer"], {"type": "Strip", "strip_left": False, "strip_right": True},
                                                               {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]}
    newer["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
    other = Tokenizer.from_str(json.dumps(newer))
    few = min(2000, len(strings))
    recorded = {"strings": strings, "ids": ids, "newer": [other.encode(s).ids for s in strings[:few]],
                "decoded": [tok.decode(i, skip_special_tokens=True, clean_up_tokenization_spaces=False) for i in ids[:few]]}
    file["normalizer"]["precompiled_charsmap"] = "sha256:" + hashlib.sha256(charsmap.encode()).hexdigest()
    a.out.mkdir(parents=True, exist_ok=True)
    write(a.out / "tokenizer.json.gz", file)
    write(a.out / "recorded.json.gz", recorded)


if __name__ == "__main__":
    main()
