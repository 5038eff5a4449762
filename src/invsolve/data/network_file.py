"""Trained networks in files.

Weights and moments are tensors; what they are of is one JSON document under the key `invsolve` of the metadata. The
same network always gives the same bytes, so that their hash tells networks apart.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import pydantic
from pydantic import Field

from invsolve.data import tensor_file
from invsolve.data.files import check_writable, written_aside
from invsolve.errors import DataError, OutputError, first_line

MOST_LAYERS = 1000
KEY = "invsolve"  # of the metadata
MOST_BYTES = 2**32  # of a file
_MOST_HEADER = 2**23
_HDF5 = b"\x89HDF\r\n\x1a\n"

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}

Size = Annotated[int, Field(ge=0, le=2**40)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Shape = Annotated[tuple[Size, ...], Field(max_length=32)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Unknown(_Strict):
    """One named component of x: what a step of the network's output means there."""

    name: Name
    scale: Literal["linear", "log"]
    typical: float = Field(gt=0)


class Known(_Strict):
    """One array of identifiers, its shape that of one example's."""

    name: Name
    shape: Shape


class About(_Strict):
    """What a network is and what it was trained on: all that it takes to know whether it fits other data."""

    schema_: Literal["invsolve-network/1"] = Field("invsolve-network/1", alias="schema")
    invsolve: Name
    method: Name
    examples: Count
    model: Name
    model_sha256: str
    model_options: dict[str, Any]
    parameters: tuple[Unknown, ...]
    x_shape: Shape
    x0: Literal["one", "model", "data"]  # one for all examples, a tensor; else of each, from the model or the data
    y_shape: Shape
    identifiers: tuple[Known, ...]
    network: Literal["mlp", "conv1d", "conv2d"]
    width: Count
    depth: int = Field(ge=0, le=MOST_LAYERS)
    channels: Count
    scale: float = Field(gt=0)
    gaps: bool


@dataclass(frozen=True)
class SavedNetwork:
    """A network as a file holds it; that the tensors are those that `about` says, whoever builds it sees."""

    about: About
    tensors: dict[str, np.ndarray]
    path: Path
    sha256: str


def write_network(path: Path, about: About, tensors: dict[str, np.ndarray], *, overwrite: bool) -> None:
    """Write a network file, all of it or nothing.

    Raises:
        OutputError: `path` exists and `overwrite` is false, it cannot be written, or the network is too large or holds
            NaN or Inf.
    """
    if sum(t.nbytes for t in tensors.values()) + _MOST_HEADER > MOST_BYTES:
        raise OutputError(f"network {path}: it takes more than {MOST_BYTES >> 30} GiB, and is not saved")
    if not all(np.isfinite(t).all() for t in tensors.values()):
        raise OutputError(f"network {path}: the trained network holds NaN or Inf, and is not saved")
    check_writable(path, overwrite)
    text = json.dumps(about.model_dump(mode="json", by_alias=True))
    with written_aside(path, overwrite) as aside:
        aside.write_bytes(tensor_file.packed(tensors, KEY, text))


def is_network(path: Path) -> bool:
    """Whether a file calls itself a network, or begins as one does."""
    if path.suffix == ".safetensors":
        return True
    try:
        if not path.is_file():  # to open a pipe is to wait for whoever writes to it
            return False
        with path.open("rb") as stream:
            return stream.read(10)[8:] == b'{"'
    except OSError:
        return False


def read_network(path: str | Path) -> SavedNetwork:
    """Read a network file. Nothing in it is run, and what it takes in memory is twice its size at most.

    Raises:
        DataError: no such file, not safetensors, damaged, of something else, or with numbers that no network has.
    """
    path = Path(path)
    content = _content(path)
    try:
        stored, metadata = tensor_file.unpacked(content)
    except Exception as error:  # safetensors' own, or of JSON
        raise DataError(f"{path} is no network file: {first_line(error)}; it seems damaged") from None
    if KEY not in metadata:
        raise DataError(f"{path} holds tensors, but none of a network that invsolve has saved")
    about = _about(path, metadata[KEY])
    tensors = {name: _tensor(path, name, found) for name, found in stored}
    return SavedNetwork(about, tensors, path, hashlib.sha256(content).hexdigest())


def _content(path: Path) -> bytes:
    """The bytes of a regular file that may be a network."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a network file")
        if not path.exists():
            raise DataError(f"network {path} does not exist")
        if not path.is_file():
            raise DataError(f"{path} is no regular file; name a network file")
        with path.open("rb") as stream:
            size, head = os.fstat(stream.fileno()).st_size, stream.read(8)
            if head == _HDF5:
                raise DataError(f"{path} is an HDF5 file; a network file is needed here, see solve --save-network")
            header = int.from_bytes(head, "little")
            if len(head) < 8 or header > min(_MOST_HEADER, size - 8):
                raise DataError(f"{path} is no network file, or a truncated one")
            if size > MOST_BYTES:
                raise DataError(f"{path} has {size} bytes, more than any network that invsolve saves")
            return head + stream.read(size - 8)
    except (OSError, ValueError) as error:
        what = "permission denied" if isinstance(error, PermissionError) else first_line(error)
        raise DataError(f"{path} cannot be read: {what}") from None


def _about(path: Path, text: Any) -> About:
    try:
        return About.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        _refuse(path, f"'{where}' of its description: {first['msg']}" if where else first["msg"])


def _tensor(path: Path, name: str, found: Any) -> np.ndarray:
    if found["dtype"] not in _DTYPES:
        _refuse(path, f"tensor '{name}' has type {found['dtype']}, which none of a network has")
    values: np.ndarray = np.frombuffer(found["data"], _DTYPES[found["dtype"]]).reshape(found["shape"])
    if not np.isfinite(values).all():
        _refuse(path, f"tensor '{name}' holds NaN or Inf")
    return values


def _refuse(path: Path, what: str) -> NoReturn:
    raise DataError(f"network {path} is not usable: {what[:300]}")
