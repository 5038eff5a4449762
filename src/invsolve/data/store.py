"""Dataset and solution files: everything that knows HDF5."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import h5py
import numpy as np

from invsolve.data.dataset import Dataset
from invsolve.data.files import check_writable, written_aside
from invsolve.data.solution import COLUMNS, Solution, Status
from invsolve.errors import DataError, InvsolveError, first_line, nearest

DATASET, SOLUTION = "invsolve-dataset", "invsolve-solution"
FORMAT_VERSION = 1
_IN_MEMORY = 2**28  # bytes of a file that is made in memory first
_ROW_ESTIMATE = 256  # bytes of one example in a solution file with few unknowns
_LINK_HOPS = 16  # soft links followed before a loop is assumed
_PARTS = ("targets", "identifiers", "x0", "sigma")


Read = TypeVar("Read", bound=Callable[..., Any])


def _one_line_if_damaged(read: Read) -> Read:
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


@_one_line_if_damaged
def read_dataset(
    path: str | Path,
    *,
    targets: str = "targets",
    identifiers: str = "identifiers",
    x0: str = "x0",
    sigma: str = "sigma",
) -> Dataset:
    """Open a dataset file (contract, section 2); its arrays stay in the file until they are used.

    The keywords name the datasets inside a file of another layout; x_true and names are found by those names.

    Raises:
        DataError: no such file, not HDF5, truncated; no targets; arrays that do not fit each other; or anything that
            points outside of the file.
    """
    path = Path(path)
    file = _open(path)
    _check_format(file, path, DATASET)
    asked = dict(zip(_PARTS, (targets, identifiers, x0, sigma), strict=True))
    arrays: dict[str, Any] = {}
    for part, name in {**asked, "x_true": "x_true", "names": "names"}.items():
        node = _find(file, path, name)
        if node is None:
            if part == "targets" or name != part:
                raise DataError(f"{path} has no '{name}'; {_listing(file, name)}; name it with --{part} PATH")
            continue
        arrays[part] = _array(path, node, as_group=part == "identifiers")
    if "names" in arrays:
        arrays["names"] = _strings(path, arrays["names"])
    renamed = {k: v for k, v in asked.items() if k != v}
    model, model_options = _text(file, path, "model"), _json(file, path, "model_options")
    try:
        return Dataset(
            **arrays,
            model=model,
            model_options=model_options,
            source=str(path),
            hash_source=lambda: _hash(path, renamed),
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_dataset(path: str | Path, dataset: Dataset, *, overwrite: bool = False) -> None:
    """Write a dataset file (contract, section 2), all of it or nothing.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or cannot be written.
    """
    path = Path(path)
    check_writable(path, overwrite)
    with written_aside(path, overwrite) as aside, _created(aside, _size(dataset)) as file:
        file.attrs["format"], file.attrs["format_version"] = DATASET, FORMAT_VERSION
        if dataset.model is not None:
            file.attrs["model"] = dataset.model
            file.attrs["model_options"] = json.dumps(dataset.model_options)
        arrays: dict[str, Any] = {part: getattr(dataset, part) for part in (*_PARTS, "x_true")}
        identifiers = arrays["identifiers"]
        if isinstance(identifiers, Mapping):
            del arrays["identifiers"]
            arrays |= {f"identifiers/{key}": value for key, value in identifiers.items()}
        for name, array in arrays.items():
            if array is not None:
                file.create_dataset(name, data=np.asarray(array))
        if dataset.names is not None:
            file.create_dataset("names", data=list(dataset.names), dtype=h5py.string_dtype())


def _size(dataset: Dataset) -> int:
    arrays = [a for a in (dataset.targets, dataset.x0, dataset.sigma, dataset.x_true) if a is not None]
    identifiers = dataset.identifiers
    arrays += (
        identifiers.values() if isinstance(identifiers, Mapping) else [identifiers] if identifiers is not None else []
    )
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)


@contextlib.contextmanager
def _created(path: Path, size: int) -> Iterator[h5py.File]:
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


def write_solution(path: str | Path, solution: Solution, *, overwrite: bool = False) -> None:
    """Write a solution file (contract, section 3), all of it or nothing.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or cannot be written.
    """
    path = Path(path)
    check_writable(path, overwrite)
    with written_aside(path, overwrite) as aside:
        blocks = [(0, solution.columns())]
        write_solution_blocks(aside, len(solution), blocks, solution.attributes, solution.parameters)


def write_solution_blocks(
    path: Path,
    n: int,
    blocks: Iterable[tuple[int, Mapping[str, np.ndarray]]],
    attributes: Mapping[str, Any],
    parameters: list[dict[str, str]],
) -> None:
    """Write a solution file of n examples to `path` from blocks (first example, columns), in one pass."""
    with _created(path, n * _ROW_ESTIMATE) as file:
        for start, columns in blocks:
            for name in ("example", *(c for c in COLUMNS if c != "example")):
                values = columns[name]
                if name not in file:
                    _create_column(file, name, n, values, parameters)
                file[name][start : start + len(values)] = values
        file["status"].attrs["flag_values"] = np.array([int(s) for s in Status], dtype=np.int8)
        file["status"].attrs["flag_meanings"] = " ".join(s.name.lower() for s in Status)
        file.attrs["format"], file.attrs["format_version"] = SOLUTION, FORMAT_VERSION
        for key, value in attributes.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict) else value


def _create_column(file: h5py.File, name: str, n: int, values: np.ndarray, parameters: list[dict[str, str]]) -> None:
    dtype = h5py.string_dtype() if values.dtype == object else values.dtype
    node = file.create_dataset(name, shape=(n, *values.shape[1:]), dtype=dtype)
    if name == "example":
        node.make_scale("example")
        return
    node.dims[0].attach_scale(file["example"])
    for axis in range(1, values.ndim):
        node.dims[axis].attach_scale(_component_scale(file, axis, values, parameters))


def _component_scale(file: h5py.File, axis: int, values: np.ndarray, parameters: list[dict[str, str]]) -> h5py.Dataset:
    """The dimension of x along `axis`: the parameters by name, or a plain index."""
    named = bool(parameters) and values.ndim == 2 and len(parameters) == values.shape[1]
    name = "parameter" if named else f"component_{axis}"
    if name not in file:
        if named:
            scale = file.create_dataset(name, data=[p["name"] for p in parameters], dtype=h5py.string_dtype())
        else:
            scale = file.create_dataset(name, data=np.arange(values.shape[axis]))
        scale.make_scale(name)
        if named:
            unit = file.create_dataset("unit", data=[p["unit"] for p in parameters], dtype=h5py.string_dtype())
            unit.dims[0].attach_scale(scale)
    return file[name]


@_one_line_if_damaged
def read_solution(path: str | Path) -> Solution:
    """Read a solution file (contract, section 3).

    Raises:
        DataError: not a solution file, or a damaged one.
    """
    path = Path(path)
    with _open(path) as file:
        if _check_format(file, path, SOLUTION) is None:
            raise DataError(f"{path} is not a solution file: it has no attribute format = '{SOLUTION}'")
        columns: dict[str, np.ndarray] = {}
        for name in COLUMNS:
            node = _find(file, path, name)
            if node is None:
                raise DataError(f"{path}: solution file without '{name}'; it is damaged, solve again")
            array = _array(path, node, as_group=False)
            if node.shape[:1] != file["loss"].shape or (name != "example" and array.dtype.kind not in "fiu"):
                raise DataError(f"{path}: column '{name}' has shape {node.shape}, type {node.dtype}; it is damaged")
            columns[name] = _strings(path, array) if array.dtype.kind in "OS" else np.asarray(array)
        parameters = []
        if "parameter" in file and "unit" in file:
            names, units = (_strings(path, _array(path, file[k], as_group=False)) for k in ("parameter", "unit"))
            parameters = [{"name": a, "unit": b} for a, b in zip(names, units, strict=True)]
        return Solution(**columns, attributes=_attributes(file), parameters=parameters)


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write plain arrays to a small file of one range, all of it or nothing."""
    size = sum(values.nbytes for values in columns.values())
    with written_aside(path, overwrite=True) as aside, _created(aside, size) as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype == object else None)


@_one_line_if_damaged
def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_columns` wrote.

    Raises:
        DataError: the file is damaged.
    """
    with _open(path) as file:
        columns = {}
        for name in file:
            array = StoredArray(path, file[name])
            columns[name] = _strings(path, array) if array.dtype.kind == "O" else np.asarray(array)
        return columns


@_one_line_if_damaged
def describe_file(path: str | Path) -> dict[str, Any]:
    """What is in an HDF5 file: its `attributes`, and of every dataset its `shape`, `dtype` and `links` outside.

    Raises:
        DataError: no such file, or not HDF5.
    """
    path = Path(path)
    with _open(path) as file:
        return {"attributes": _attributes(file), "arrays": _describe_group(file, path, "")}


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
            arrays[prefix + name] = {"shape": list(node.shape or ()), "dtype": _type_name(node.dtype)}
    return arrays


def _type_name(dtype: np.dtype[Any]) -> str:
    return "text" if h5py.check_string_dtype(dtype) is not None else str(dtype)


def _open(path: Path) -> h5py.File:
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


def _check_format(file: h5py.File, path: Path, wanted: str) -> str | None:
    """The `format` attribute; None on a file that we did not make."""
    found = _text(file, path, "format")
    if found in (DATASET, SOLUTION) and found != wanted:
        raise DataError(f"{path} is an {found} file; an {wanted} file is needed here")
    if found == wanted:
        version = file.attrs.get("format_version")
        if not isinstance(version, int | np.integer) or version != FORMAT_VERSION:
            raise DataError(
                f"{path} has format_version {version}; this invsolve reads {FORMAT_VERSION}: update one of them"
            )
        return found
    return None


def _find(file: h5py.File, path: Path, name: str) -> h5py.Dataset | h5py.Group | None:
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


def _array(path: Path, node: h5py.Dataset | h5py.Group, *, as_group: bool) -> Any:
    """A stored array, or where `as_group` allows it a dict of them.

    Raises:
        DataError: a group where an array belongs, or data that lie outside of the file.
    """
    if isinstance(node, h5py.Group):
        if not as_group:
            raise DataError(f"{path}: '{node.name}' is a group; a dataset is needed")
        members = {key: _find(node.file, path, f"{node.name}/{key}") for key in node}
        return {key: _array(path, member, as_group=False) for key, member in members.items() if member is not None}
    if not isinstance(node, h5py.Dataset) or node.shape is None:
        raise DataError(f"{path}: '{node.name}' is no dataset with values")
    if node.is_virtual:
        raise DataError(f"{path}: '{node.name}' is a virtual dataset; copy the data into the file")
    if node.external:
        raise DataError(f"{path}: '{node.name}' keeps its data in {node.external[0][0]}; copy them into the file")
    if h5py.check_ref_dtype(node.dtype) is not None:
        raise DataError(f"{path}: '{node.name}' holds object references, not numbers")
    return StoredArray(path, node)


def _strings(path: Path, array: Any) -> np.ndarray:
    values = np.asarray(array).ravel()
    try:
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=object)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a name is not UTF-8 text ({error})") from None


def _attributes(file: h5py.File) -> dict[str, Any]:
    stored = {key: file.attrs[key] for key in file.attrs}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in stored.items()}


def _text(file: h5py.File, path: Path, key: str) -> str | None:
    value = _attributes(file).get(key)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is not None and not isinstance(value, str):
        raise DataError(f"{path}: attribute '{key}' must be text, found {type(value).__name__}")
    return value


def _json(file: h5py.File, path: Path, key: str) -> dict[str, Any]:
    text = _text(file, path, key)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: attribute '{key}' must be a JSON object, found {text[:60]!r}")
    return value


def _listing(file: h5py.File, name: str) -> str:
    names = list(_describe_group(file, Path(file.filename), ""))
    return nearest(name, names[:50]) if names else "the file is empty"


def _hash(path: Path, renamed: dict[str, str]) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    if renamed:  # the same file read in another way is another dataset
        digest.update(json.dumps(renamed, sort_keys=True).encode())
    return digest.hexdigest()
