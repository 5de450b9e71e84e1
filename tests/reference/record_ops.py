"""Records what PyTorch computes for each line of ops.table.jsonl, and the engine's other reference values.

Run: python tests/reference/record_ops.py            (PyTorch 2.13, CPU)
Writes fixtures/ops.expected.jsonl (one line for each line of the table) and fixtures/engine.json.

Inputs are multiples of 1/64 (or 1/128, 1/256) made by a formula that the TypeScript test repeats: they are exact in
every floating dtype, so one float64 result serves them all, each within its own tolerance. Dtypes and memory formats
are named as in PyTorch, without `torch.`.
"""

import json
from pathlib import Path

import torch

HERE = Path(__file__).parent


def values(kind: str, index: int, count: int) -> list:
    """The `index`-th tensor of a case; mirrored by `inputValues` in packages/torch/src/testing/op-table.ts."""
    raw = [((i + 1) * (37 + 18 * index) + 11 * (index + 1)) % 251 - 125 for i in range(count)]
    if kind.startswith("index:"):
        return [(i * 7 + index * 3 + 1) % int(kind[6:]) for i in range(count)]
    return [
        {
            "any": lambda n: n / 64,
            "positive": lambda n: (abs(n) + 16) / 64,
            "nonzero": lambda n: (n + (16 if n >= 0 else -16)) / 64,
            "unit": lambda n: n / 128,
            "prob": lambda n: (n + 128) / 256,
            "bool": lambda n: n % 2 == 0,
            "int": lambda n: n % 11 - 5,
            "positiveInt": lambda n: n % 11 + 1,
            "special": lambda n: (float("inf"), float("-inf"), float("nan"), n / 64)[n % 4],
        }[kind](n)
        for n in raw
    ]


NAMED = {"float64": torch.float64, "uint8": torch.uint8, "channels_last": torch.channels_last}


def tensor(shape: list, kind: str, index: int) -> torch.Tensor:
    count = 1
    for size in shape:
        count *= size
    integer = kind.startswith("index:") or kind in ("int", "positiveInt")
    dtype = torch.bool if kind == "bool" else torch.int64 if integer else torch.float64
    return torch.tensor(values(kind, index, count), dtype=dtype).reshape(shape)


def arguments(case: dict) -> list:
    index = 0
    result = []
    for spec in case["args"]:
        if isinstance(spec, dict) and "t" in spec:
            result.append(tensor(spec["t"], spec.get("as", "any"), index))
            index += 1
        elif isinstance(spec, dict) and "ts" in spec:
            result.append([tensor(shape, spec.get("as", "any"), index + i) for i, shape in enumerate(spec["ts"])])
            index += len(spec["ts"])
        elif isinstance(spec, dict) and "f" in spec:
            result.append(float(spec["f"]))
        else:
            result.append(NAMED.get(spec, spec) if isinstance(spec, str) else spec)
    return result


def evaluate(case: dict) -> list[torch.Tensor]:
    name, _, overload = case["op"].removeprefix("aten::").partition(".")
    op = getattr(getattr(torch.ops.aten, name), overload or "default")
    positional, keyword = [], {}
    for argument, value in zip(op._schema.arguments, arguments(case)):
        if argument.kwarg_only:
            keyword[argument.name] = value
        else:
            positional.append(value)
    result = op(*positional, **keyword)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def record_table() -> None:
    lines = []
    for line in (HERE / "ops.table.jsonl").read_text().splitlines():
        case = json.loads(line)
        outputs = [{"shape": list(t.shape), "values": t.flatten().tolist()} for t in evaluate(case)]
        lines.append(json.dumps({"case": line, "outputs": outputs}))
    (HERE / "fixtures" / "ops.expected.jsonl").write_text("\n".join(lines) + "\n")


def flat(t: torch.Tensor) -> list:
    return t.detach().float().flatten().tolist()


def record_random() -> dict:
    """Draws of each distribution from a fixed seed, through the global generator and one of its own."""
    draws = {}
    torch.manual_seed(3407)
    draws["global"] = {
        "randn": flat(torch.randn(5)),
        "randn16": flat(torch.randn(3, 6)),
        "rand": flat(torch.rand(4)),
        "randint": torch.randint(-3, 90, (6,)).tolist(),
        "randperm": torch.randperm(9).tolist(),
        "normal": flat(torch.normal(1.5, 0.25, (4,))),
        "uniform_": flat(torch.empty(4).uniform_(-2, 3)),
        "bernoulli_": flat(torch.empty(8).bernoulli_(0.3)),
        "randn_double": torch.randn(3, dtype=torch.float64).tolist(),
        "randn_bfloat16": flat(torch.randn(17, dtype=torch.bfloat16)),
    }
    own = torch.Generator().manual_seed(2**40 + 7)
    draws["own"] = {"randn": flat(torch.randn(20, generator=own)), "rand": flat(torch.rand(3, generator=own))}
    return draws


def record_init() -> dict:
    """Values of `torch.nn.init` and of the layers' default initialisation."""
    init = torch.nn.init
    torch.manual_seed(11)
    functions = {
        "uniform": init.uniform_(torch.empty(5), -1, 2),
        "normal": init.normal_(torch.empty(5), 0.5, 0.02),
        "truncNormal": init.trunc_normal_(torch.empty(24), std=0.02),
        "truncNormalTight": init.trunc_normal_(torch.empty(24), mean=0.1, std=1.0, a=-1.0, b=1.2),
        "truncNormalTail": init.trunc_normal_(torch.empty(24), mean=0.0, std=1.0, a=1.0, b=2.0),
        "xavierUniform": init.xavier_uniform_(torch.empty(3, 4), gain=1.5),
        "xavierNormal": init.xavier_normal_(torch.empty(3, 4, 2)),
        "kaimingUniform": init.kaiming_uniform_(torch.empty(3, 4)),
        "kaimingNormal": init.kaiming_normal_(torch.empty(3, 4), a=0.2, mode="fan_out"),
    }
    torch.manual_seed(12)
    layers = {
        "linear": torch.nn.Linear(4, 3),
        "embedding": torch.nn.Embedding(5, 2),
        "conv": torch.nn.Conv2d(4, 6, (3, 2), groups=2),
        "convTranspose": torch.nn.ConvTranspose2d(4, 6, 2, groups=2),
        "layerNorm": torch.nn.LayerNorm(3),
        "linear2": torch.nn.Linear(5, 2, bias=False),
    }
    return {
        "functions": {name: flat(value) for name, value in functions.items()},
        "layers": {name: {key: flat(v) for key, v in layer.state_dict().items()} for name, layer in layers.items()},
    }


def record_optim() -> dict:
    """Three AdamW steps on two tensors with the gradients of a quadratic, and clipping."""
    params = [torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_(), torch.linspace(0.5, 2, 4).requires_grad_()]
    optimizer = torch.optim.AdamW(
        [{"params": [params[0]], "weight_decay": 0.1}, {"params": [params[1]], "lr": 0.05}], lr=0.01, betas=(0.8, 0.95)
    )
    trajectory = []
    for step in range(3):
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum() + (step + 1) * (params[1] ** 3).sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 5.0)
        optimizer.step()
        trajectory.append({"norm": norm.item(), "params": [flat(p) for p in params]})
    return {"adamw": trajectory}


if __name__ == "__main__":
    record_table()
    engine = {"torch": torch.__version__, "random": record_random(), "init": record_init(), "optim": record_optim()}
    (HERE / "fixtures" / "engine.json").write_text(json.dumps(engine, indent=1) + "\n")
