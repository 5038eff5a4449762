"""What `inspect`, `models` and `methods` tell: plain values, to be shown as tables or printed as JSON."""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from invsolve.analysis.summary import summarize
from invsolve.data.dataset import Dataset
from invsolve.data.files import check_writable, written_aside
from invsolve.data.hdf5 import describe_file
from invsolve.data.json_text import json_object
from invsolve.data.network_file import is_network
from invsolve.data.proposal import propose_parts
from invsolve.data.store import DATASET, SOLUTION, open_solution, read_dataset
from invsolve.errors import DataError, OptionError
from invsolve.models.parameters import Normal, Uniform
from invsolve.options import describe_options
from invsolve.registry import load_model, method_class, model_class, registered
from invsolve.reuse import open_network


def inspect_file(path: Path) -> dict[str, Any]:
    """What is in a file: kind, arrays, attributes; for a solution also its loss report.

    Raises:
        DataError: the file cannot be read.
    """
    if is_network(path):
        return _describe_network(path)
    found = describe_file(path)
    attributes = {key: _plain(value) for key, value in found["attributes"].items()}
    if attributes.get("format") == SOLUTION:
        solution = open_solution(path)
        kind = f"solution of {len(solution)} examples"
        more: dict[str, Any] = {"summary": summarize(solution, None, None)}
    else:
        kind, command = _as_dataset(path, found["arrays"], attributes)
        more = {"command": command} if command else {}
    return {"path": str(path), "kind": kind, "arrays": found["arrays"], "attributes": attributes, **more}


def _describe_network(path: Path) -> dict[str, Any]:
    """What a saved network is and was trained on, and the command that asks it."""
    saved = open_network(path)
    about = saved.about.model_dump(mode="json", by_alias=True)
    weights = sum(t.size for name, t in saved.tensors.items() if name.startswith("network."))
    return {
        "path": str(path),
        "kind": f"network of {weights} weights for model '{about['model']}', trained by {about['method']} on "
        f"{about['examples']} examples",
        "arrays": {
            name: {"shape": list(t.shape), "dtype": str(t.dtype), "unit": "", "filters": []}
            for name, t in sorted(saved.tensors.items())
        },
        "attributes": about | {"sha256": saved.sha256},
        "command": shlex.join(["invsolve", "predict", str(path), "NEW.h5"]),
        "verb": "ask it by",
    }


def _as_dataset(path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> tuple[str, str | None]:
    """What a file is as a dataset, and the command line that solves it, if any does."""
    parts = {} if attributes.get("format") == DATASET else propose_parts(arrays)
    renamed = {part: place for part, place in parts.items() if place != part}
    try:
        kind = _describe_dataset(read_dataset(path, **renamed))
    except DataError as error:
        if attributes.get("format") == DATASET:
            raise
        return f"HDF5 file, not a dataset as it is: {error}", None
    known = [] if attributes.get("model") in registered("models") else ["--model", "MODEL.py:F"]
    named = [word for part, place in renamed.items() for word in (f"--{part}", place)]
    return kind, shlex.join(["invsolve", "solve", str(path), *known, *named])


def _describe_dataset(dataset: Dataset) -> str:
    known = [name for name in ("identifiers", "x0", "sigma", "x_true", "names") if getattr(dataset, name) is not None]
    extra = f" with {', '.join(known)}" if known else ""
    return f"dataset of {len(dataset)} examples, targets of shape {dataset.y_shape}{extra}"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return (json_object(value) if value.startswith("{") else None) or value
    known = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if known else str(value)


def list_entries(kind: str) -> list[tuple[str, str, str]]:
    """Name, package and summary of each registered model or method; one that cannot be loaded says why."""
    load = model_class if kind == "models" else method_class
    rows = []
    for entry in registered(kind).values():
        try:
            summary = _about(load(entry.name)).splitlines()[0]
        except Exception as error:  # another package's fault must not hide the others
            summary = str(error)
        rows.append((entry.name, entry.package, summary))
    return rows


def describe_model(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A model's summary, parameters and options."""
    model = load_model(name, **options)
    entry = registered("models").get(name)
    return {
        "name": model.name,
        "package": entry.package if entry else "yours",
        "about": _about(type(model)),
        "parameters": [
            {
                "name": p.name, "unit": p.unit, "lower": p.lower, "upper": p.upper, "scale": p.scale,
                "initial": p.initial, "prior": _prior_text(p.prior),
            }
            for p in model.parameters
        ],
        "options": describe_options(type(model).Options),
    }  # fmt: skip


def write_new_model(path: Path, overwrite: bool) -> str:
    """Write the model to start from as `path`; returns what to do next.

    Raises:
        OptionError: `path` is not named as a Python file.
        OutputError: it exists and must not be overwritten, or cannot be written.
    """
    if path.suffix != ".py":
        raise OptionError(f"{path} must be named as a Python file; call it {path.name}.py")
    check_writable(path, overwrite)
    text = resources.files("invsolve.models").joinpath("template.py").read_text()
    name = f"{path}:Model"
    with written_aside(path, overwrite) as aside:
        aside.write_text(text.replace("MODEL.py", path.name).replace("  # type: ignore[override]", ""))
    return f"{path} written; now: {shlex.join(['invsolve', 'check', '--model', name])}"


def _prior_text(prior: Uniform | Normal | None) -> str:
    """As one would write it in code: "Uniform(0, 3.142)"."""
    if prior is None:
        return ""
    return f"{type(prior).__name__}({', '.join(f'{value:.4g}' for value in vars(prior).values())})"


def describe_method(name: str) -> dict[str, Any]:
    """A method's summary and options."""
    method = method_class(name)
    return {
        "name": name,
        "package": registered("methods")[name].package,
        "about": _about(method),
        "options": describe_options(method.Options),
    }


def _about(cls: type) -> str:
    return inspect.getdoc(cls) or ""
