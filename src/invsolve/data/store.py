"""Dataset and solution files: what is where in them (contract, sections 2 and 3)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from invsolve.data.dataset import Dataset
from invsolve.data.files import check_writable, file_stamp, written_aside
from invsolve.data.hdf5 import (
    StoredArray,
    created,
    find_node,
    json_attribute,
    listing,
    one_line_if_damaged,
    open_file,
    read_attribute,
    read_attributes,
    read_strings,
    stored_array,
    text_attribute,
)
from invsolve.data.solution import (
    CODES,
    COLUMNS,
    COUNTS,
    HISTORY_EVALUATIONS,
    MOST_COUNTED,
    OPTIONAL,
    Code,
    Solution,
    parts,
)
from invsolve.errors import DataError
from invsolve.ranges import split

DATASET, SOLUTION = "invsolve-dataset", "invsolve-solution"
FORMAT_VERSION = 1
_NAME_ESTIMATE = 32  # bytes that the name of an example takes
_HISTORY_AXIS = "evaluations_up_to"
_WINDOW = 2**23  # bytes of one column of a solution that are in memory at a time
_PARTS = ("targets", "identifiers", "x0", "sigma")


@one_line_if_damaged
def read_dataset(
    path: str | Path,
    *,
    targets: str = "targets",
    identifiers: str = "identifiers",
    x0: str = "x0",
    sigma: str = "sigma",
) -> Dataset:
    """Open a dataset file (contract, section 2); its arrays stay in the file until they are used.

    The keywords name the datasets inside a file of another layout; x_true and names are found by those names. `x0` may
    also be the guess itself, one for all examples: numbers with commas, such as "1,0.5".

    Raises:
        DataError: no such file, not HDF5, truncated; no targets; arrays that do not fit each other; or anything that
            points outside of the file.
    """
    path = Path(path)
    stamp = file_stamp(path)
    file = open_file(path)
    _check_format(file, path, DATASET)
    asked = dict(zip(_PARTS, (targets, identifiers, x0, sigma), strict=True))
    arrays: dict[str, Any] = {}
    for part, name in {**asked, "x_true": "x_true", "names": "names"}.items():
        node = find_node(file, path, name)
        if node is None and part == "x0" and (guess := _numbers(name)) is not None:
            arrays[part] = np.broadcast_to(guess, (*np.shape(arrays["targets"])[:1], len(guess)))
            continue
        if node is None:
            if part == "targets" or name != part:
                raise DataError(f"{path} has no '{name}'; {listing(file, name)}; name it with --{part} PATH")
            continue
        arrays[part] = stored_array(path, node, as_group=part == "identifiers")
    if "names" in arrays and arrays["names"].shape[:1] == arrays["targets"].shape[:1]:  # else they are refused below
        arrays["names"] = read_strings(path, arrays["names"])
    renamed = {k: v for k, v in asked.items() if k != v}
    model, model_options = text_attribute(file, path, "model"), json_attribute(file, path, "model_options")
    try:
        return Dataset(
            **arrays,
            model=model,
            model_options=model_options,
            source=str(path),
            hash_source=lambda: _hash(path, renamed),
            stamp=stamp,
            paths=renamed,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _numbers(text: str) -> np.ndarray | None:
    """The numbers of "1,0.5", or None if it is something else."""
    try:
        return np.array([float(word) for word in text.split(",")])
    except ValueError:
        return None


def write_dataset(path: str | Path, dataset: Dataset, *, overwrite: bool = False) -> None:
    """Write a dataset file (contract, section 2), all of it or nothing.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or cannot be written.
    """
    path = Path(path)
    check_writable(path, overwrite)
    with written_aside(path, overwrite) as aside, created(aside, _size(dataset)) as file:
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
    pending = iter(blocks)
    first, columns = next(pending)
    row = sum(math.prod(v.shape[1:]) * v.dtype.itemsize for v in columns.values()) + _NAME_ESTIMATE
    with created(path, n * row) as file:
        for start, block in itertools.chain([(first, columns)], pending):
            for name in ("example", *(c for c in block if c != "example")):
                if name not in file:
                    _create_column(file, name, n, block[name], parameters)
                file[name][start : start + len(block[name])] = block[name]
        for name, flags in CODES.items():
            if name in file:
                _describe_flags(file[name], flags)
        file.attrs["format"], file.attrs["format_version"] = SOLUTION, FORMAT_VERSION
        for key, value in attributes.items():
            file.attrs[key] = _stored(value)


def _stored(value: Any) -> Any:
    """An attribute as a file can hold it: a path may have a name that is no UTF-8."""
    if isinstance(value, dict):
        return json.dumps(value)
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _describe_flags(node: h5py.Dataset, flags: type[Code]) -> None:
    """The meaning of an int8 column, by the CF conventions."""
    node.attrs["flag_values"] = np.array([int(f) for f in flags], dtype=np.int8)
    node.attrs["flag_meanings"] = " ".join(f.name.lower() for f in flags)


def _create_column(file: h5py.File, name: str, n: int, values: np.ndarray, parameters: list[dict[str, str]]) -> None:
    dtype = h5py.string_dtype() if values.dtype == object else values.dtype
    # NaN where a block has no such column: finished by an earlier version, and resumed.
    empty = np.nan if values.dtype.kind == "f" else None
    node = file.create_dataset(name, shape=(n, *values.shape[1:]), dtype=dtype, fillvalue=empty)
    if name == "example":
        node.make_scale("example")
        return
    node.dims[0].attach_scale(file["example"])
    for axis in range(1, values.ndim):
        label = _dimension(name, axis, values.shape[1:], parameters)
        node.dims[axis].attach_scale(_component_scale(file, label, values.shape[axis], parameters))


def _dimension(name: str, axis: int, shape: tuple[int, ...], parameters: list[dict[str, str]]) -> str:
    """The name of an axis of a column whose rows have this shape."""
    if name == "covariance":  # over x flattened; its two axes need names of their own
        return ("" if axis == 1 else "with_") + ("parameter" if parameters else "component")
    if name == "history":
        return _HISTORY_AXIS
    return "parameter" if parameters and shape == (len(parameters),) else f"component_{axis}"


def _component_scale(file: h5py.File, label: str, size: int, parameters: list[dict[str, str]]) -> h5py.Dataset:
    """A dimension of x, its covariance or history: the parameters by name, evaluations, or a plain index."""
    if label not in file:
        if label.endswith("parameter"):
            scale = file.create_dataset(label, data=[p["name"] for p in parameters], dtype=h5py.string_dtype())
        elif label == _HISTORY_AXIS:
            scale = file.create_dataset(label, data=np.array(HISTORY_EVALUATIONS, dtype=np.int64))
        else:
            scale = file.create_dataset(label, data=np.arange(size))
        scale.make_scale(label)
        if label == "parameter":
            unit = file.create_dataset("unit", data=[p["unit"] for p in parameters], dtype=h5py.string_dtype())
            unit.dims[0].attach_scale(scale)
    return file[label]


class StoredSolution:
    """A solution file, open: a window of its rows at a time is in memory (see `Solved`)."""

    def __init__(self, path: Path, file: h5py.File, stored: dict[str, StoredArray]) -> None:
        self._path, self._file, self.stored = path, file, stored
        self.attributes, self.parameters = read_attributes(file, path), _read_parameters(file, path)

    def __len__(self) -> int:
        return len(self.stored["loss"])

    def columns(self) -> Collection[str]:
        """The names of the columns that are there."""
        return self.stored.keys()

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Ranges of rows, each of which takes little memory."""
        row = max(array.dtype.itemsize * math.prod(array.shape[1:]) for array in self.stored.values())
        return list(split(len(self), max(1, _WINDOW // max(row, 1))))

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Of a column that is there the rows start ≤ i < stop."""
        return self.stored[name][start:stop]

    def load(self) -> Solution:
        """All of it in memory."""
        columns: dict[str, Any] = {name: _read_column(self._path, array) for name, array in self.stored.items()}
        return Solution(**columns, attributes=self.attributes, parameters=self.parameters)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@one_line_if_damaged
def open_solution(path: str | Path) -> StoredSolution:
    """Open a solution file (contract, section 3); its columns stay in the file until they are used.

    Raises:
        DataError: not a solution file, or a damaged one.
    """
    path = Path(path)
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(open_file(path))
        solution = StoredSolution(path, file, _stored_columns(file, path))
        if fault := next(_faults(solution), None):
            raise DataError(f"{path}: {fault}; it is damaged, solve again")
        opened.pop_all()
    return solution


def _stored_columns(file: h5py.File, path: Path) -> dict[str, StoredArray]:
    if _check_format(file, path, SOLUTION) is None:
        raise DataError(f"{path} is not a solution file: it has no attribute format = '{SOLUTION}'")
    stored: dict[str, StoredArray] = {}
    for name in (*COLUMNS, *OPTIONAL):
        node = find_node(file, path, name)
        if node is None and name in OPTIONAL:
            continue
        if node is None:
            raise DataError(f"{path}: solution file without '{name}'; it is damaged, solve again")
        stored[name] = stored_array(path, node, as_group=False)
    return stored


@one_line_if_damaged
def read_solution(path: str | Path) -> Solution:
    """Read a solution file (contract, section 3).

    Raises:
        DataError: not a solution file, or a damaged one.
    """
    with contextlib.closing(open_solution(path)) as stored:
        return stored.load()


def _read_column(path: Path, array: StoredArray) -> np.ndarray:
    return read_strings(path, array) if array.dtype.kind in "OS" else np.asarray(array)


def _read_parameters(file: h5py.File, path: Path) -> list[dict[str, str]]:
    nodes = [find_node(file, path, name) for name in ("parameter", "unit")]
    if any(node is None for node in nodes):
        return []
    names, units = (read_strings(path, stored_array(path, n, as_group=False)) for n in nodes if n is not None)
    if len(names) != len(units):
        raise DataError(f"{path}: {len(names)} parameters have {len(units)} units; it is damaged, solve again")
    return [{"name": a, "unit": b} for a, b in zip(names, units, strict=True)]


def _faults(solution: StoredSolution) -> Iterator[str]:
    """What a solution from a file has that none of ours has."""
    stored = solution.stored
    shape, d = stored["x"].shape, math.prod(stored["x"].shape[1:])
    if len(shape) < 1 or shape[0] < 1:
        yield f"column 'x' has shape {shape}"
        return
    shapes = {"x": shape, "x_initial": shape, "std_error": shape, "identifiability": shape}
    shapes |= {"covariance": (shape[0], d, d), "history": (shape[0], len(HISTORY_EVALUATIONS))}
    for name, array in stored.items():
        kinds = "iu" if name in COUNTS or name in CODES else "OSiufU" if name == "example" else "fiu"
        if array.shape != shapes.get(name, shape[:1]) or array.dtype.kind not in kinds:
            yield f"column '{name}' has shape {array.shape}, type {array.dtype}"
            return
    for name in stored:
        if name in COUNTS and any(((rows < 0) | (rows > MOST_COUNTED)).any() for rows in parts(solution, name)):
            yield f"column '{name}' holds counts below 0 or above {MOST_COUNTED:.0e}"
        codes = [int(code) for code in CODES.get(name, ())]
        if codes and not all(np.isin(rows, codes).all() for rows in parts(solution, name)):
            yield f"column '{name}' holds codes that mean nothing"
    together = [name in stored for name in ("std_error", "condition_number", "identifiability")]
    if any(together) and not all(together):
        yield "of std_error, condition_number and identifiability some are there and some are not"
    if solution.parameters and len(solution.parameters) != d:
        yield f"{len(solution.parameters)} parameters are named, but x has {d} components"
    for name, kind in (("model", str), ("method", str), ("network", str), ("network_written", str), ("seconds", float)):
        value = solution.attributes.get(name)
        if value is not None and not isinstance(value, kind):
            yield f"attribute '{name}' is {str(value)[:60]!r}"
            return
    if not 0 <= solution.attributes.get("seconds", 0.0) < math.inf:
        yield "attribute 'seconds' is no time"


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write plain arrays to a small file of one range, all of it or nothing."""
    size = sum(values.nbytes for values in columns.values())
    with written_aside(path, overwrite=True) as aside, created(aside, size) as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype == object else None)


@one_line_if_damaged
def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_columns` wrote.

    Raises:
        DataError: the file is damaged.
    """
    with open_file(path) as file:
        columns = {}
        for name in file:
            node = find_node(file, path, name)
            if node is not None:
                columns[name] = _read_column(path, stored_array(path, node, as_group=False))
        return columns


def _check_format(file: h5py.File, path: Path, wanted: str) -> str | None:
    """The `format` attribute; None on a file that we did not make."""
    found = text_attribute(file, path, "format")
    if found in (DATASET, SOLUTION) and found != wanted:
        raise DataError(f"{path} is an {found} file; an {wanted} file is needed here")
    if found == wanted:
        version = read_attribute(file, path, "format_version")
        if not isinstance(version, int) or version != FORMAT_VERSION:
            raise DataError(
                f"{path} has format_version {version}; this invsolve reads {FORMAT_VERSION}: update one of them"
            )
        return found
    return None


def _hash(path: Path, renamed: dict[str, str]) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    if renamed:  # the same file read in another way is another dataset
        digest.update(json.dumps(renamed, sort_keys=True).encode())
    return digest.hexdigest()
