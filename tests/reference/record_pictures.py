"""Records the pixels that Pillow reads from encoded pictures of every kind (tests/reference/README.md).

    pip install pillow==13.0.0 numpy tifffile imagecodecs
    python tests/reference/record_pictures.py

Writes fixtures/pictures.json.gz: each file in base64, and the size and pixels that `Image.open(file).convert("RGB")` gives, or the error that it
raises. Files that no encoder of Pillow writes are put together here, byte by byte.
"""

import base64, gzip, io, json, pathlib, re, struct, warnings, zlib

import imagecodecs
import numpy as np
import PIL.ImageCms
import tifffile
from PIL import Image

OUT = pathlib.Path(__file__).parent / "fixtures" / "pictures.json.gz"
WIDTH, HEIGHT = 23, 17
warnings.simplefilter("ignore")

rng = np.random.default_rng(3)
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
COLOUR = np.stack([X * 255 // (WIDTH - 1), Y * 255 // (HEIGHT - 1), (X * 7 + Y * 13) % 256], -1).astype(np.uint8)
COLOUR[4:11, 6:15] = [250, 20, 30]
GREY = (X * 11 + Y * 3).astype(np.uint8)
ALPHA = (X * 255 // (WIDTH - 1)).astype(np.uint8)
GREY16 = (X * 40 + Y * 3000).astype(np.uint16)
COLOUR16 = (COLOUR.astype(np.uint32) * 257 - rng.integers(0, 200, COLOUR.shape)).clip(0, 65535).astype(np.uint16)


def save(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- PNG -------------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rows(samples, bits):
    """Rows of an array (height, width, channels), each with filter 0."""
    rows = []
    for row in samples:
        flat = row.reshape(-1)
        if bits == 16:
            packed = flat.astype(">u2").tobytes()
        elif bits == 8:
            packed = flat.astype(np.uint8).tobytes()
        else:
            values = (flat[:, None] >> np.arange(bits - 1, -1, -1)) & 1
            packed = np.packbits(values.reshape(-1).astype(np.uint8)).tobytes()
        rows.append(b"\0" + packed)
    return b"".join(rows)


def png(samples, bits, colour, before=b"", interlaced=False, animation=None, after=b""):
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width = samples.shape[:2]
    if interlaced:
        passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        parts = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in passes]
        raw = b"".join(png_rows(part, bits) for part in parts if part.shape[1])
    else:
        raw = png_rows(samples, bits)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    data = chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data + after + chunk(b"IEND", b"")


def pngs():
    found = {}
    palette = chunk(b"PLTE", bytes((i * 53 + c * 91) % 256 for i in range(256) for c in range(3)))
    short = lambda n: chunk(b"PLTE", bytes((i * 53 + c * 91 + 5) % 256 for i in range(n) for c in range(3)))
    for interlaced in (False, True):
        adam = "-interlaced" if interlaced else ""
        for bits in (1, 2, 4, 8):
            values = GREY >> (8 - bits)
            found[f"grey{bits}{adam}.png"] = png(values, bits, 0, interlaced=interlaced)
            trns = chunk(b"tRNS", struct.pack(">H", int(values[3, 4])))
            found[f"grey{bits}-trns{adam}.png"] = png(values, bits, 0, trns, interlaced)
            found[f"palette{bits}{adam}.png"] = png(values, bits, 3, short(1 << bits), interlaced)
            found[f"palette{bits}-trns{adam}.png"] = png(
                values, bits, 3, short(1 << bits) + chunk(b"tRNS", b"\x00\x80"), interlaced
            )
        found[f"grey16{adam}.png"] = png(GREY16, 16, 0, interlaced=interlaced)
        found[f"grey16-trns{adam}.png"] = png(GREY16, 16, 0, chunk(b"tRNS", b"\0\x50"), interlaced)
        found[f"rgb8-trns{adam}.png"] = png(COLOUR, 8, 2, chunk(b"tRNS", b"\0\xfa\0\x14\0\x1e"), interlaced)
        found[f"rgb16{adam}.png"] = png(COLOUR16, 16, 2, interlaced=interlaced)
        found[f"rgb16-trns{adam}.png"] = png(
            COLOUR16, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *map(int, COLOUR16[5, 7]))), interlaced
        )
        for bits, grey, colour in ((8, GREY, COLOUR), (16, GREY16, COLOUR16)):
            alpha = ALPHA.astype(np.uint32) * (257 if bits == 16 else 1)
            found[f"grey-alpha{bits}{adam}.png"] = png(np.dstack([grey, alpha]), bits, 4, interlaced=interlaced)
            found[f"rgba{bits}{adam}.png"] = png(np.dstack([colour, alpha]), bits, 6, interlaced=interlaced)
    found["grey16-small-values.png"] = png(GREY16 // 200, 16, 0)
    found["palette-index-beyond.png"] = png(GREY, 8, 3, short(40))
    found["palette-missing.png"] = png(GREY, 8, 3)
    found["rgb-with-plte.png"] = png(COLOUR, 8, 2, palette)
    found["gamma.png"] = png(COLOUR, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000)))
    found["gamma-grey16.png"] = png(GREY16 // 200, 16, 0, chunk(b"gAMA", struct.pack(">I", 100000)))
    profile = zlib.compress(PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("XYZ")).tobytes())
    found["profile.png"] = png(COLOUR, 8, 2, chunk(b"iCCP", b"x\0\0" + profile))
    found["profile-damaged.png"] = png(COLOUR, 8, 2, chunk(b"iCCP", b"x\0\0" + b"no profile"))
    found["background.png"] = png(np.dstack([COLOUR, ALPHA]), 8, 6, chunk(b"bKGD", b"\0\xff\0\0\0\0"))
    found["sbit.png"] = png(GREY, 8, 0, chunk(b"sBIT", b"\x05"))
    found["one-pixel.png"] = png(COLOUR[:1, :1], 8, 2)
    found["one-column.png"] = png(COLOUR[:, :1], 8, 2, interlaced=True)
    plain = png(COLOUR, 8, 2)
    found["no-width.png"] = (
        plain[:16]
        + struct.pack(">I", 0)
        + plain[20:29]
        + struct.pack(">I", zlib.crc32(plain[12:16] + bytes(4) + plain[20:29]))
        + plain[33:]
    )
    found["no-iend.png"] = plain[:-12]
    found["iend-cut.png"] = plain[:-5]
    found["trailing.png"] = plain + b"more"
    at = plain.index(b"IDAT")
    found["idat-crc.png"] = plain[:-16] + b"\1\2\3\4" + plain[-12:]
    found["header-crc.png"] = plain[:29] + b"\1\2\3\4" + plain[33:]
    text = bytearray(png(COLOUR, 8, 2, chunk(b"tEXt", b"a\0b")))
    text[text.index(b"tEXt") + 7] ^= 1
    found["text-crc.png"] = bytes(text)
    found["header-only.png"] = plain[:33]
    for part in (0.3, 0.6, 0.9):
        found[f"cut-{int(part * 10)}.png"] = plain[: at + int((len(plain) - at) * part)]
    rows = zlib.compress(png_rows(COLOUR, 8))
    pieces = b"".join(chunk(b"IDAT", rows[i : i + 50]) for i in range(0, len(rows), 50))
    found["many-idat.png"] = plain[:33] + pieces + chunk(b"IEND", b"")
    found["checksum.png"] = plain[:33] + chunk(b"IDAT", rows[:-4] + b"\1\2\3\4") + chunk(b"IEND", b"")
    found["few-rows.png"] = plain[:33] + chunk(b"IDAT", zlib.compress(png_rows(COLOUR[:9], 8))) + chunk(b"IEND", b"")
    found["many-rows.png"] = (
        plain[:33] + chunk(b"IDAT", zlib.compress(png_rows(np.tile(COLOUR, (2, 1, 1)), 8))) + chunk(b"IEND", b"")
    )
    # An animation whose first frame is not the default picture, and one whose first frame is.
    control = chunk(b"acTL", struct.pack(">II", 1, 0))
    frame = lambda n: chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0))
    other = chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(png_rows(255 - COLOUR, 8)))
    found["animation-default-apart.png"] = png(COLOUR, 8, 2, control, after=frame(0) + other)
    found["animation.png"] = save(
        Image.fromarray(COLOUR), "PNG", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
    )
    return found


# --- GIF -------------------------------------------------------------------------------------------------------------


def lzw(indices, bits):
    """Codes of one length: the table is cleared before they would grow."""
    size, clear = bits + 1, 1 << bits
    codes = [clear]
    for i, value in enumerate(indices):
        if i and i % (clear - 2) == 0:
            codes.append(clear)
        codes.append(int(value))
    codes.append(clear + 1)
    total = sum(code << (i * size) for i, code in enumerate(codes))
    data = total.to_bytes((len(codes) * size + 7) // 8, "little")
    return bytes([bits]) + blocks(data)


def blocks(data):
    return b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255)) + b"\0"


def colours(bits, seed=1):
    return bytes((i * 37 * seed + c * 101) % 256 for i in range(1 << bits) for c in range(3))


GREYS = lambda bits: bytes(i for i in range(1 << bits) for _ in range(3))


def gif(frames, size=(WIDTH, HEIGHT), palette=colours(4), background=2, version=b"GIF89a", end=b";"):
    flags = 0 if palette is None else 0x80 | (len(palette) // 3).bit_length() - 2
    screen = struct.pack("<HHBBB", *size, flags, background, 0)
    return version + screen + (palette or b"") + b"".join(frames) + end


def frame(
    indices, at=(0, 0), palette=None, transparent=None, disposal=0, interlaced=False, bits=4, control=True, data=None
):
    height, width = indices.shape
    flags = (0 if palette is None else 0x80 | (len(palette) // 3).bit_length() - 2) | (0x40 if interlaced else 0)
    if interlaced:
        indices = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    packed = disposal << 2 | (transparent is not None)
    extension = b"!\xf9\4" + struct.pack("<BHB", packed, 5, transparent or 0) + b"\0" if control else b""
    coded = lzw(indices.reshape(-1), bits) if data is None else data
    return extension + b"," + struct.pack("<HHHHB", *at, width, height, flags) + (palette or b"") + coded


def gifs():
    indices = ((X // 2 + Y) % 16).astype(np.uint8)
    small = indices[:7, :9]
    found = {
        "plain.gif": gif([frame(indices, control=False)], version=b"GIF87a"),
        "transparent.gif": gif([frame(indices, transparent=5)]),
        "interlaced.gif": gif([frame(indices, interlaced=True)]),
        "interlaced-transparent.gif": gif([frame(indices, interlaced=True, transparent=0)]),
        "local-palette.gif": gif([frame(indices, palette=colours(4, 3), transparent=3)]),
        "only-local-palette.gif": gif([frame(indices, palette=colours(4, 3))], palette=None),
        "no-palette.gif": gif([frame(indices)], palette=None),
        "no-palette-offset.gif": gif([frame(small, at=(3, 4))], palette=None),
        "grey-palette.gif": gif([frame(indices)], palette=GREYS(4)),
        "grey-local-palette.gif": gif([frame(indices, palette=GREYS(4), transparent=7)]),
        "small-palette.gif": gif([frame(indices)], palette=colours(2)),
        "palette256.gif": gif([frame(GREY, bits=8, transparent=255)], palette=colours(8)),
        "two-colours.gif": gif([frame(indices % 2, bits=2, transparent=1)], palette=colours(1)),
        "offset.gif": gif([frame(small, at=(3, 4))]),
        "offset-transparent.gif": gif([frame(small, at=(3, 4), transparent=9)]),
        "offset-transparent-beyond.gif": gif([frame(small, at=(3, 4), transparent=200)]),
        "offset-dispose.gif": gif([frame(small, at=(3, 4), disposal=2), frame(indices[:3, :3])]),
        "offset-previous.gif": gif([frame(small, at=(3, 4), disposal=3), frame(indices[:3, :3])]),
        "frame-over-the-edge.gif": gif([frame(indices, at=(5, 2))]),
        "small-screen.gif": gif([frame(indices)], size=(4, 4)),
        "no-screen.gif": gif([frame(indices)], size=(0, 0)),
        "one-pixel.gif": gif([frame(indices[:1, :1], transparent=0)], size=(1, 1)),
        "no-frame-width.gif": gif([frame(indices[:, :0])]),
        "second-frame-damaged.gif": gif([frame(indices, transparent=1), b"!\xf9\4\0"]),
        "background-beyond.gif": gif([frame(small, at=(1, 1))], background=200),
        "two-controls.gif": gif([b"!\xf9\4\1\0\0\7\0", frame(small, at=(1, 1))]),
        "comment.gif": gif(
            [b"!\xfe" + blocks(b"a comment"), b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0", frame(indices, transparent=4)]
        ),
        "no-end.gif": gif([frame(indices)], end=b""),
        "no-picture.gif": gif([]),
        "bytes-between.gif": gif([b"\0\0", frame(indices)]),
        "size-bits-9.gif": gif([frame(indices, data=b"\x09" + blocks(b"\0" * 99))]),
        "few-pixels.gif": gif([frame(indices, data=lzw(indices[:9].reshape(-1), 4))]),
        "many-pixels.gif": gif([frame(indices, data=lzw(np.tile(indices, (2, 1)).reshape(-1), 4))]),
        "no-end-code.gif": gif([frame(indices, data=lzw(indices.reshape(-1), 4)[:-2] + b"\0")]),
        "animation.gif": save(
            Image.fromarray(COLOUR), "GIF", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
        ),
        "rgba.gif": save(Image.fromarray(np.dstack([COLOUR, ALPHA])), "GIF"),
    }
    whole = found["transparent.gif"]
    for part in (0.1, 0.4, 0.8):
        found[f"cut-{int(part * 10)}.gif"] = whole[: int(len(whole) * part)]
    found["last-byte-cut.gif"] = whole[:-1]
    found["last-block-cut.gif"] = whole[:-3]
    return found


# --- JPEG ------------------------------------------------------------------------------------------------------------


def without(content, marker):
    """A JPEG without its first segment of a kind."""
    at = content.index(b"\xff" + bytes([marker]))
    return content[:at] + content[at + 2 + struct.unpack(">H", content[at + 2 : at + 4])[0] :]


def jpegs():
    rgb, grey, cmyk = Image.fromarray(COLOUR), Image.fromarray(GREY), Image.fromarray(COLOUR).convert("CMYK")
    rng = np.random.default_rng(1)
    black = rng.integers(0, 255, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    inks = Image.fromarray(black // 2 + np.dstack([COLOUR, GREY]) // 2, "CMYK")
    exif = Image.Exif()
    exif[0x112] = 6
    wide = Image.fromarray(np.tile(COLOUR, (2, 2, 1)))
    found = {
        "444.jpg": save(rgb, "JPEG", subsampling=0),
        "422.jpg": save(rgb, "JPEG", subsampling=1),
        "420.jpg": save(rgb, "JPEG"),
        "411.jpg": imagecodecs.jpeg8_encode(COLOUR, subsampling="411"),
        "440.jpg": imagecodecs.jpeg8_encode(COLOUR, subsampling="440"),
        "progressive.jpg": save(rgb, "JPEG", progressive=True),
        "restart.jpg": save(wide, "JPEG", restart_marker_blocks=2),
        "grey.jpg": save(grey, "JPEG"),
        "grey-progressive.jpg": save(grey, "JPEG", progressive=True),
        "rgb-kept.jpg": save(rgb, "JPEG", keep_rgb=True),
        "quality-100.jpg": save(rgb, "JPEG", quality=100),
        "exif.jpg": save(rgb, "JPEG", exif=exif),
        "one-pixel.jpg": save(rgb.crop((0, 0, 1, 1)), "JPEG"),
        "cmyk.jpg": save(inks, "JPEG", quality=95),
        "cmyk-of-rgb.jpg": save(cmyk, "JPEG"),
        "mpo.jpg": save(rgb, "MPO", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
        "profile.jpg": save(
            rgb, "JPEG", icc_profile=PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("XYZ")).tobytes()
        ),
    }
    for name in ("cmyk", "rgb-kept"):
        adobe = bytearray(found[f"{name}.jpg"])
        transform = adobe.index(b"Adobe") + 11
        for value in (0, 1, 2):
            adobe[transform] = value
            found[f"{name}-transform-{value}.jpg"] = bytes(adobe)
        found[f"{name}-no-adobe.jpg"] = without(found[f"{name}.jpg"], 0xEE)
    found["no-jfif.jpg"] = without(found["444.jpg"], 0xE0)
    found["twelve-bit.jpg"] = (
        imagecodecs.jpeg12_encode((GREY16 // 16).astype(np.uint16))
        if hasattr(imagecodecs, "jpeg12_encode")
        else b"\xff\xd8\xff"
    )
    found["trailing.jpg"] = found["420.jpg"] + b"more"
    wides = {
        "wide": save(wide, "JPEG"),
        "wide-progressive": save(wide, "JPEG", progressive=True),
        "wide-grey": save(wide.convert("L"), "JPEG"),
        "wide-restart": save(wide, "JPEG", restart_marker_rows=1),
        "wide-444": save(wide, "JPEG", subsampling=0),
    }
    for name, content in wides.items():
        scan = content.index(b"\xff\xda")
        for part in (0.05, 0.3, 0.6, 0.9, 0.98):
            at = scan + int((len(content) - scan) * part)
            found[f"{name}-cut-{int(part * 100)}.jpg"] = content[:at]
            found[f"{name}-ends-early-{int(part * 100)}.jpg"] = content[:at] + b"\xff\xd9"
        for cut in (1, 2, 3, 4, 6, 10, 20):
            found[f"{name}-less-{cut}.jpg"] = content[:-cut]
        found[f"{name}-scan-missing.jpg"] = content[:scan]
        for at in (0.2, 0.5, 0.8):
            damaged = bytearray(content)
            place = scan + 14 + int((len(content) - scan - 16) * at)
            damaged[place : place + 4] = b"\x12\x34\x56\x78"
            found[f"{name}-damaged-{int(at * 10)}.jpg"] = bytes(damaged)
            damaged[place : place + 2] = b"\xff\xd9"
            found[f"{name}-end-within-{int(at * 10)}.jpg"] = bytes(damaged)
    # A file with a restart mark after each block has a warning for each that is missing.
    many = save(Image.fromarray(np.tile(COLOUR, (12, 12, 1))), "JPEG", subsampling=0, restart_marker_blocks=1)
    found["restarts-end-early.jpg"] = many[: many.index(b"\xff\xda") + 500] + b"\xff\xd9"
    found["header-only.jpg"] = found["420.jpg"][:100]
    return found


# --- WebP ------------------------------------------------------------------------------------------------------------


def riff(kind, data):
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webps():
    rgb, rgba = Image.fromarray(COLOUR), Image.fromarray(np.dstack([COLOUR, ALPHA]))
    found = {
        "lossy.webp": save(rgb, "WEBP"),
        "lossless.webp": save(rgb, "WEBP", lossless=True),
        "alpha-lossy.webp": save(rgba, "WEBP"),
        "alpha-lossless.webp": save(rgba, "WEBP", lossless=True),
        "alpha-exact.webp": save(rgba, "WEBP", lossless=True, exact=True),
        "grey.webp": save(Image.fromarray(GREY), "WEBP", lossless=True),
        "one-pixel.webp": save(rgb.crop((0, 0, 1, 1)), "WEBP"),
        "profile.webp": save(
            rgb,
            "WEBP",
            lossless=True,
            icc_profile=PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("XYZ")).tobytes(),
        ),
        "animation.webp": save(
            rgb, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
        ),
        "animation-alpha.webp": save(
            rgba, "WEBP", lossless=True, exact=True, save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
        ),
        "animation-lossy.webp": save(rgba, "WEBP", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
    }
    u24 = lambda n: struct.pack("<I", n)[:3]
    for name, picture, alpha in (("opaque", COLOUR, 0), ("alpha", np.dstack([COLOUR, ALPHA]), 1)):
        inner = save(Image.fromarray(picture[:8, :10]), "WEBP", lossless=True, exact=True)[12:]
        for blend in (0, 2):
            anmf = riff(b"ANMF", u24(2) + u24(1) + u24(9) + u24(7) + u24(100) + bytes([blend]) + inner)
            body = (
                riff(b"VP8X", bytes([2 | alpha << 4, 0, 0, 0]) + u24(WIDTH - 1) + u24(HEIGHT - 1))
                + riff(b"ANIM", b"\x10\x20\x30\xff\0\0")
                + anmf
                + anmf
            )
            found[f"animation-offset-{name}-{blend}.webp"] = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    for name in ("lossy", "lossless", "alpha-lossy", "animation"):
        whole = found[f"{name}.webp"]
        for part in (0.2, 0.6, 0.95):
            found[f"{name}-cut-{int(part * 100)}.webp"] = whole[: int(len(whole) * part)]
        found[f"{name}-trailing.webp"] = whole + b"more"
    return found


# --- BMP -------------------------------------------------------------------------------------------------------------


def bmp(
    rows,
    width,
    height,
    bits,
    compression=0,
    palette=b"",
    masks=b"",
    header=40,
    colours=0,
    offset=None,
    size=None,
    pad=b"",
):
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", header, width, height, 1, bits, compression, len(rows), 2835, 2835, colours, 0
        )
        info += (masks + bytes(200))[: header - 40] if header > 40 else masks
    place = 14 + len(info) + len(palette) + len(pad) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", place + len(rows), 0, 0, place) + info + palette + pad + rows


def bmp_rows(samples, bits, up=True):
    rows = []
    for row in samples[::-1] if up else samples:
        flat = row.reshape(-1)
        if bits >= 8:
            data = row.tobytes()
        else:
            values = (flat[:, None] >> np.arange(bits - 1, -1, -1)) & 1
            data = np.packbits(values.reshape(-1).astype(np.uint8)).tobytes()
        rows.append(data + b"\0" * (-len(data) % 4))
    return b"".join(rows)


def bmps():
    rgb = Image.fromarray(COLOUR)
    found = {
        "rgb.bmp": save(rgb, "BMP"),
        "grey.bmp": save(Image.fromarray(GREY), "BMP"),
        "bilevel.bmp": save(rgb.convert("1"), "BMP"),
        "palette.bmp": save(rgb.convert("P"), "BMP"),
        "rgba.bmp": save(Image.fromarray(np.dstack([COLOUR, ALPHA])), "BMP"),
    }
    bgr = np.ascontiguousarray(COLOUR[..., ::-1])
    four = np.dstack([bgr, ALPHA])
    w, h = WIDTH, HEIGHT
    entries = lambda n, k=4: bytes((i * 37 + c * 101) % 256 if c < 3 else 0 for i in range(n) for c in range(k))
    for bits in (1, 2, 4, 8):
        found[f"palette{bits}.bmp"] = bmp(bmp_rows(GREY >> (8 - bits), bits), w, h, bits, palette=entries(1 << bits))
        found[f"palette{bits}-top-down.bmp"] = bmp(
            bmp_rows(GREY >> (8 - bits), bits, False), w, -h, bits, palette=entries(1 << bits)
        )
        found[f"palette{bits}-os2.bmp"] = bmp(
            bmp_rows(GREY >> (8 - bits), bits), w, h, bits, palette=entries(1 << bits, 3), header=12
        )
        greys = bytes(v for i in range(1 << bits) for v in (i * 255 // ((1 << bits) - 1),) * 3 + (0,))
        found[f"grey{bits}.bmp"] = bmp(bmp_rows(GREY >> (8 - bits), bits), w, h, bits, palette=greys)
        found[f"ramp{bits}.bmp"] = bmp(
            bmp_rows(GREY >> (8 - bits), bits),
            w,
            h,
            bits,
            palette=bytes(v for i in range(1 << bits) for v in (i, i, i, 0)),
        )
    found["palette8-few.bmp"] = bmp(bmp_rows(GREY, 8), w, h, 8, palette=entries(20), colours=20)
    found["palette8-two.bmp"] = bmp(bmp_rows(GREY % 2, 8), w, h, 8, palette=b"\0\0\0\0\xff\xff\xff\0", colours=2)
    found["palette8-two-others.bmp"] = bmp(bmp_rows(GREY, 8), w, h, 8, palette=b"\0\0\0\0\xff\xff\xff\0", colours=2)
    found["palette8-300.bmp"] = bmp(bmp_rows(GREY, 8), w, h, 8, palette=entries(300), colours=300)
    found["palette4-swapped.bmp"] = bmp(bmp_rows(GREY >> 7, 1), w, h, 1, palette=b"\xff\xff\xff\0\0\0\0\0", colours=2)
    found["palette8-gap.bmp"] = bmp(bmp_rows(GREY, 8), w, h, 8, palette=entries(256), pad=b"12345678")
    found["palette8-offset-0.bmp"] = bmp(bmp_rows(GREY, 8), w, h, 8, palette=entries(256), offset=0)
    found["palette8-offset-early.bmp"] = bmp(bmp_rows(GREY, 8), w, h, 8, palette=entries(256), offset=54)
    for bits in (16, 24, 32):
        word = (
            (COLOUR[..., 0] >> 3).astype(np.uint16) << 10
            | (COLOUR[..., 1] >> 3).astype(np.uint16) << 5
            | COLOUR[..., 2] >> 3
        ).astype("<u2")
        data = {16: word, 24: bgr, 32: four}[bits]
        raw = lambda up=True: bmp_rows(np.ascontiguousarray(data).view(np.uint8).reshape(h, w, -1), 8, up)
        found[f"rgb{bits}.bmp"] = bmp(raw(), w, h, bits)
        found[f"rgb{bits}-top-down.bmp"] = bmp(raw(False), w, -h, bits)
        for header in (12, 52, 56, 64, 108, 124):
            found[f"rgb{bits}-header{header}.bmp"] = bmp(raw(), w, h, bits, header=header)
        for number, masks in enumerate(
            (
                (0xF800, 0x7E0, 0x1F, 0),
                (0x7C00, 0x3E0, 0x1F, 0),
                (0xFF0000, 0xFF00, 0xFF, 0),
                (0xFF000000, 0xFF0000, 0xFF00, 0),
                (0xFF000000, 0xFF00, 0xFF, 0),
                (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
                (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
                (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
                (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
                (0, 0, 0, 0),
                (0xF00, 0xF0, 0xF, 0xF000),
            )
        ):
            coded = struct.pack("<IIII", *masks)
            found[f"rgb{bits}-masks{number}.bmp"] = bmp(raw(), w, h, bits, 3, masks=coded, header=124)
            if masks[3] == 0:
                found[f"rgb{bits}-masks{number}-after.bmp"] = bmp(raw(), w, h, bits, 3, masks=coded[:12])

    def rle8(samples):
        out = b""
        for row in samples[::-1]:
            i = 0
            while i < len(row):
                n = 1
                while i + n < len(row) and row[i + n] == row[i]:
                    n += 1
                out += bytes([n, row[i]])
                i += n
            out += b"\0\0"
        return out + b"\0\1"

    steps = GREY // 40 * 40
    rle = rle8(steps)
    found["rle8.bmp"] = bmp(rle, w, h, 8, 1, palette=entries(256))
    found["rle8-grey.bmp"] = bmp(rle, w, h, 8, 1, palette=bytes(v for i in range(256) for v in (i, i, i, 0)))
    found["rle8-top-down.bmp"] = bmp(rle, w, -h, 8, 1, palette=entries(256))
    found["rle8-no-end.bmp"] = bmp(rle[:-2], w, h, 8, 1, palette=entries(256))
    found["rle8-cut.bmp"] = bmp(rle[: len(rle) // 2], w, h, 8, 1, palette=entries(256))
    absolute = b"".join(b"\0" + bytes([w]) + row.tobytes() + b"\0" * (w % 2) + b"\0\0" for row in GREY[::-1]) + b"\0\1"
    found["rle8-absolute.bmp"] = bmp(absolute, w, h, 8, 1, palette=entries(256))
    found["rle8-delta.bmp"] = bmp(b"\5\7\0\2\3\2\4\x09\0\0" + rle, w, h, 8, 1, palette=entries(256))
    found["rle8-delta-far.bmp"] = bmp(b"\5\7\0\2\3\xc8\4\x09\0\0" + rle, w, h, 8, 1, palette=entries(256))
    found["rle8-long-run.bmp"] = bmp(b"\xff\7\0\0\5\3" + rle, w, h, 8, 1, palette=entries(256))
    found["rle8-ends-early.bmp"] = bmp(rle[:60] + b"\0\1", w, h, 8, 1, palette=entries(256))
    found["rle8-bits4.bmp"] = bmp(rle, w, h, 4, 1, palette=entries(16))
    found["rle8-rgb.bmp"] = bmp(rle, w, h, 24, 1)
    rle4 = b"".join(bytes([w, int(row[0]) // 16 << 4 | int(row[-1]) // 16]) + b"\0\0" for row in GREY[::-1]) + b"\0\1"
    found["rle4.bmp"] = bmp(rle4, w, h, 4, 2, palette=entries(16))
    absolute4 = (
        b"".join(
            b"\0"
            + bytes([w])
            + np.packbits((((row >> 4)[:, None] >> np.arange(3, -1, -1)) & 1).reshape(-1).astype(np.uint8)).tobytes()
            + b"\0\0"
            for row in GREY[::-1]
        )
        + b"\0\1"
    )
    found["rle4-absolute.bmp"] = bmp(absolute4, w, h, 4, 2, palette=entries(16))
    found["rle4-grey.bmp"] = bmp(rle4, w, h, 4, 2, palette=bytes(v for i in range(16) for v in (i, i, i, 0)))
    found["rle8-bilevel.bmp"] = bmp(rle8(GREY % 3), w, h, 8, 1, palette=b"\0\0\0\0\xff\xff\xff\0", colours=2)
    found["one-pixel.bmp"] = save(rgb.crop((0, 0, 1, 1)), "BMP")
    found["no-width.bmp"] = bmp(b"", 0, h, 24)
    found["no-height.bmp"] = bmp(b"", w, 0, 24)
    found["negative-width.bmp"] = bmp(bmp_rows(bgr, 8), -w, h, 24)
    found["jpeg-within.bmp"] = bmp(save(rgb, "JPEG"), w, h, 0, 4)
    found["bits3.bmp"] = bmp(b"\0" * 999, w, h, 3)
    found["header41.bmp"] = bmp(bmp_rows(bgr, 8), w, h, 24, header=41)
    found["rows-cut.bmp"] = found["rgb.bmp"][:-100]
    found["last-padding-cut.bmp"] = found["rgb24.bmp"][:-3]
    found["last-byte-cut.bmp"] = found["rgb24.bmp"][:-4]
    found["palette-cut.bmp"] = found["palette.bmp"][:300]
    found["header-cut.bmp"] = found["rgb.bmp"][:40]
    found["trailing.bmp"] = found["rgb.bmp"] + b"more"
    found["offset-far.bmp"] = bmp(bmp_rows(bgr, 8), w, h, 24, offset=10**6)
    return found


# --- TIFF ------------------------------------------------------------------------------------------------------------


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def tiffs():
    rgb, rgba, grey = Image.fromarray(COLOUR), Image.fromarray(np.dstack([COLOUR, ALPHA])), Image.fromarray(GREY)
    inks = Image.fromarray(np.dstack([COLOUR, GREY // 2]), "CMYK")
    found = {}
    for name, image in (
        ("rgb", rgb),
        ("rgba", rgba),
        ("grey", grey),
        ("bilevel", rgb.convert("1")),
        ("palette", rgb.convert("P")),
        ("cmyk", inks),
        ("grey-alpha", Image.fromarray(np.dstack([GREY, ALPHA]), "LA")),
        ("float", Image.fromarray(GREY.astype(np.float32) * 1.3 - 20.5)),
        ("int32", Image.fromarray(GREY.astype(np.int32) * 3 - 100)),
        ("grey16", Image.fromarray(GREY16)),
        ("grey16-small", Image.fromarray(GREY16 // 200)),
        ("lab", rgb.convert("LAB")),
        ("ycbcr", rgb.convert("YCbCr")),
    ):
        found[f"{name}.tif"] = save(image, "TIFF")
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
            found[f"{name}-{compression}.tif"] = save(image, "TIFF", compression=compression)
    found["rgb-jpeg.tif"] = save(rgb, "TIFF", compression="jpeg")
    found["grey-jpeg.tif"] = save(grey, "TIFF", compression="jpeg")
    for compression in ("group3", "group4", "tiff_ccitt"):
        found[f"bilevel-{compression}.tif"] = save(rgb.convert("1"), "TIFF", compression=compression)
    found["rgb-zstd.tif"] = tiff(COLOUR, photometric="rgb", compression="zstd")
    found["rgb-webp.tif"] = tiff(COLOUR, photometric="rgb", compression="webp")
    found["rgb-lzma.tif"] = tiff(COLOUR, photometric="rgb", compression="lzma")
    found["pages.tif"] = save(rgb, "TIFF", save_all=True, append_images=[Image.fromarray(255 - COLOUR)])
    four = np.dstack([COLOUR, ALPHA])
    for order in "<>":
        side = "little" if order == "<" else "big"
        for compression in (None, "lzw", "zlib"):
            tag = f"{side}-{compression or 'raw'}"
            options = dict(byteorder=order, compression=compression)
            found[f"grey16-{tag}.tif"] = tiff(GREY16, photometric="minisblack", **options)
            found[f"grey16-white-{tag}.tif"] = tiff(GREY16, photometric="miniswhite", **options)
            found[f"grey8-white-{tag}.tif"] = tiff(GREY, photometric="miniswhite", **options)
            found[f"rgb16-{tag}.tif"] = tiff(COLOUR16, photometric="rgb", **options)
            found[f"rgba16-{tag}.tif"] = tiff(
                np.dstack([COLOUR16, GREY16]), photometric="rgb", extrasamples=["unassalpha"], **options
            )
            found[f"float-{tag}.tif"] = tiff(
                (GREY * 1.7 - 30.2).astype(np.float32), photometric="minisblack", **options
            )
            found[f"float-rgb-{tag}.tif"] = tiff((COLOUR / 255).astype(np.float32), photometric="rgb", **options)
            found[f"double-{tag}.tif"] = tiff(GREY.astype(np.float64), photometric="minisblack", **options)
            found[f"int8-{tag}.tif"] = tiff(GREY.view(np.int8), photometric="minisblack", **options)
            found[f"int16-{tag}.tif"] = tiff(
                (GREY16.astype(np.int32) // 50 - 300).astype(np.int16), photometric="minisblack", **options
            )
            found[f"uint32-{tag}.tif"] = tiff(GREY16.astype(np.uint32) // 100, photometric="minisblack", **options)
            found[f"int32-{tag}.tif"] = tiff(GREY16.astype(np.int32) // 50 - 300, photometric="minisblack", **options)
            found[f"planar-rgb-{tag}.tif"] = tiff(
                np.ascontiguousarray(COLOUR.transpose(2, 0, 1)), photometric="rgb", planarconfig="separate", **options
            )
            found[f"planar-rgba-{tag}.tif"] = tiff(
                np.ascontiguousarray(four.transpose(2, 0, 1)),
                photometric="rgb",
                planarconfig="separate",
                extrasamples=["unassalpha"],
                **options,
            )
            found[f"planar-rgb16-{tag}.tif"] = tiff(
                np.ascontiguousarray(COLOUR16.transpose(2, 0, 1)), photometric="rgb", planarconfig="separate", **options
            )
            found[f"tiles-{tag}.tif"] = tiff(COLOUR, photometric="rgb", tile=(16, 16), **options)
            found[f"tiles-planar-{tag}.tif"] = tiff(
                np.ascontiguousarray(COLOUR.transpose(2, 0, 1)),
                photometric="rgb",
                planarconfig="separate",
                tile=(16, 16),
                **options,
            )
            found[f"tiles-grey16-{tag}.tif"] = tiff(GREY16, photometric="minisblack", tile=(16, 16), **options)
            found[f"strips-{tag}.tif"] = tiff(COLOUR, photometric="rgb", rowsperstrip=5, **options)
            found[f"cmyk16-{tag}.tif"] = tiff(np.dstack([COLOUR16, GREY16]), photometric="separated", **options)
            found[f"associated-{tag}.tif"] = tiff(four // 2, photometric="rgb", extrasamples=["assocalpha"], **options)
            found[f"extra-{tag}.tif"] = tiff(four, photometric="rgb", extrasamples=["unspecified"], **options)
            found[f"grey-extra-{tag}.tif"] = tiff(
                np.dstack([GREY, ALPHA]),
                photometric="minisblack",
                extrasamples=["unspecified"],
                planarconfig="contig",
                **options,
            )
            found[f"five-{tag}.tif"] = tiff(
                np.dstack([four, ALPHA]), photometric="rgb", extrasamples=["unassalpha", "unspecified"], **options
            )
            found[f"bigtiff-{tag}.tif"] = tiff(COLOUR, photometric="rgb", bigtiff=True, **options)
            found[f"palette16-{tag}.tif"] = tiff(
                GREY, photometric="palette", colormap=rng.integers(0, 65535, (3, 256)).astype(np.uint16), **options
            )
            if compression:
                for predictor, array in ((2, COLOUR), (2, GREY16), (3, (GREY * 1.7 - 30.2).astype(np.float32))):
                    found[f"predictor{predictor}-{array.dtype}-{tag}.tif"] = tiff(
                        array, photometric="rgb" if array.ndim == 3 else "minisblack", predictor=predictor, **options
                    )
    # Low bit depths, which tifffile packs.
    for bits in (1, 2, 4):
        values = (GREY >> (8 - bits)).astype(np.uint8)
        packed = np.stack(
            [
                np.packbits((((row)[:, None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(-1).astype(np.uint8))
                for row in values
            ]
        )
        for photometric in (0, 1, 3):
            found[f"bits{bits}-photometric{photometric}.tif"] = plain_tiff(packed.tobytes(), bits, photometric)
    for fill in (1, 2):
        found[f"fill-order{fill}.tif"] = plain_tiff(
            np.stack([np.packbits(row > 100) for row in GREY]).tobytes(), 1, 1, fill=fill
        )
    for orientation in range(1, 9):
        found[f"orientation{orientation}.tif"] = plain_tiff(GREY.tobytes(), 8, 1, orientation=orientation)
    found["twelve-bit.tif"] = plain_tiff(b"\x12\x34\x56" * (HEIGHT * 12), 12, 1)
    found["one-pixel.tif"] = save(rgb.crop((0, 0, 1, 1)), "TIFF")
    whole = found["rgb.tif"]
    lzw_whole = found["rgb-tiff_lzw.tif"]
    for part in (0.1, 0.5, 0.95):
        found[f"cut-{int(part * 100)}.tif"] = whole[: int(len(whole) * part)]
        found[f"lzw-cut-{int(part * 100)}.tif"] = lzw_whole[: int(len(lzw_whole) * part)]
    return found


def plain_tiff(data, bits, photometric, fill=1, orientation=1):
    tags = [
        (256, 3, 1, WIDTH),
        (257, 3, 1, HEIGHT),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (266, 3, 1, fill),
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, 1),
        (278, 3, 1, HEIGHT),
        (279, 4, 1, len(data)),
    ]
    map_at = 8 + len(data) + (len(data) % 2)
    colour_map = (
        b"".join(struct.pack("<H", (i * 9001 + c * 20000) % 65536) for c in range(3) for i in range(1 << bits))
        if photometric == 3
        else b""
    )
    if colour_map:
        tags.append((320, 3, 3 << bits, map_at))
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return (
        b"II*\0" + struct.pack("<I", map_at + len(colour_map)) + data + b"\0" * (len(data) % 2) + colour_map + directory
    )


# --- AVIF ------------------------------------------------------------------------------------------------------------


def avifs():
    big = Image.fromarray(np.tile(COLOUR, (2, 2, 1)))
    smooth = Image.fromarray(
        (
            np.stack(np.meshgrid(np.arange(48), np.arange(40)), -1).sum(-1, keepdims=True) * np.array([2.8, 1.9, 0.7])
            + [0, 20, 120]
        ).astype(np.uint8)
    )
    alpha = smooth.copy()
    alpha.putalpha(smooth.getchannel(0))
    found = {}
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0"):
        for span in ("full", "limited"):
            tag = f"{subsampling.replace(':', '')}-{span}"
            found[f"smooth-{tag}.avif"] = save(smooth, "AVIF", subsampling=subsampling, range=span, quality=90)
            found[f"sharp-{tag}.avif"] = save(big, "AVIF", subsampling=subsampling, range=span, quality=90)
    found["lossless.avif"] = save(big, "AVIF", subsampling="4:4:4", quality=100)
    found["alpha.avif"] = save(alpha, "AVIF", quality=90)
    found["alpha-premultiplied.avif"] = save(alpha, "AVIF", quality=90, alpha_premultiplied=True)
    found["animation.avif"] = save(
        smooth, "AVIF", save_all=True, append_images=[smooth.transpose(Image.Transpose.ROTATE_180)], quality=90
    )
    found["grey.avif"] = save(smooth.convert("L"), "AVIF", quality=90)
    exif = Image.Exif()
    exif[0x112] = 6
    found["orientation-6.avif"] = save(smooth, "AVIF", exif=exif, quality=90)
    found["one-pixel.avif"] = save(smooth.crop((0, 0, 1, 1)), "AVIF")
    deep = np.asarray(smooth).astype(np.uint16)
    for bits in (10, 12):
        values = deep * (1 << (bits - 8)) + (np.arange(48)[None, :, None] % (1 << (bits - 8))).astype(np.uint16)
        found[f"{bits}-bit.avif"] = imagecodecs.avif_encode(values, level=95, bitspersample=bits, pixelformat="444")
        found[f"{bits}-bit-420.avif"] = imagecodecs.avif_encode(values, level=95, bitspersample=bits, pixelformat="420")
        found[f"{bits}-bit-alpha.avif"] = imagecodecs.avif_encode(
            np.dstack([values, values[..., :1]]), level=95, bitspersample=bits, pixelformat="444"
        )
    whole = found["smooth-420-full.avif"]
    for part in (0.2, 0.6, 0.95):
        found[f"cut-{int(part * 100)}.avif"] = whole[: int(len(whole) * part)]
    return found


# Files that are read otherwise here, on purpose.
OTHERWISE = "|".join(
    (
        r"palette-missing\.png",
        r"lab.*\.tif",
        r"rgb-(zstd|lzma)\.tif",
        r"tiles-planar-.*",
        r"twelve-bit\.tif",  # refused
        r"(header|text)-crc\.png",
        r"rgb-webp\.tif",
        r"(grey16-white|uint32|bigtiff)-big-.*",  # Pillow refuses them
        r"planar-rgb16-.*-raw\.tif",
        r"(float|int16|int32)-big-(lzw|zlib)\.tif",
        r"predictor3-float32-big.*",  # Pillow swaps bytes wrongly
        r"ycbcr.*\.tif",  # Pillow writes other subsampling than it declares
    )
)


def opened(content):
    image = Image.open(io.BytesIO(content))
    mode, kind = image.mode, image.format
    return image.convert("RGB"), f"{kind} {mode}"


def main():
    decoded = {}
    for name, content in (pngs() | gifs() | jpegs() | webps() | bmps() | tiffs() | avifs()).items():
        if re.fullmatch(OTHERWISE, name):
            continue
        entry = {"bytes": base64.b64encode(content).decode()}
        try:
            image, kind = opened(content)
            entry |= {
                "kind": kind,
                "width": image.width,
                "height": image.height,
                "rgb": base64.b64encode(image.tobytes()).decode(),
            }
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {error}"
        decoded[name] = entry
    with open(OUT, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
        file.write(json.dumps({"pillow": PIL.__version__, "decoded": decoded}).encode())
    print(OUT, OUT.stat().st_size, len(decoded), "files")


if __name__ == "__main__":
    main()
