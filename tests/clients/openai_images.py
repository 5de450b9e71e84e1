"""The PyPI package openai against a running studio: python openai_images.py URL SIDE; prints one JSON object."""
import base64
import io
import json
import struct
import sys
import zlib

import openai

url, side = sys.argv[1], int(sys.argv[2])
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
extra = {"steps": 6, "guidanceScale": 1, "seed": 3, "rewardTargets": {"clip_score": 0.5}}


def png(channels, pixel):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + b"".join(pixel(x, y) for x in range(side)) for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


drawn = client.images.generate(prompt="a cat", n=2, size=f"{side}x{side}", extra_body=extra)
stream = client.images.generate(prompt="a cat", stream=True, partial_images=2, extra_body=extra)
types = [event.type for event in stream]
image = ("grey.png", io.BytesIO(png(3, lambda x, y: b"\x5a\x5a\x5a")), "image/png")
mask = ("mask.png", io.BytesIO(png(4, lambda x, y: bytes([255, 255, 255, 0 if x < side // 2 else 255]))), "image/png")
edited = client.images.edit(image=image, mask=mask, prompt="a cat", extra_body=extra)
try:
    client.images.generate(prompt="a cat", size="1024x1536")
    refused = None
except openai.BadRequestError as error:
    refused = [error.status_code, error.param, error.type]
print(json.dumps({
    "models": [model.id for model in client.models.list()],
    "pictures": [base64.b64decode(one.b64_json)[:4].hex() for one in drawn.data + edited.data],
    "seeds": [one.seed for one in drawn.data],
    "total": [drawn.usage.total_tokens, drawn.usage.input_tokens + drawn.usage.output_tokens],
    "types": types,
    "refused": refused,
}))
