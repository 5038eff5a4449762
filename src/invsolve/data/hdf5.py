"""HDF5 as we use it: opened with care, searched without leaving the file, written so that a full disk does no harm."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import h5py
import numpy as np

from invsolve.errors import DataError, InvsolveError, first_line, nearest

_IN_MEMORY = 2**26  # bytes of a file that is made in memory first
_LINK_HOPS = 16  # soft links followed before a loop is assumed

Read = TypeVar("Read", bound=Callable[..., Any])


def one_line_if_damaged(read: Read) -> Read:
    """Whatever HDF5 stumbles over while it reads the file named first, the file is at fault: one line says so."""

    @functools.wraps(read)
    def careful(path: str | Path, *arguments: Any, **more: Any) -> Any:
        try:
            return read(path, *arguments, **more)
        except InvsolveError:
            raise
        except Exception as error:
            raise DataError(f"{path} cannot be read: {first_line(error)}; it seems damaged") from error

    return cast("Read", careful)


class StoredArray:
    """An array in an HDF5 file; slices and `numpy.asarray` load it."""

    def __init__(self, path: Path, node: h5py.Dataset) -> None:
        self._path, self._node = path, node
        self.shape: tuple[int, ...] = tuple(node.shape)
        self.dtype: np.dtype[Any] = node.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            return np.asarray(self._node[key])
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self._path}: cannot read '{self._node.name}': {first_line(error)}") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def __repr__(self) -> str:
        return f"<{self._path}:{self._node.name} {self.shape} {self.dtype}>"


@one_line_if_damaged
def describe_file(path: str | Path) -> dict[str, Any]:
    """What is in an HDF5 file: its `attributes`, and of every dataset its `shape`, `dtype`, `unit` and `filters`.

    A link, which is not followed, has a `link` instead.

    Raises:
        DataError: no such file, or not HDF5.
    """
    path = Path(path)
    with open_file(path) as file:
        return {"attributes": read_attributes(file), "arrays": _describe_group(file, path, "")}


def _describe_group(group: h5py.Group, path: Path, prefix: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            arrays[prefix + name] = {"link": f"{getattr(link, 'filename', '')}:{link.path}"}
            continue
        node = group[name]
        if isinstance(node, h5py.Group):
            if len(prefix) < 256:  # hard links can make a loop of groups
                arrays |= _describe_group(node, path, f"{prefix}{name}/")
        elif isinstance(node, h5py.Dataset):
            arrays[prefix + name] = {
                "shape": list(node.shape or ()),
                "dtype": _type_name(node.dtype),
                "unit": _unit(node),
                "filters": [name or str(code) for code, name in _filters(node)],
            }
    return arrays


def _unit(node: h5py.Dataset) -> str:
    """What the attribute `units` (CF, NeXus) says, or nothing."""
    with contextlib.suppress(Exception):  # of a type that h5py cannot read: then it is no text
        unit = node.attrs.get("units", "")
        return unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    return ""


def _type_name(dtype: np.dtype[Any]) -> str:
    return "text" if h5py.check_string_dtype(dtype) is not None else str(dtype)


def open_file(path: Path) -> h5py.File:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name an HDF5 file")
    if not path.is_file():
        raise DataError(f"{path} is no regular file; HDF5 needs one")
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied") from None
    except OSError as error:
        try:
            is_hdf5 = h5py.is_hdf5(path)
        except OSError:
            is_hdf5 = False
        what = f"is a damaged or truncated HDF5 file ({first_line(error)})" if is_hdf5 else "is not an HDF5 file"
        raise DataError(f"{path} {what}") from None


def find_node(file: h5py.File, path: Path, name: str) -> h5py.Dataset | h5py.Group | None:
    """The node called `name`, reached without leaving the file; None if there is none.

    Raises:
        DataError: an external link on the way, or a loop of soft links.
    """
    pending = [part for part in name.split("/") if part]
    node: Any = file
    hops = 0
    while pending:
        part = pending.pop(0)
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(part, getlink=True)
        if link is None:
            if hops:
                raise DataError(f"{path}: '{name}' is a link to nothing")
            return None
        if isinstance(link, h5py.ExternalLink):
            raise DataError(f"{path}: '{name}' is an external link to {link.filename}; copy the data into the file")
        if isinstance(link, h5py.SoftLink):
            hops += 1
            if hops > _LINK_HOPS:
                raise DataError(f"{path}: '{name}' is a loop of soft links")
            if link.path.startswith("/"):
                node = file
            pending = [p for p in link.path.split("/") if p] + pending
            continue
        node = node[part]
    return node


def stored_array(path: Path, node: h5py.Dataset | h5py.Group, *, as_group: bool) -> Any:
    """A stored array, or where `as_group` allows it a dict of them.

    Raises:
        DataError: a group where an array belongs, or data that lie outside of the file.
    """
    if isinstance(node, h5py.Group):
        if not as_group:
            raise DataError(f"{path}: '{node.name}' is a group; a dataset is needed")
        members = {key: find_node(node.file, path, f"{node.name}/{key}") for key in node}
        return {
            key: stored_array(path, member, as_group=False) for key, member in members.items() if member is not None
        }
    if not isinstance(node, h5py.Dataset) or node.shape is None:
        raise DataError(f"{path}: '{node.name}' is no dataset with values")
    if node.is_virtual:
        raise DataError(f"{path}: '{node.name}' is a virtual dataset; copy the data into the file")
    if node.external:
        raise DataError(f"{path}: '{node.name}' keeps its data in {node.external[0][0]}; copy them into the file")
    if h5py.check_ref_dtype(node.dtype) is not None:
        raise DataError(f"{path}: '{node.name}' holds object references, not numbers")
    for code, name in _filters(node):
        if not _can_decode(code):
            raise DataError(
                f"{path}: '{node.name}' is compressed by HDF5 filter {code} ({name or 'without a name'}), which is not "
                f"there; 'pip install hdf5plugin', or store it by gzip"
            )
    return StoredArray(path, node)


def _filters(node: h5py.Dataset) -> list[tuple[int, str]]:
    """Code and name of each filter that the chunks of an array went through."""
    plist = node.id.get_create_plist()
    found = (plist.get_filter(i) for i in range(plist.get_nfilters()))
    return [(code, name.decode(errors="replace")) for code, _, _, name in found]


def _can_decode(code: int) -> bool:
    if not h5py.h5z.filter_avail(code):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # brings many filters, where it is installed
    return bool(h5py.h5z.filter_avail(code))


def read_strings(path: Path, array: Any) -> np.ndarray:
    values = np.asarray(array).ravel()
    try:
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=object)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a name is not UTF-8 text ({error})") from None


def read_attributes(file: h5py.File) -> dict[str, Any]:
    stored = {key: file.attrs[key] for key in file.attrs}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in stored.items()}


def text_attribute(file: h5py.File, path: Path, key: str) -> str | None:
    value = read_attributes(file).get(key)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is not None and not isinstance(value, str):
        raise DataError(f"{path}: attribute '{key}' must be text, found {type(value).__name__}")
    return value


def json_attribute(file: h5py.File, path: Path, key: str) -> dict[str, Any]:
    text = text_attribute(file, path, key)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: attribute '{key}' must be a JSON object, found {text[:60]!r}")
    return value


def listing(file: h5py.File, name: str) -> str:
    names = list(_describe_group(file, Path(file.filename), ""))
    return nearest(name, names[:50]) if names else "the file is empty"


@contextlib.contextmanager
def created(path: Path, size: int) -> Iterator[h5py.File]:
    """A new HDF5 file of about `size` bytes.

    It is made in memory and written in one piece where it is not too large: HDF5 itself crashes when the disk is full.
    Larger ones are written by HDF5, once there is seen to be room.

    Raises:
        OSError: the disk is full.
    """
    if size > _IN_MEMORY:
        if shutil.disk_usage(path.parent).free < 1.2 * size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with h5py.File(path, "w") as file:
            yield file
        return
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    path.write_bytes(image.getbuffer())
