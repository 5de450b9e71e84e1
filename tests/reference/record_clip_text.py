#!/usr/bin/env python3
"""What the CLIP tokenizers of Python make of odd strings, and the tables that their text cleaning works with.

  ids.json.br                  {"texts": [...], "openai": ids by open_clip's cleaning, "hf": ids by transformers' fast tokenizer}, both cut to 77
                               tokens, for the 49,408 entries of the published table; a text's ids as text, joined with blanks
  clip-merges.txt.br           the 48,894 merges of the published table, one a line (for packages/miro/assets)
  mojibake.generated.ts        ftfy's character classes and single-byte encodings (for packages/miro/src/text)

Set-up: pip install open_clip_torch==3.3.0 --no-deps; pip install torch==2.13.0 transformers==5.24.0 tokenizers ftfy==6.3.1 regex brotli
Use:    record_clip_text.py OUT [--count 3000] [--seed 0] [--texts-only]
"""
import argparse, gzip, hashlib, importlib.util, json, random, unicodedata
from pathlib import Path

import brotli
import ftfy
from ftfy import badness, chardata

# The package's own import pulls in torchvision; its tokenizer stands alone.
FOLDER = Path(importlib.util.find_spec("open_clip").submodule_search_locations[0])
spec = importlib.util.spec_from_file_location("open_clip_tokenizer", FOLDER / "tokenizer.py")
tokenizer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tokenizer)

WORDS = """a photo of the red bench two dogs on sofa naïve café straße été İstanbul ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ Москва 日本語のテキスト 一只小海豹 한국어 العربية עברית ไทย हिन्दी ñandú Ǆ ǅ ﬁve ﬀ ﬆ ＡＢＣ １２３
½ ² Ⅷ ⅷ ㎏ ① Ⓐ don't WON'T I'm you'll we'VE it'S 'ſ they'd 'tis rock'n'roll 3.14159 1234 100% $5.00 #tag @user http://example.com/a?b=c hello_world C++ a/b <b>STOP</b> <PERSON>
🦭 👩‍👩‍👧 🇫🇷 ☃️ e\u0301 \u0345 \u1fb3 \u212a \u017f x\u0327\u0301 <|endoftext|> <|startoftext|> <end_of_text> <start_of_text> <|ENDOFTEXT|> &amp; &amp;amp; &lt;3 &quot;q&quot; &#39; &#x27; &#0; &#x80; &#xD800;
&#1114112; &#5; &eacute; &EACUTE; &Eacute &notin; &notit; &ampersand &NBSP; &nbsp; &copy2020 &unknown; &#; &#x; &; &hearts; &ThickSpace; &fjlig; ‘single’ “double” … – — ― · ° ¡Hola! ¿Qué? «guillemets» ‹x›
\u200b \u200d \ufeff \u2028 \u2029 \u0085 \xa0 \u3000 \u180e \x1b[31m \x1b[0m \x00 \x1c \x1f \x7f \ufffd \ufff9 \u206a \U000e0001 \U0001d400 \U00020000 ½cup №5 €5 £5 ¥5 ×2 ±1 µm ´ ¨ ¸ ˆ ˜ † ‡""".split(" ")
ENCODINGS = ["latin-1", "windows-1252", "windows-1251", "windows-1250", "windows-1253", "windows-1254", "windows-1257", "iso-8859-2", "mac-roman", "cp437"]
SPACES = [" "] * 12 + ["  ", "\t", "\n", "\r\n", "\r", "\xa0", "\u3000", "\u2009", "\x0b", "\x0c", "\x1d", "\x85", ""]


def mojibake(text, r):
    encoding = r.choice(ENCODINGS)
    name = "sloppy-" + encoding if encoding.startswith("windows") else encoding
    try:
        broken = text.encode("utf-8", "surrogatepass").decode(name)
    except (UnicodeError, LookupError):
        return text
    if r.random() < 0.15:
        broken = broken.replace("\xa0", " ")
    if r.random() < 0.1:
        broken = broken.upper()
    if r.random() < 0.1 and broken:
        i = r.randrange(len(broken))
        broken = broken[:i] + r.choice(["?", "\ufffd", ""]) + broken[i + 1:]
    return mojibake(broken, r) if r.random() < 0.1 else broken


def character(r):
    while True:
        c = chr(r.choice([r.randrange(0x20, 0x180), r.randrange(0x180, 0x600), r.randrange(0x1e00, 0x2600), r.randrange(0xa000), r.randrange(0xf900, 0x10000), r.randrange(0x10000, 0x20000)]))
        # Letters of Unicode 15.1 and later mean other things to other releases of Node and Python.
        if not 0xD800 <= ord(c) < 0xE000 and unicodedata.category(c) != "Cn":
            return c


def text(r):
    kind = r.random()
    if kind < 0.04:
        return "".join(character(r) for _ in range(r.randrange(1, 30)))
    words = [mojibake(w, r) if kind < 0.4 and r.random() < 0.5 else w for w in (r.choice(WORDS) for _ in range(r.randrange(1, 12)))]
    if kind > 0.7:
        words = ["".join(c.upper() if r.random() < 0.3 else c for c in w) for w in words]
    if 0.4 < kind < 0.5:
        words.insert(r.randrange(len(words) + 1), "".join(character(r) for _ in range(r.randrange(1, 5))))
    line = "".join(w + r.choice(SPACES) for w in words)
    return mojibake(line, r) if 0.5 < kind < 0.6 else line * (10 if kind > 0.995 else 1)


def literal(name, value):
    return f"export const {name} =\n  {json.dumps(value)};\n"


def tables():
    lines = ["// Made by tests/reference/record_clip_text.py from ftfy %s (Apache-2.0, Robyn Speer); do not edit.\n" % ftfy.__version__]
    lines.append("/** Characters of the bytes 0x80 to 0xFF of each single-byte encoding, in the order in which they are tried. */")
    rows = ",\n".join(f"  [{json.dumps(e)}, {json.dumps(bytes(range(0x80, 0x100)).decode(e))}]" for e in chardata.CHARMAP_ENCODINGS)
    lines.append(f"export const SINGLE_BYTE_ENCODINGS: readonly (readonly [name: string, upper: string])[] = [\n{rows},\n];\n")
    lines.append("/** What begins and continues a character of UTF-8 that was read in one of these encodings: bodies of character classes. */")
    lines.append("export const UTF8_CLUES = {\n" + "".join(f"  {k.removeprefix('utf8_')}: {json.dumps(v)},\n" for k, v in chardata.UTF8_CLUES.items()) + "};\n")
    lines.append("/** Classes of the characters of wrongly read text: bodies of character classes. */")
    lines.append("export const MOJIBAKE = {\n" + "".join(f"  {k}: {json.dumps(v)},\n" for k, v in badness.MOJIBAKE_CATEGORIES.items()) + "};\n")
    return "\n".join(lines)


def row(ids):
    return " ".join(map(str, ids))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out", type=Path)
    ap.add_argument("--count", type=int, default=3000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--texts-only", action="store_true", help="only ids.json.br")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    table = gzip.open(FOLDER / "bpe_simple_vocab_16e6.txt.gz").read()
    assert hashlib.sha256(table).hexdigest() == "67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8"
    merges = table.decode("utf-8").split("\n")[1:48895]
    if not a.texts_only:
        (a.out / "clip-merges.txt.br").write_bytes(brotli.compress(("\n".join(merges) + "\n").encode(), quality=11))
        (a.out / "mojibake.generated.ts").write_text(tables(), encoding="utf-8")
    symbols = list(tokenizer.bytes_to_unicode().values())
    vocab = symbols + [s + "</w>" for s in symbols] + ["".join(m.split()) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    from transformers import CLIPTokenizer
    hf = CLIPTokenizer(vocab={s: i for i, s in enumerate(vocab)}, merges=[tuple(m.split()) for m in merges], model_max_length=77)
    oc = tokenizer.SimpleTokenizer()
    r = random.Random(a.seed)
    texts = [text(r) for _ in range(a.count)]
    rows = oc(texts)
    out = {"texts": texts, "openai": [row(x[: int(x.argmax()) + 1].tolist()) for x in rows],
           "hf": [row(hf(t, truncation=True, max_length=77)["input_ids"]) for t in texts]}
    (a.out / "ids.json.br").write_bytes(brotli.compress(json.dumps(out, ensure_ascii=True).encode(), quality=11))
    print(len(texts), "texts;", sum(x != y for x, y in zip(out["openai"], out["hf"])), "differ between the cleanings")


if __name__ == "__main__":
    main()
