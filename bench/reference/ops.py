"""Nanoseconds of one small operation through Python, one thread: the counterpart of bench/ops.ts. Prints one line of JSON."""
import json
import platform
import statistics
import time

import torch

CALLS, BATCHES = 2000, 60


def measure(name, call):
    times = []
    for i in range(BATCHES + 10):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        if i >= 10:
            times.append((time.perf_counter() - start) * 1e9 / CALLS)
    return {"name": name, "nanoseconds": {"median": statistics.median(times), "min": min(times), "max": max(times), "samples": len(times)}}


torch.set_num_threads(1)
x, y, w = torch.randn(4), torch.randn(4), torch.randn(4, requires_grad=True)
rows = [
    measure("Python: x + y", lambda: x + y),
    measure("Python: x.add_(y)", lambda: x.add_(y)),
    measure("Python: x + 1", lambda: x + 1),
    measure("Python: w + y, recording gradients", lambda: w + y),
    measure("Python: x.view(2, 2)", lambda: x.view(2, 2)),
]
print(json.dumps({"rows": rows, "versions": {"python": platform.python_version(), "reference torch": torch.__version__}}))
