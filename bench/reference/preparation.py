"""Processor milliseconds of preparing one JPEG with Pillow, the counterpart of bench/preparation.ts.

    preparation.py FILE REPEATS ROUNDS PART...

PART are the names of decoding, the squares of 256 and 512 (bilinear) and a CLIP tower's 224 (bicubic). Prints one line
of JSON.
"""
import json
import platform
import sys
import time

import PIL
from PIL import Image

file, repeats, rounds, *names = sys.argv[1:]


def decoded():
    with Image.open(file) as picture:
        return picture.convert("RGB")


image = decoded()


def square(side):
    least = min(image.size)
    left, top = (image.width - least) // 2, (image.height - least) // 2
    return image.crop((left, top, left + least, top + least)).resize((side, side), Image.Resampling.BILINEAR)


def clip(side):
    scale = side / min(image.size)
    whole = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    return whole.crop((left, top, left + side, top + side))


def milliseconds(work):
    times = []
    for _ in range(int(rounds) + 1):
        begin = time.process_time()
        for _ in range(int(repeats)):
            work()
        times.append((time.process_time() - begin) * 1000 / int(repeats))
    return times[1:]


works = [decoded, lambda: square(256), lambda: square(512), lambda: clip(224)]
times = {name: milliseconds(work) for name, work in zip(names, works, strict=True)}
print(json.dumps({"times": times, "versions": {"python": platform.python_version(), "pillow": PIL.__version__}}))
