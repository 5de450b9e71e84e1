"""Records an event file as TensorBoard's own record writer and protobufs make it, for packages/miro/src/training/logging/tensorboard.test.ts.

    pip install tensorboard
    python tests/reference/record_events.py packages/miro/src/training/fixtures/reference.tfevents
"""
import struct
import sys
import zlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1700000000.25


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def stored_png():
    """Two pixels, red and blue, deflated without compression: the same bytes with every zlib."""
    rows = b"\0\xff\0\0\0\0\xff"
    header = struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def scalars(step, **values):
    values = {tag.replace("__", "/"): value for tag, value in values.items()}
    return Event(wall_time=TIME, step=step, summary=Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values.items()]))


image = Summary.Image(height=1, width=2, colorspace=3, encoded_image_string=stored_png())
events = [
    Event(wall_time=TIME, step=300, file_version="brain.Event:2"),
    Event(wall_time=TIME, step=300, session_log=SessionLog(status=SessionLog.START)),
    scalars(300, train__loss=0.4123, grad_norm=1e-3),
    scalars(5_000_000_000, Größe=-2.5),
    Event(wall_time=TIME, step=301, summary=Summary(value=[Summary.Value(tag="samples/a cat", image=image)])),
]
with open(sys.argv[1], "wb") as file:
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    writer.flush()
print(stored_png().hex())
