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
    """The bytes of a file; the same tensors and text always give the same ones."""
    return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, {key: text})


def save(path: Path, tensors: Tensors, key: str, text: str) -> int:
    """Write a file of large tensors, one after another; the bytes that it has.

    safetensors itself makes two copies of them all in memory, or writes to a file of a name of its own, which a kill
    would leave behind.

    Raises:
        OSError: the disk is full or refuses.
    """
    header: dict[str, Any] = {"__metadata__": {key: text}}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # so that all are aligned
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        kind = _KINDS[tensor.dtype.str]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for _, tensor in ordered:
            stream.write(as_bytes(tensor))
    return 8 + len(head) + end


_KINDS = {"<f8": "F64", "<f4": "F32", "<i8": "I64", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}


def as_bytes(tensor: np.ndarray) -> memoryview:
    """The numbers of a tensor as they are in memory, without a copy where they are in one piece."""
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data


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
