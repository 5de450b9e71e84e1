"""Records what Pillow makes of pictures: resized pixels and decoded files (tests/reference/README.md).

    python tests/reference/record_images.py

Writes fixtures/images.json.gz: for each picture and size a hash of all pixels and some of them; the pictures themselves follow from
formulas and are made again by the test. Record with Pillow 11: 13 resizes many high pictures in the other order of passes. Small encoded files are stored whole, in base64, with their decoded pixels' hash.
"""
import base64, gzip, hashlib, io, json, pathlib, struct, zlib

import numpy as np
import PIL
from PIL import Image

OUT = pathlib.Path(__file__).parent / "fixtures" / "images.json.gz"


def picture(kind, width, height):
    """The same integers as the test's function of this name."""
    y, x = np.mgrid[0:height, 0:width].astype(np.uint64)
    if kind == "gradient":
        planes = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) * 255 // (width + height - 2)]
    elif kind == "checker":
        on = ((x // 3 + y // 3) % 2) * 255
        planes = [on, 255 - on, on]
    else:
        i = (y * width + x) * 3
        planes = []
        for c in range(3):
            h = ((i + c + 1) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
            h ^= h >> np.uint64(15)
            h = (h * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
            h ^= h >> np.uint64(13)
            planes.append(h & np.uint64(255))
    return np.stack(planes, -1).astype(np.uint8)


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def sample(image):
    """Some pixels, so that a difference can be told from a blunder."""
    data = np.frombuffer(image.tobytes(), np.uint8)
    return data[:: max(1, len(data) // 64)][:64].tolist()


def png16(array, colour):
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + array[i].astype(">u2").tobytes() for i in range(height))
    chunk = lambda t, d: struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files():
    """Encoded pictures of every kind that is met in the wild."""
    rng = np.random.default_rng(0)
    width, height = 53, 38
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1)
    smooth[8:24, 10:30] = [250, 20, 30]
    smooth = (smooth + rng.normal(0, 10, smooth.shape)).clip(0, 255).astype(np.uint8)
    alpha = (x * 255 // width).astype(np.uint8)
    rgb, rgba = Image.fromarray(smooth), Image.fromarray(np.dstack([smooth, alpha]))
    deep = (smooth.astype(np.uint32) * 257 + rng.integers(-100, 100, smooth.shape)).clip(0, 65535)
    deep_alpha = (x * 65535 // width).astype(np.uint32)

    def save(image, kind, **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    exif = Image.Exif()
    exif[0x112] = 6
    found = {
        "444.jpg": save(rgb, "JPEG", quality=85, subsampling=0),
        "422.jpg": save(rgb, "JPEG", quality=85, subsampling=1),
        "420.jpg": save(rgb, "JPEG", quality=75, subsampling=2),
        "progressive.jpg": save(rgb, "JPEG", quality=75, subsampling=2, progressive=True),
        "grey.jpg": save(rgb.convert("L"), "JPEG"),
        "cmyk.jpg": save(rgb.convert("CMYK"), "JPEG", quality=90),
        "exif-orientation-6.jpg": save(rgb, "JPEG", exif=exif),
        "rgb.png": save(rgb, "PNG"),
        "grey.png": save(rgb.convert("L"), "PNG"),
        "grey-alpha.png": save(rgba.convert("LA"), "PNG"),
        "bilevel.png": save(rgb.convert("1"), "PNG"),
        "palette.png": save(rgb.convert("P"), "PNG"),
        "palette-2-bit.png": save(rgb.quantize(4), "PNG", bits=2),
        "palette-transparent.png": save(rgb.convert("P"), "PNG", transparency=3),
        "rgba.png": save(rgba, "PNG"),
        "animated.png": save(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)]),
        "grey16.png": png16((x * 600 // width).astype(np.uint32), 0),
        "rgb16.png": png16(deep, 2),
        "rgba16.png": png16(np.dstack([deep, deep_alpha]), 6),
        "grey-alpha16.png": png16(np.dstack([deep[..., 0], deep_alpha]), 4),
        "lossy.webp": save(rgb, "WEBP", quality=80),
        "lossless.webp": save(rgb, "WEBP", lossless=True),
        "alpha.webp": save(rgba, "WEBP", quality=80),
        "animated.webp": save(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)], lossless=True),
        "animated.gif": save(rgb, "GIF", save_all=True, append_images=[rgb.rotate(180)]),
    }
    found["png-called.jpg"] = found["rgb.png"]
    found["trailing-bytes.jpg"] = found["420.jpg"] + b"garbage"
    found["cut.jpg"] = found["420.jpg"][:-2]
    found["half.jpg"] = found["420.jpg"][: len(found["420.jpg"]) // 2]
    found["half.png"] = found["rgb.png"][: len(found["rgb.png"]) // 2]
    found["half.webp"] = found["lossy.webp"][: len(found["lossy.webp"]) // 2]
    found["text.jpg"] = b"not a picture at all"
    return found


def main():
    resized = []
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for kind in ("gradient", "checker", "noise"):
        for width, height in ((256, 256), (640, 480), (333, 500), (225, 224), (61, 40), (3, 400)):
            image = Image.fromarray(picture(kind, width, height))
            for name, resample in filters.items():
                for size in ((256, 256), (512, 512), (224, 224), (100, height), (width, 77)):
                    out = image.resize(size, resample)
                    resized.append([kind, width, height, name, *size, digest(out), sample(out)])
    decoded = {}
    for name, content in files().items():
        entry = {"bytes": base64.b64encode(content).decode()}
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
            entry |= {"width": image.width, "height": image.height, "sha256": digest(image), "sample": sample(image)}
        except Exception as error:  # what Pillow refuses must be refused
            entry["error"] = type(error).__name__
        decoded[name] = entry
    report = {"pillow": PIL.__version__, "resized": resized, "decoded": decoded}
    with open(OUT, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
        file.write(json.dumps(report).encode())
    print(OUT, OUT.stat().st_size)


main()
