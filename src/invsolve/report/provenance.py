"""Where solutions come from: what their files tell of data, model and run, sorted for a reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from invsolve.analysis.comparison import Comparison
from invsolve.analysis.wording import duration, number
from invsolve.data.solution import Solution

_MOST = 2000  # characters of a value
_PROBLEM = {
    "model": "model", "model_options": "model options", "model_sha256": "SHA-256 of the model's file",
    "input": "dataset", "input_sha256": "SHA-256 of the dataset", "prior": "prior",
}  # fmt: skip
_RUN = {
    "method": "method", "method_options": "options", "refine": "refined by", "seed": "seed", "chosen": "chosen",
    "max_evaluations": "most evaluations", "device": "device", "dtype": "precision", "threads": "threads",
    "batch_size": "batch size", "compiled": "compiled", "seconds": "time", "network": "network", "versions": "versions",
    "created": "created",
}  # fmt: skip
_UNTOLD = {"format", "format_version", "command", "compile_seconds", "network_sha256", "training_curve"}


@dataclass(frozen=True)
class Origin:
    """What is told of one method's runs."""

    method: str
    facts: tuple[tuple[str, str], ...]  # label and value; a value that differs between seeds, all of them in order
    commands: tuple[str, ...]


def problem(comparison: Comparison) -> list[tuple[str, str]]:
    """Data and model, which all runs have in common."""
    run = next(iter(comparison.contenders.values())).runs[0]
    return [(label, text) for key, label in _PROBLEM.items() if (text := _text(key, run.attributes.get(key)))]


def origins(comparison: Comparison) -> list[Origin]:
    """What each method's files tell."""
    return [_origin(name, contender.runs) for name, contender in comparison.contenders.items()]


def _origin(method: str, runs: tuple[Solution, ...]) -> Origin:
    every = [run.attributes for run in runs]
    others = sorted({key for a in every for key in a} - {*_PROBLEM, *_RUN, *_UNTOLD})
    facts = []
    for key in (*_RUN, *others):
        texts = [_text(key, attributes.get(key)) for attributes in every]
        told = texts[0] if len(set(texts)) == 1 else ", ".join(text or "–" for text in texts)
        if told:
            facts.append((_RUN.get(key, key.replace("_", " ")), told))
    commands = dict.fromkeys(str(a["command"]) for a in every if a.get("command"))
    return Origin(method, tuple(facts), tuple(commands))


def _text(key: str, value: Any) -> str:
    """An attribute, which anybody may have written, as a line."""
    if value is None or value == "":
        return ""
    if key == "seconds" and isinstance(value, int | float):
        return duration(float(value))
    if key == "prior":
        return "its penalty is a part of what was minimized" if value is True else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = _flat(value) if isinstance(value, str) and value[:1] == "{" else str(value)
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


def _flat(text: str) -> str:
    """A JSON object as key=value, whatever else it is as it is."""
    try:
        return ", ".join(_pairs(json.loads(text)))
    except (ValueError, RecursionError):
        return text


def _pairs(values: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"{key}: {' '.join(_pairs(value))}"
        else:
            yield f"{key}={number(value) if isinstance(value, float) else value}"
