"""The state of an unfinished training in one file: tensors, and beside them one JSON document for all else.

One file, for of two a kill may leave one new and one old. A checksum over all of it tells a damaged one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from invsolve._version import __version__
from invsolve.data import tensor_file
from invsolve.data.files import written_aside
from invsolve.errors import DataError, first_line

_KEY = "invsolve-checkpoint"
_SCHEMA = "invsolve-checkpoint/1"
_TENSOR = "tensor"  # the one key of an object that stands for the tensor of this name


def write_checkpoint(path: Path, state: dict[str, Any]) -> int:
    """Write a state (nested dicts of arrays and JSON values), all of it or nothing; the bytes that it took.

    Raises:
        OutputError: the disk is full or refuses.
    """
    tensors: dict[str, np.ndarray] = {}
    text = json.dumps({"schema": _SCHEMA, "invsolve": __version__, "state": _without_tensors(state, tensors, "")})
    document = json.dumps({"sha256": _checksum(text, tensors), "text": text})
    with written_aside(path, overwrite=True) as aside:
        return tensor_file.save(aside, tensors, _KEY, document)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` was given, its numbers to the bit.

    Raises:
        DataError: the file is damaged, or of another version of this program, whose trainings may go another way.
    """
    try:
        tensors, document = tensor_file.load(path, _KEY)
        told = json.loads(document)
        if _checksum(told["text"], tensors) != told["sha256"]:
            raise DataError(f"checkpoint {path} is damaged")
        found = json.loads(told["text"])
    except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"checkpoint {path} is damaged: {first_line(error)}") from None
    if (found["schema"], found["invsolve"]) != (_SCHEMA, __version__):
        raise DataError(f"checkpoint {path} is of invsolve {found['invsolve']}, not of {__version__}")
    state: dict[str, Any] = _with_tensors(found["state"], tensors)
    return state


def _without_tensors(value: Any, tensors: dict[str, np.ndarray], name: str) -> Any:
    """The value with the name of each tensor in its place."""
    if isinstance(value, np.ndarray):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {key: _without_tensors(inner, tensors, f"{name}/{key}") for key, inner in value.items()}
    return value


def _with_tensors(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR}:
        return tensors[value[_TENSOR]]
    return {key: _with_tensors(inner, tensors) for key, inner in value.items()}


def _checksum(text: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensor_file.as_bytes(tensors[name]))
    return digest.hexdigest()
