"""HDF5 as we use it: opened with care, searched without leaving the file, written so that a full disk does no harm."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import itertools
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import h5py
import numpy as np

from invsolve.data.heaps import heaps_end
from invsolve.data.json_text import json_object
from invsolve.data.limits import growth_limited
from invsolve.errors import DataError, InvsolveError, first_line, nearest

_IN_MEMORY = 2**26  # bytes of a file that is made in memory first
_LINK_HOPS = 16  # soft links followed before a loop is assumed

_MOST_LISTED = 2000  # groups and arrays of a file that are told one by one
_MOST_NAMED = 1000  # characters of the path of an array
_MOST_MEMBERS = 1000  # arrays in a group of identifiers
_MOST_ATTRIBUTES = 1000
_MOST_TEXT = 2**20  # bytes of an attribute
_FEW = 64  # texts in one attribute
_ALWAYS_ALLOWED = 2**26  # bytes that an array or a chunk may take however small its file is
_MOST_EXPANDED = 1100  # bytes from one of the file: deflate makes 1,032 at most
_AT_ONCE = 2**26  # bytes of texts that are read together, and that may be one text, repeated
_LEAST_GROWTH, _GROWTH = 2**28, 4  # of the process during a read: so many bytes, and times what is asked for
_REARRANGING = {2, 3, 5, 6, 32008}  # shuffle, fletcher32, nbit, scaleoffset, bitshuffle: they expand little or nothing

STUMBLES = (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, OverflowError, NotImplementedError,
            MemoryError, SystemError)  # fmt: skip
"""What h5py raises over a file that is damaged, or holds what NumPy does not know."""

Read = TypeVar("Read", bound=Callable[..., Any])


def one_line_if_damaged(read: Read) -> Read:
    """Whatever HDF5 stumbles over while it reads the file named first, the file is at fault: one line says so."""

    @functools.wraps(read)
    def careful(path: str | Path, *arguments: Any, **more: Any) -> Any:
        try:
            return read(path, *arguments, **more)
        except InvsolveError:
            raise
        except STUMBLES as error:
            raise DataError(f"{path} cannot be read: {first_line(error)}; it seems damaged") from error

    return cast("Read", careful)


class StoredArray:
    """An array in an HDF5 file; slices and `numpy.asarray` load it."""

    def __init__(self, path: Path, node: h5py.Dataset) -> None:
        self._path, self._node, self.name = path, node, node.name
        self.shape: tuple[int, ...] = tuple(node.shape)
        self.dtype: np.dtype[Any] = node.dtype
        # What one read may take: the array, and as much again where HDF5 converts it; texts are as long as the file.
        self._most = (
            max(math.prod(self.shape), math.prod(node.chunks or ())) * self.dtype.itemsize + path.stat().st_size
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _stored_again, (os.path.abspath(self._path), self.name)

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            with growth_limited(_LEAST_GROWTH + _GROWTH * self._most):
                return np.asarray(self._node[key])
        except STUMBLES as error:
            raise DataError(f"{self._path}: cannot read '{self.name}': {first_line(error)}") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def __repr__(self) -> str:
        return f"<{self._path}:{self._node.name} {self.shape} {self.dtype}>"


def _stored_again(path: str, name: str) -> StoredArray:
    """The array of this name in a file, which another process has opened."""
    node = find_node(_open(Path(path)), Path(path), name)  # whose heaps that one has looked through
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{path} holds no array '{name}'")
    return StoredArray(Path(path), node)


@one_line_if_damaged
def describe_file(path: str | Path) -> dict[str, Any]:
    """What is in an HDF5 file: its `attributes`, and of every dataset its `shape`, `dtype`, `unit` and `filters`.

    A link, which is not followed, has a `link` instead; so has what has been met before, and what comes after many.

    Raises:
        DataError: no such file, or not HDF5.
    """
    path = Path(path)
    with open_file(path) as file:
        return {"attributes": read_attributes(file, path), "arrays": _describe_arrays(file)}


def _describe_arrays(file: h5py.File) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    seen = {_address(file): ""}  # hard links can make loops of groups, and endlessly many ways through them
    pending = [(file, "", name) for name in reversed(list(file))]
    while pending:
        group, prefix, name = pending.pop()
        place = prefix + _told(name)
        if len(seen) + len(arrays) > _MOST_LISTED:
            arrays[f"… and {len(pending) + 1} more"] = {"link": "not listed"}
            break
        elsewhere = _link(group, name) if len(place) < _MOST_NAMED else "so deep that it is not looked at"
        if elsewhere is not None:
            arrays[place[:_MOST_NAMED]] = {"link": elsewhere}
            continue
        node = group[name]
        if isinstance(node, h5py.Dataset):
            arrays[place] = _describe_array(node)
        elif isinstance(node, h5py.Group) and (first := seen.setdefault(_address(node), place)) != place:
            arrays[place] = {"link": f":/{first}"}
        elif isinstance(node, h5py.Group):
            pending += [(node, f"{place}/", member) for member in reversed(list(node))]
    return arrays


def _told(name: str | bytes) -> str:
    """A name as text; h5py gives bytes where it is no UTF-8."""
    return name if isinstance(name, str) else name.decode(errors="backslashreplace")


def _link(group: h5py.Group, name: str | bytes) -> str | None:
    """Where a link points to, as "file:path"; None for what lies in the group itself."""
    try:
        link = group.get(name, getlink=True)
    except TypeError:
        return "a link of a kind that only another program knows"
    if link is None:
        return "damaged, not to be found by its name"
    return None if isinstance(link, h5py.HardLink) else f"{getattr(link, 'filename', '')}:{link.path}"


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def _describe_array(node: h5py.Dataset) -> dict[str, Any]:
    # The shape of a virtual dataset may be that of another file, which HDF5 would open to tell it.
    virtual = node.is_virtual
    return {
        "shape": [] if virtual else list(node.shape or ()),
        "dtype": "virtual" if virtual else _type_name(node),
        "unit": _unit(node),
        "filters": [name or str(code) for code, name in _filters(node)],
    }


def _unit(node: h5py.Dataset) -> str:
    """What the attribute `units` (CF, NeXus) says, or nothing."""
    with contextlib.suppress(DataError):  # it is no text
        return str(_attribute(node, "units") or "")
    return ""


def _type_name(node: h5py.Dataset) -> str:
    try:
        return "text" if h5py.check_string_dtype(node.dtype) is not None else str(node.dtype)
    except (TypeError, ValueError):  # one that NumPy does not have
        return f"HDF5 {_CLASSES.get(node.id.get_type().get_class(), 'type')}"


_CLASSES = {
    getattr(h5py.h5t, name): name.lower()
    for name in ("TIME", "BITFIELD", "OPAQUE", "COMPOUND", "REFERENCE", "VLEN", "ARRAY", "COMPLEX", "INTEGER", "FLOAT")
    if hasattr(h5py.h5t, name)
}


def open_file(path: Path) -> h5py.File:
    file = _open(path)
    if not heaps_end(path, file.id.get_create_plist().get_sizes()[1]):
        file.close()
        raise DataError(f"{path} is a damaged HDF5 file: the sizes in a heap of texts do not add up")
    return file


def _open(path: Path) -> h5py.File:
    try:
        exists = path.exists()
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied") from None
    if not exists:
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
        if len(node) > _MOST_MEMBERS:
            raise DataError(f"{path}: group '{node.name}' has {len(node)} members; at most {_MOST_MEMBERS} are read")
        if odd := next((key for key in node if isinstance(key, bytes)), None):
            raise DataError(f"{path}: '{node.name}' has a member whose name is no UTF-8 text, {odd!r}; rename it")
        members = {key: find_node(node.file, path, f"{node.name}/{key}") for key in node}
        return {
            key: stored_array(path, member, as_group=False) for key, member in members.items() if member is not None
        }
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{path}: '{node.name}' is no dataset with values")
    if node.is_virtual:  # before its shape is asked for, see _describe_array
        raise DataError(f"{path}: '{node.name}' is a virtual dataset; copy the data into the file")
    if node.shape is None:
        raise DataError(f"{path}: '{node.name}' is no dataset with values")
    if node.external:
        raise DataError(f"{path}: '{node.name}' keeps its data in {node.external[0][0]}; copy them into the file")
    try:
        dtype = node.dtype
    except (TypeError, ValueError):
        raise DataError(f"{path}: '{node.name}' is of type {_type_name(node)}; numbers are needed") from None
    if h5py.check_ref_dtype(dtype) is not None:
        raise DataError(f"{path}: '{node.name}' holds object references, not numbers")
    _check_size(path, node)
    _check_filters(path, node)
    return StoredArray(path, node)


def _check_size(path: Path, node: h5py.Dataset) -> None:
    """See that an array is not much larger than what its file can hold: a few bytes can declare any shape."""
    held = path.stat().st_size
    for what, shape in (("it", node.shape), ("a chunk of it", node.chunks or ())):
        size = math.prod(shape) * node.dtype.itemsize
        if size > _ALWAYS_ALLOWED + _MOST_EXPANDED * held:
            raise DataError(
                f"{path}: '{node.name}' has shape {node.shape}, and {what} takes {size:.3g} bytes, more than a file of "
                f"{held} bytes can hold; it is damaged, or hardly any of it was written"
            )


def _check_filters(path: Path, node: h5py.Dataset) -> None:
    filters = _filters(node)
    if sum(code not in _REARRANGING for code, _ in filters) > 1:
        told = ", ".join(name or str(code) for code, name in filters)
        raise DataError(f"{path}: '{node.name}' is compressed more than once ({told}); store it by gzip alone")
    for code, name in filters:
        if not _can_decode(code):
            raise DataError(
                f"{path}: '{node.name}' is compressed by HDF5 filter {code} ({name or 'without a name'}), which is not "
                f"there; 'pip install hdf5plugin', or store it by gzip"
            )


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


def read_strings(path: Path, array: StoredArray) -> np.ndarray:
    """The texts (n,) of an array; of other values their representation.

    Raises:
        DataError: it holds neither text nor numbers, or no UTF-8, or more text than the file has.
    """
    if array.dtype.kind not in "OSfiub" or (array.dtype.kind == "O" and h5py.check_string_dtype(array.dtype) is None):
        raise DataError(f"{path}: '{array.name}' holds {array.dtype}; text is needed")
    if len(array.shape) != 1:
        raise DataError(f"{path}: '{array.name}' has shape {array.shape}; a column of texts is needed")
    held = path.stat().st_size
    texts: list[str] = []
    taken, step = 0, max(_FEW, _AT_ONCE // held)  # each text may be as long as the file
    try:
        for start in range(0, len(array), step):
            block = [v.decode() if isinstance(v, bytes) else str(v) for v in array[start : start + step]]
            taken += sum(map(len, block)) if array.dtype.kind == "O" else 0
            if taken > held + _AT_ONCE:  # many references to one text
                raise DataError(f"{path}: '{array.name}' holds more text than the file has bytes; it is damaged")
            texts += block
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a name is not UTF-8 text ({error})") from None
    return np.array(texts, dtype=object)


def read_attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """The attributes as text, numbers and lists of them; what is too large or of another type is described in words."""
    found: dict[str, Any] = {}
    for key in itertools.islice(file.attrs, _MOST_ATTRIBUTES):
        try:
            found[_told(key)] = _attribute(file, key)
        except DataError as error:
            found[_told(key)] = f"({error})"
    return found


def read_attribute(file: h5py.File, path: Path, key: str) -> Any:
    """One attribute as text, a number or a list of them; None where there is none.

    Raises:
        DataError: it is none of these.
    """
    try:
        return _attribute(file, key)
    except DataError as error:
        raise DataError(f"{path}: attribute '{key}' is {error}") from None


def _attribute(node: h5py.File | h5py.Dataset, key: str | bytes) -> Any:
    """See `read_attribute`; here the error says what else it is. HDF5 is not asked for what it may stumble over."""
    if key not in node.attrs:
        return None
    stored = node.attrs.get_id(key)
    kind, count = stored.get_type().get_class(), stored.get_space().get_simple_extent_npoints()
    if count == 0:
        return None
    is_text = kind == h5py.h5t.STRING
    if kind not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.STRING):
        raise DataError(f"of type {_CLASSES.get(kind, 'unknown')}, not text or a number")
    if stored.get_storage_size() > _MOST_TEXT or (is_text and stored.get_type().is_variable_str() and count > _FEW):
        raise DataError(f"{count} values, {stored.get_storage_size()} bytes, more than is read of an attribute")
    try:
        with growth_limited(_LEAST_GROWTH):
            value = node.attrs[key]
    except STUMBLES as error:
        raise DataError(f"not readable, {first_line(error)}") from None
    if isinstance(value, str | bytes) and len(value) > _MOST_TEXT:
        raise DataError(f"a text of {len(value)} characters, more than is read of an attribute")
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def text_attribute(file: h5py.File, path: Path, key: str) -> str | None:
    value = read_attribute(file, path, key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{path}: attribute '{key}' must be text, found {type(value).__name__}")
    return value


def json_attribute(file: h5py.File, path: Path, key: str) -> dict[str, Any]:
    text = text_attribute(file, path, key)
    value = {} if text is None else json_object(text)
    if value is None:
        raise DataError(f"{path}: attribute '{key}' must be a JSON object, found {(text or '')[:60]!r}")
    return value


def listing(file: h5py.File, name: str) -> str:
    names = list(_describe_arrays(file))
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
