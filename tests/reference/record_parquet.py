"""Writes small Parquet tables with pictures in them, as Hugging Face's datasets and others do (tests/reference/README.md).

pip install numpy pyarrow pillow
python tests/reference/record_parquet.py
"""

import decimal, io, pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OUT = pathlib.Path(__file__).parents[2] / "packages/miro/src/data/preprocess/sources/fixtures/parquet"


def picture(number, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (number * 30, 200 - number * 20, 90)).save(buffer, kind)
    return buffer.getvalue()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = b'{"info": {"features": {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}}}'
    schema = pa.schema(
        [("image", image), ("text", pa.string()), ("year", pa.int64())], metadata={"huggingface": features}
    )
    for part in range(2):
        rows = [
            {
                "image": {"bytes": picture(3 * part), "path": f"red {part}.png"},
                "text": f"a red thing {part}",
                "year": 1990 + part,
            },
            {
                "image": {"bytes": picture(3 * part + 1, "BMP"), "path": None},
                "text": f"a green thing {part}",
                "year": None,
            },
            {
                "image": {"bytes": picture(3 * part + 2, "GIF"), "path": f"red {part}.png"},
                "text": f"a third thing {part}",
                "year": 2000,
            },
            {"image": None, "text": "no picture", "year": 1},
            {"image": {"bytes": b"no picture", "path": "a.png"}, "text": "damaged", "year": 2},
        ]
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(
            table,
            OUT / f"train-0000{part}-of-00002.parquet",
            compression="snappy",
            row_group_size=2,
            store_schema=False,
        )
    bare = pa.table({"image": [picture(1), picture(2)], "caption": ["one", "two"]})
    pq.write_table(bare, OUT.parent / "bytes.parquet", compression="zstd", store_schema=False)
    numbers()
    encodings()


def encodings():
    """Every third cell is empty; a page of each version in every encoding, compressed by each method."""
    count = 100
    hole = lambda values: [None if i % 3 == 0 else value for i, value in enumerate(values)]
    table = pa.table(
        {
            "image": [f"pictures/{i:04}.png" for i in range(count)],
            "caption": hole([f"number {i}" for i in range(count)]),
            "int": pa.array(hole([i * i for i in range(count)]), pa.int32()),
            "long": pa.array(hole([i**5 for i in range(count)]), pa.int64()),
            "float": pa.array(hole([i / 4 for i in range(count)]), pa.float32()),
            "flag": hole([i % 2 == 0 for i in range(count)]),
            "none": pa.nulls(count, pa.string()),
            "list": pa.array(hole([[i] * (i % 3) for i in range(count)]), pa.list_(pa.int32())),
        }
    )
    chosen = {
        **{"image": "DELTA_BYTE_ARRAY", "caption": "DELTA_LENGTH_BYTE_ARRAY", "int": "DELTA_BINARY_PACKED"},
        **{"long": "DELTA_BINARY_PACKED", "float": "BYTE_STREAM_SPLIT", "flag": "RLE"},
    }
    for version in ["1.0", "2.0"]:
        options = {"data_page_version": version, "write_statistics": False, "store_schema": False, "row_group_size": 70}
        for codec in ["NONE", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4"]:
            path = OUT.parent / f"encodings/{codec.lower()}-{version[0]}.parquet"
            path.parent.mkdir(exist_ok=True)
            encoded = {"use_dictionary": False, "column_encoding": chosen} if codec in ("NONE", "ZSTD") else {}
            pq.write_table(table, path, compression=codec, **encoded, **options)


def numbers():
    """Whole numbers that are floats, and floats in lists, structs and maps."""
    kinds = [
        ("image", pa.string()),
        ("caption", pa.string()),
        ("double", pa.float64()),
        ("single", pa.float32()),
        ("half", pa.float16()),
        ("decimal", pa.decimal128(9, 2)),
        ("short", pa.int16()),
        ("long", pa.int64()),
        ("unsigned", pa.uint32()),
        ("list", pa.list_(pa.float64())),
        ("counts", pa.list_(pa.int32())),
        ("struct", pa.struct([("x", pa.float64()), ("n", pa.int32())])),
        ("structs", pa.list_(pa.struct([("x", pa.float64()), ("n", pa.int32())]))),
        ("map", pa.map_(pa.string(), pa.float64())),
    ]
    row = {
        "image": "a.png",
        "caption": "one",
        **{"double": 1.0, "single": 2.0, "half": np.float16(3), "decimal": decimal.Decimal("4.00")},
        **{"short": 5, "long": 2**60, "unsigned": 2**32 - 1, "list": [1.0, 0.5], "counts": [1, 2]},
        **{"struct": {"x": 1.0, "n": 1}, "structs": [{"x": 2.0, "n": 2}], "map": [("a", 1.0)]},
    }
    pq.write_table(pa.Table.from_pylist([row], pa.schema(kinds)), OUT.parent / "numbers.parquet", store_schema=False)


main()
