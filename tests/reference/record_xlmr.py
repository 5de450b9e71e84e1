#!/usr/bin/env python3
"""Record what the reference tokenizer makes of odd text with a tokenizer.json of XLM-RoBERTa's kind, which jina-clip-v2 has.

The vocabulary is that of packages/miro/src/text/fixtures/tokenizer.json.gz (record_tokenizer.py), put in XLM-R's order: <s> 0, <pad> 1,
</s> 2, <unk> 3, the pieces, <mask> last. The character map is read from the package's copy by node. Written is

  xlmr.json.gz   {"strings": [...], "ids": [...], "newer": [...]}: ids by transformers' PreTrainedTokenizerFast, truncated to 1,024;
                     of the first 2,000 also with the plain normaliser and pre-tokeniser of other conversions

Set-up: pip install transformers tokenizers; npm ci && npm run build
Use:    record_xlmr.py [--count 10000] [--seed 0] [--out packages/miro/src/text/fixtures/xlmr.json.gz] [--tokenizer FILE]
"""
import argparse, gzip, json, random, subprocess, tempfile
from pathlib import Path

import record_tokenizer as odd

CHARS_MAP = "import('./packages/miro/dist/text/nmt-nfkc.js').then((m) => process.stdout.write(Buffer.from(m.nmtNfkcCharsMap()).toString('base64')))"
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", " <mask>", "\t\n<mask>  ", "<mask", "<S>", "\uff1cs\uff1e", "\uff1cmask\uff1e", "\u2581", "\u2581\u2581",
           "\r\n", "\n", "\t", "  ", " ", "\u3000", "\u00a0", "\u2028", "\u0085", "\ufeff", "\ufffd", "\0", "\u00ad", "\u200b"]
LONG = ["word " * 3000, "x" * 10000, "\u4e00" * 2000, "a, " * 1022, "<mask>" * 1030, "e\u0301" * 1500]


def xlmr_file():
    t5 = json.loads(gzip.decompress((odd.ROOT / "packages/miro/src/text/fixtures/tokenizer.json.gz").read_bytes()))
    pieces = [piece for piece in t5["model"]["vocab"] if piece[0] not in ("<pad>", "</s>", "<unk>") and not piece[0].startswith("<extra_id_")]
    vocab = [[token, 0.0] for token in ("<s>", "<pad>", "</s>", "<unk>")] + pieces + [["<mask>", 0.0]]
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    metaspace = dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True)
    charsmap = subprocess.run(["node", "-e", CHARS_MAP], cwd=odd.ROOT, check=True, capture_output=True, text=True).stdout
    part = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=token, **plain) for i, token in enumerate(("<s>", "<pad>", "</s>", "<unk>"))] + [dict(id=len(vocab) - 1, content="<mask>", **plain | {"lstrip": True})],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": charsmap}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {"type": "TemplateProcessing", "single": [part("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, part("</s>")],
                           "pair": [part("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, part("</s>"), part("</s>"), {"Sequence": {"id": "B", "type_id": 0}}, part("</s>")],
                           "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (("<s>", 0), ("</s>", 2))}},
        "decoder": metaspace, "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def load(file):
    from transformers import PreTrainedTokenizerFast
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as path:
        json.dump(file, path)
        path.flush()
        return PreTrainedTokenizerFast(tokenizer_file=path.name, model_max_length=1024, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--count", type=int, default=10000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--out", type=Path, default=odd.ROOT / "packages/miro/src/text/fixtures/xlmr.json.gz")
    ap.add_argument("--tokenizer", type=Path, help="also write the tokenizer.json")
    a = ap.parse_args()
    file = xlmr_file()
    odd.SPECIAL = SPECIAL
    strings = LONG + odd.make_strings(random.Random(f"xlmr {a.seed}"), odd.corpus(), a.count - len(LONG))
    encode = lambda tok, text: tok(text, truncation=True, max_length=1024)["input_ids"]
    newer = json.loads(json.dumps(file))
    newer["normalizer"] = file["normalizer"]["normalizers"][0]
    newer["pre_tokenizer"] = file["decoder"]
    reference, other = load(file), load(newer)
    recorded = {"strings": strings, "ids": [encode(reference, s) for s in strings], "newer": [encode(other, s) for s in strings[:2000]]}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    odd.write(a.out, recorded)
    if a.tokenizer:
        a.tokenizer.write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
