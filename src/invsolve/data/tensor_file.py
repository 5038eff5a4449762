"""Tensors and one text in a file of safetensors, which hold numbers and text and can hold no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

Tensors = dict[str, np.ndarray]


def packed(tensors: Tensors, key: str, text: str) -> bytes:
    """The bytes of a file; the same tensors and text always give the same ones.

    In memory, for what safetensors itself writes to is a file of a name of its own, which a kill would leave behind.
    """
    arrays = {name: np.ascontiguousarray(t).reshape(t.shape) for name, t in tensors.items()}
    return safetensors.numpy.save(arrays, {key: text})


def unpacked(content: bytes) -> tuple[list[tuple[str, Any]], dict[str, str]]:
    """Of such bytes the tensors by name, each as its `dtype`, `shape` and `data`, and all texts by key.

    Raises:
        Exception: it is no such file, or a damaged one; safetensors' own kind, or of JSON.
    """
    stored = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return stored, header.get("__metadata__") or {}


def load(path: Path, key: str) -> tuple[Tensors, str]:
    """All tensors of a file, and the text under `key`.

    Raises:
        ValueError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="np") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not iterable)
            return tensors, (stored.metadata() or {})[key]
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
