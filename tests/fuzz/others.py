"""Hostile solutions, configurations and networks, each by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy

import invsolve
from invsolve.data.network_file import KEY, read_network
from tests.fuzz.datasets import TYPES

# Solutions.

COLUMNS = ("x", "x_initial", "loss", "loss_initial", "status", "iterations", "grad_norm", "example", "covariance")
VALUES: dict[str, Any] = {
    "NaN": np.full(4, np.nan),
    "infinite": np.full(4, np.inf),
    "negative": np.full(4, -5),
    "huge": np.full(4, 2**62),
    "short": np.ones(2),
    "empty": np.ones(0),
    "a number": 1.0,
    "text": ["a\x1b[2J", "b", "c", "d"],
    "in five dimensions": np.ones((4, 1, 1, 1, 1)),
    "wide": np.ones((4, 7)),
    "77": np.full(4, 77, np.int8),
}
ATTRIBUTES: dict[str, Any] = {
    "a number": 3,
    "NaN": np.nan,
    "numbers": np.arange(3.0),
    "negative": -1.0,
    "text": "\x1b[2J\n[bold]x",
    "nested": '{"a":' * 100_000 + "}" * 100_000,
    "texts": ["a", "b"],
    "infinite JSON": '{"a": {"b": 1e999, "c": NaN}}',
    "nothing": h5py.Empty("f8"),
}
NAMED = ("model", "method", "seconds", "seed", "chosen", "model_options", "input_sha256", "network", "prior")

SolutionChange = Callable[[h5py.File, Path], None]
SOLUTIONS: dict[str, SolutionChange] = {}


def _put(key: str, value: Any) -> SolutionChange:
    def change(file: h5py.File, canary: Path) -> None:
        if key in file:
            del file[key]
        file[key] = value

    return change


def _attribute(key: str, value: Any) -> SolutionChange:
    def change(file: h5py.File, canary: Path) -> None:
        file.attrs[key] = value

    return change


def _group(key: str) -> SolutionChange:
    def change(file: h5py.File, canary: Path) -> None:
        del file[key]
        file.create_group(key)

    return change


def _typed(key: str, kind: h5py.h5t.TypeID) -> SolutionChange:
    def change(file: h5py.File, canary: Path) -> None:
        del file[key]
        h5py.h5d.create(file.id, key.encode(), kind, h5py.h5s.create_simple((4,)))

    return change


def _linked(key: str) -> SolutionChange:
    def change(file: h5py.File, canary: Path) -> None:
        if key in file:
            del file[key]
        file[key] = h5py.ExternalLink(str(canary), "/secret")

    return change


def _input(value: str) -> SolutionChange:
    return lambda file, canary: file.attrs.__setitem__(
        "input", value.replace("OTHER", str(canary.with_name("other.h5")))
    )


for _key in COLUMNS:
    SOLUTIONS |= {f"column {_key} {what}": _put(_key, value) for what, value in VALUES.items()}
for _key in ("x", "loss", "status", "example"):
    SOLUTIONS |= {f"column {_key} of type {name}": _typed(_key, kind) for name, kind in TYPES.items()}
for _key in ("x", "loss", "example", "parameter", "unit", "covariance"):
    SOLUTIONS[f"column {_key} by an external link"] = _linked(_key)
for _key in NAMED:
    SOLUTIONS |= {f"attribute {_key} of {what}": _attribute(_key, value) for what, value in ATTRIBUTES.items()}
for _value in ("OTHER", "pipe", "/dev/zero", "/proc/self/mem", "/proc/kcore", "/", "https://example.org", "a\x1b[2Jb",
               "//" * 3000, "~"):  # fmt: skip
    SOLUTIONS[f"input {_value[:20]!r}"] = _input(_value)
SOLUTIONS |= {
    "more units": _put("unit", ["m"] * 9),
    "more parameters": _put("parameter", ["a"] * 9),
    "history": _put("history", np.ones((4, 1000))),
    "a column that is a group": _group("x"),
    "half of the uncertainty": lambda file, canary: file.__delitem__("identifiability"),
}


def make_solution(path: Path, name: str, sound: Path, canary: Path) -> None:
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "a") as file:
        SOLUTIONS[name](file, canary)


# Configurations.

SOUND_CONFIG = b"max-evaluations = 4\nseed = 1\n[options]\nmax-iterations = 3\n[model-options]\nsamples = 32\n"

CONFIGS: dict[str, bytes] = {
    "nested lists": b"seed = " + b"[" * 100_000,
    "nested tables": b"seed = " + b"{a=" * 50_000,
    "nested keys": b"a" + b".a" * 20_000 + b" = 1",
    "nested headers": b"[a" + b".a" * 20_000 + b"]",
    "decimal digits": b"seed = " + b"9" * 5000,
    "hexadecimal digits": b"seed = 0x" + b"f" * 10_000,
    "option of hexadecimal digits": b"[options]\nmax-iterations = 0x" + b"f" * 10_000,
    "infinite": b"max-evaluations = inf",
    "NaN": b"seed = nan",
    "date": b"seed = 1979-05-27T07:32:00Z",
    "text for a number": b'max-evaluations = "many"',
    "number for a text": b"model = 7",
    "table for a number": b"[seed]\na = 1",
    "list of tables": b"[[options]]\na = 1",
    "number for a table": b"options = 1",
    "tables in tables": b"[options.a.b.c]\nd = 1",
    "negative": b"seed = -1",
    "beyond 64 bits": b"seed = 18446744073709551617",
    "threads": b"threads = 999999999999",
    "batch": b"batch-size = 0",
    "forever": b'time-limit = "' + b"9" * 400 + b'd"',
    "no UTF-8": b"\xff\xfe = 1",
    "NUL": b"seed\0 = 1",
    "escapes": b'"\\u001b[2J" = 1',
    "escapes in a value": b'model = "\\u001b[2J"',
    "no TOML": b"\x89HDF\r\n\x1a\n",
    "megabytes": b"# " + b"x" * 2**22,
    "many keys": b"".join(b"k%d = 1\n" % i for i in range(50_000)),
    "twice": b"max-evaluations = 3\nmax_evaluations = 4",
    "network": b'network = "/etc/passwd"',
    "another config": b'config = "/etc/passwd"',
    "code": b'model = "evil.py:F"',
    "code by a module": b'model = "os:system"',
    "device": b'device = "cuda:99999999999999999999"',
    "output that is a device": b'out = "/dev/full"\noverwrite = true',
    "output of no folder": b'out = "/nowhere/at/all.h5"',
    "network that is a device": b'init-from = "/dev/zero"\nmethod = "jpo"',
    "empty": b"",
}

# Networks.

ABOUTS: dict[str, dict[str, Any]] = {
    "of escapes": {"model": "\x1b[2J\n"},
    "of another model": {"model": "evil.py:F"},
    "of infinite options": {"model_options": {"width": 1e999}},
    "of deep options": {"model_options": json.loads('{"a":' * 150 + "1" + "}" * 150)},
    "that is wide": {"width": 2**39},
    "that is deep": {"depth": 2**30},
    "of large targets": {"y_shape": [2**40] * 32},
    "of large x": {"x_shape": [2**40] * 32},
    "of many identifiers": {"identifiers": [{"name": f"a{i}", "shape": [1]} for i in range(5000)]},
    "of tiny scale": {"scale": 5e-324},
    "of no sense": {"schema": {"a": []}},
}
NETWORKS = [*ABOUTS, "of 20000 tensors", "of a header alone", "of no header", "of nothing", "of overlapping tensors"]


def make_network(path: Path, name: str, sound: Path) -> None:
    saved = read_network(sound)
    if name in ABOUTS:
        text = json.dumps(saved.about.model_dump(mode="json", by_alias=True) | ABOUTS[name])
        path.write_bytes(safetensors.numpy.save(saved.tensors, {KEY: text}))
    elif name == "of 20000 tensors":
        text = json.dumps(saved.about.model_dump(mode="json", by_alias=True) | {"depth": 19_990})
        path.write_bytes(safetensors.numpy.save({f"t{i}": np.ones(1) for i in range(20_000)}, {KEY: text}))
    elif name == "of overlapping tensors":
        where = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
        header = json.dumps({"__metadata__": {KEY: "{}"}, "a": where, "b": where}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    else:
        length = {"of a header alone": 2, "of no header": 2**63, "of nothing": 0}[name]
        path.write_bytes(length.to_bytes(8, "little") + b"{}")


def make_sound(folder: Path, data: Path) -> tuple[Path, Path]:
    """A solution file and a network of the dataset."""
    solution, network = folder / "sound.solution.h5", folder / "sound.safetensors"
    invsolve.solve(data, max_evaluations=6, covariance=True, out=solution, threads=1)
    invsolve.solve(
        data, method="jpo", max_evaluations=8, save_network=network, threads=1, refine="none",
        options={"width": 4, "depth": 1, "network": "mlp"},
    )  # fmt: skip
    return solution, network
