#!/usr/bin/env python3
"""What Python's BERT tokenizer (tokenizers, as transformers' BertTokenizer uses it) makes of odd strings, and its tables of characters.

  wordpiece-ids.json.br     {"vocabulary": [...], "texts": [...], "ids": [...]}: ids with [CLS] and [SEP], not cut, joined with blanks; the vocabulary is
                            learned from the strings, [DEC] and [ENC] are added behind it as for BLIP
  wordpiece.generated.ts    which characters are removed, accents, or punctuation (for packages/miro/src/text): these tables are of an older Unicode
                            than any JavaScript engine has

Set-up: pip install torch==2.13.0 transformers==5.24.0 tokenizers==0.23.3 brotli; what record_clip_text.py needs, whose strings these are
Use:    record_wordpiece.py OUT [--count 4000] [--seed 0] [--bert-vocab VOCAB.TXT] [--texts-only]
"""
import argparse, json, random, tempfile
from pathlib import Path

import brotli
import tokenizers
from tokenizers import normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer

from record_clip_text import character, text

SPECIALS = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "[ENC]", "[DEC]", "[cls]", "[unused1]", "a[SEP]b", "##ing", "x" * 100, "x" * 101, "é" * 99 + "日", "\U0001f9ad" * 60]


def odd(r):
    kind = r.random()
    if kind < 0.05:
        return "".join(r.choice([character(r), r.choice(SPECIALS), " "]) for _ in range(r.randrange(1, 12)))
    if kind < 0.15:  # any code point at all, between letters
        return "".join(c if not 0xD800 <= ord(c) < 0xE000 else "a" for c in (chr(r.choice([r.randrange(0x3000), r.randrange(0x110000), r.randrange(0x61, 0x7B)])) for _ in range(r.randrange(1, 20))))
    return text(r)


def ranges(codes):
    out = []
    for c in codes:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return " ".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in out)


def tables():
    """The classes, found by asking for every character."""
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    clean, accents = normalizers.BertNormalizer(**off | dict(clean_text=True)), normalizers.BertNormalizer(**off | dict(strip_accents=True))
    split = pre_tokenizers.BertPreTokenizer()
    letters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    found = {
        "REMOVED": ("Removed before anything else: control and format characters, private use.", [c for c in letters if clean.normalize_str(f"a{c}b") == "ab"]),
        "ACCENTS": ("Removed after decomposition: marks without width.", [c for c in letters if accents.normalize_str(c) == ""]),
        "PUNCTUATION": ("A word each.", [c for c in letters if [w for w, _ in split.pre_tokenize_str(f"a{c}b")] == ["a", c, "b"]]),
    }
    lines = [f"// Made by tests/reference/record_wordpiece.py from tokenizers {tokenizers.__version__} (Apache-2.0, Hugging Face); do not edit.\n"]
    for name, (meaning, members) in found.items():
        lines.append(f"/** {meaning} Code points and ranges of them, hexadecimal. */\nexport const {name} =\n  {json.dumps(ranges(map(ord, members)))};\n")
    return "\n".join(lines)


def vocabulary(texts):
    tok = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    tok.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=3000, limit_alphabet=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    return [t for t, _ in sorted(tok.get_vocab().items(), key=lambda item: item[1])]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out", type=Path)
    ap.add_argument("--count", type=int, default=4000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--bert-vocab", type=Path, help="a vocab.txt instead of a learned one")
    ap.add_argument("--texts-only", action="store_true", help="only wordpiece-ids.json.br")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    if not a.texts_only:
        (a.out / "wordpiece.generated.ts").write_text(tables(), encoding="utf-8")
    r = random.Random(a.seed)
    texts = ["", "word " * 100, "a photo of a red bench"] + [odd(r) for _ in range(a.count - 3)]
    lines = a.bert_vocab.read_text(encoding="utf-8").split("\n")[:-1] if a.bert_vocab else vocabulary(texts)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        tok = BertTokenizer.from_pretrained(folder)
    tok.add_special_tokens({"bos_token": "[DEC]"})
    tok.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    assert tok.convert_tokens_to_ids("[ENC]") == len(lines) + 1
    ids = [" ".join(map(str, tok(t)["input_ids"])) for t in texts]
    out = {"vocabulary": lines, "texts": texts, "ids": ids}
    (a.out / "wordpiece-ids.json.br").write_bytes(brotli.compress(json.dumps(out, ensure_ascii=True).encode(), quality=11))
    print(len(lines), "pieces,", len(texts), "texts,", sum(i.split().count("1") > 0 for i in ids), "with unknown words")


if __name__ == "__main__":
    main()
