"""The batch of inverse problems: what was measured, what is known."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from invsolve.data.files import file_stamp
from invsolve.errors import DataError

BLOCK = 2**24  # bytes read at once where a whole array is gone through


class Array(Protocol):
    """What a dataset holds: a NumPy array, or one in a file that slices and `numpy.asarray` load."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any) -> Any: ...
    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Rows:
    """Examples start ≤ i < stop of a dataset, in memory."""

    start: int
    targets: np.ndarray  # (b, *y_shape) floating
    identifiers: np.ndarray | dict[str, np.ndarray] | None  # (b, *γ_shape)
    x0: np.ndarray | None  # (b, *x_shape) or (*x_shape)
    sigma: np.ndarray | None  # broadcastable to targets
    numbers: np.ndarray | None = None  # (b,) of the examples, where they are not start, start + 1, …

    def __len__(self) -> int:
        return len(self.targets)


@dataclass
class Dataset:
    """n inverse problems (contract, section 2). Takes arrays or tensors; arrays read from a file stay there.

    Args:
        targets: y*, (n, *y_shape), real; NaN = not observed.
        identifiers: γ, (n, *γ_shape), or a dict of such arrays.
        x0: initial guess, (n, *x_shape) or (*x_shape); else the model's.
        sigma: standard deviation of the measurement, > 0: broadcastable to targets, or (n,).
        x_true: (n, *x_shape), for scoring only; solvers never read it.
        names: (n,) names of the examples.
        model: a registered model's name.
        model_options: that model's options.

    Raises:
        DataError: an array is empty, not real, or of the wrong length or shape, or some sigma ≤ 0.
    """

    targets: Array
    identifiers: Array | Mapping[str, Array] | None = None
    x0: Array | None = None
    sigma: Array | None = None
    x_true: Array | None = None
    names: Any = None
    model: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    source: str | None = None  # the file it was read from
    hash_source: Callable[[], str] | None = field(default=None, repr=False)
    stamp: tuple[int, ...] | None = field(default=None, repr=False)  # of the file when it was opened, see `file_stamp`
    paths: dict[str, str] = field(default_factory=dict)  # where in the file arrays were, that have another name there

    def __post_init__(self) -> None:
        self.targets = _numeric("targets", self.targets)
        if not self.targets.shape:
            raise DataError("targets is a single number; store it as (n, *y_shape), example first")
        if 0 in self.targets.shape:
            raise DataError(f"targets is empty, shape {self.targets.shape}; at least one example is needed")
        if isinstance(self.identifiers, Mapping):
            self.identifiers = {k: _numeric(f"identifiers/{k}", v) for k, v in self.identifiers.items()}
            for key, value in self.identifiers.items():
                self._check_length(f"identifiers/{key}", value.shape)
        elif self.identifiers is not None:
            self.identifiers = _numeric("identifiers", self.identifiers)
            self._check_length("identifiers", self.identifiers.shape)
        if self.x0 is not None:
            self.x0 = _numeric("x0", self.x0)
        if self.x_true is not None:
            self.x_true = _numeric("x_true", self.x_true)
            self._check_length("x_true", self.x_true.shape)
        if self.sigma is not None:
            self.sigma = _numeric("sigma", self.sigma)
            self._check_sigma(self.sigma)
        if self.names is not None:
            self.names = np.asarray([str(name) for name in np.asarray(self.names, dtype=object)], dtype=object)
            self._check_length("names", self.names.shape)
            if any("\0" in name for name in self.names):
                raise DataError("names holds one with a NUL character, which no file can keep; rename it")

    def __len__(self) -> int:
        return self.targets.shape[0]

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of one target."""
        return tuple(self.targets.shape[1:])

    @property
    def row_bytes(self) -> int:
        """What one example takes in memory at most, all its data as 8-byte numbers."""
        identifiers = self.identifiers if isinstance(self.identifiers, Mapping) else {"": self.identifiers}
        shapes = [self.y_shape, *(v.shape[1:] for v in identifiers.values() if v is not None)]
        if self.sigma is not None:
            shapes.append(self.y_shape)
        return 8 * sum(math.prod(shape) for shape in shapes)

    def rows(self, start: int, stop: int, x_shape: tuple[int, ...] | None = None) -> Rows:
        """Load examples start ≤ i < stop; `x_shape`, where it is known, tells a guess for each from one for all."""
        return self._load(slice(start, stop), start, None, x_shape)

    def picked(self, numbers: np.ndarray, x_shape: tuple[int, ...]) -> Rows:
        """Load the examples of these numbers (b,), which ascend."""
        return self._load(numbers, 0, numbers, x_shape)

    def first(self, n: int, x_shape: tuple[int, ...]) -> Dataset:
        """The first n examples as a dataset of their own; arrays in a file stay there.

        What is meant for each example and what for all is said by the whole: n might be the length of another axis.
        """
        identifiers, x0, sigma, ndim = self.identifiers, self.x0, self.sigma, len(self.targets.shape)
        if isinstance(identifiers, Mapping):
            identifiers = {k: _head(v, n) for k, v in identifiers.items()}
        elif identifiers is not None:
            identifiers = _head(identifiers, n)
        if x0 is not None:
            per_row = tuple(x0.shape) == (len(self), *x_shape)
            x0 = _head(x0, n) if per_row else np.broadcast_to(np.asarray(x0), (n, *x_shape))
        if sigma is not None and sigma.shape == (len(self),):
            sigma = np.asarray(sigma[:n]).reshape(-1, *(1,) * (ndim - 1))
        elif sigma is not None and len(sigma.shape) < ndim:
            sigma = np.asarray(sigma).reshape(*(1,) * (ndim - len(sigma.shape)), *sigma.shape)
        elif sigma is not None and sigma.shape[0] == len(self):
            sigma = _head(sigma, n)
        return Dataset(
            targets=_head(self.targets, n),
            identifiers=identifiers,
            x0=x0,
            sigma=sigma,
            x_true=None if self.x_true is None else _head(self.x_true, n),
            names=None if self.names is None else self.names[:n],
            model=self.model,
            model_options=self.model_options,
        )

    def _load(
        self, span: slice | np.ndarray, start: int, numbers: np.ndarray | None, x_shape: tuple[int, ...] | None
    ) -> Rows:
        identifiers: Any = self.identifiers
        if isinstance(identifiers, Mapping):
            identifiers = {k: np.asarray(v[span]) for k, v in identifiers.items()}
        elif identifiers is not None:
            identifiers = np.asarray(identifiers[span])
        x0 = self.x0
        if x0 is not None:
            per_row = self.x0_per_row if x_shape is None else tuple(x0.shape) == (len(self), *x_shape)
            x0 = np.asarray(x0[span] if per_row else x0[...])
        return Rows(start, np.asarray(self.targets[span]), identifiers, x0, self._sigma_rows(span), numbers)

    @property
    def x0_per_row(self) -> bool:
        """Whether x0 holds a guess for each example, (n, *x_shape), rather than one for all, (*x_shape).

        Raises:
            DataError: both readings fit, n numbers for n examples.
        """
        shape = () if self.x0 is None else self.x0.shape
        if self.x_true is not None and shape in (self.x_true.shape, self.x_true.shape[1:]):
            return shape == self.x_true.shape
        if shape == (len(self),) and len(self) > 1:
            raise DataError(
                f"x0 of shape {shape} can be one guess of {len(self)} unknowns or {len(self)} guesses of one number; "
                f"store it as ({len(self)}, {len(self)}) or ({len(self)}, 1)"
            )
        return len(shape) > 1 and shape[0] == len(self)

    def sha256(self) -> str:
        """Hash of the input: of the file's bytes, or of the arrays where there is no file."""
        if self.hash_source is not None:
            return self.hash_source()
        digest = hashlib.sha256()
        for key, array in self._arrays():
            digest.update(f"{key} {tuple(array.shape)} {array.dtype}".encode())
            for block in _blocks(array):
                digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()

    def check_unchanged(self, sha256: str | None = None) -> None:
        """See that the file is still the one that was opened; one that is gone can still be read.

        Where it was only touched its hash is still `sha256`, if that is known.

        Raises:
            DataError: it was changed or replaced.
        """
        if self.source is None or self.stamp is None or (now := file_stamp(self.source)) in (None, self.stamp):
            return
        try:
            same = sha256 is not None and self.sha256() == sha256
        except OSError:
            same = False
        if not same:
            raise DataError(
                f"{self.source} was changed or replaced since it was opened, so that solutions would be of two inputs; "
                f"run again, with --overwrite where some are kept"
            )
        self.stamp = now

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        yield "targets", self.targets
        if isinstance(self.identifiers, Mapping):
            yield from ((f"identifiers/{k}", v) for k, v in sorted(self.identifiers.items()))
        elif self.identifiers is not None:
            yield "identifiers", self.identifiers
        for key in ("x0", "sigma"):
            array = getattr(self, key)
            if array is not None:
                yield key, array

    def _check_length(self, name: str, shape: tuple[int, ...]) -> None:
        if not shape or shape[0] != len(self):
            raise DataError(
                f"{name} has shape {shape}, but targets has {len(self)} examples; the first axis must agree"
            )

    def _check_sigma(self, sigma: Array) -> None:
        if sigma.shape != (len(self),):
            try:
                fits = np.broadcast_shapes(sigma.shape, self.targets.shape) == self.targets.shape
            except ValueError:
                fits = False
            if not fits:
                raise DataError(
                    f"sigma has shape {sigma.shape}, which does not broadcast to targets {self.targets.shape}, "
                    f"nor is it ({len(self)},)"
                )
        self._refuse_ambiguous(sigma)
        offset = 0
        for block in _blocks(sigma):
            bad = ~(np.asarray(block) >= np.finfo(np.float64).tiny)
            if bad.any():
                where = np.argwhere(bad)[0]
                value = np.asarray(block)[tuple(where)]
                place = [int(w) + (offset if axis == 0 else 0) for axis, w in enumerate(where)]
                raise DataError(f"sigma must be > 0 everywhere, found {value} at {place}; mark gaps by NaN in targets")
            offset += len(block) if np.ndim(block) else 0

    def _refuse_ambiguous(self, sigma: Array) -> None:
        """n numbers for n examples of n targets each may be meant either way, unless they are all the same."""
        n = len(self)
        if sigma.shape == (n,) and n > 1 and len(self.targets.shape) > 1 and self.targets.shape[-1] == n:
            values = np.asarray(sigma)
            if (values != values[0]).any():
                per_row = (n, *(1,) * (len(self.targets.shape) - 1))
                raise DataError(
                    f"sigma of shape ({n},) can be one for each of {n} examples or for each of {n} targets; store it "
                    f"as {per_row} or (1, {n})"
                )

    def _sigma_rows(self, span: slice | np.ndarray) -> np.ndarray | None:
        if self.sigma is None:
            return None
        n, ndim = len(self), len(self.targets.shape)
        if self.sigma.shape == (n,):
            return np.asarray(self.sigma[span]).reshape(-1, *(1,) * (ndim - 1))
        per_row = len(self.sigma.shape) == ndim and self.sigma.shape[0] == n
        return np.asarray(self.sigma[span] if per_row else self.sigma[...])


class _Head:
    """The first n rows of an array in a file, where they stay."""

    def __init__(self, array: Array, n: int) -> None:
        self._array, self.shape, self.dtype = array, (n, *array.shape[1:]), array.dtype

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._array[slice(*key.indices(self.shape[0]))]
        if isinstance(key, np.ndarray):  # numbers of rows, of those that there are
            return self._array[key]
        return np.asarray(self)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[: self.shape[0]], dtype=dtype)


def _head(array: Array, n: int) -> Array:
    return array[:n] if isinstance(array, np.ndarray) else _Head(array, n)


def _numeric(name: str, array: Any) -> Array:
    """`array` as something real-valued with a shape; lists and tensors become NumPy arrays."""
    if hasattr(array, "detach"):
        try:
            array = array.detach().cpu().numpy()
        except (TypeError, RuntimeError):
            raise DataError(f"{name} is a tensor that NumPy cannot hold ({array.dtype}, {array.layout})") from None
    if isinstance(array, np.ma.MaskedArray):
        array = np.ma.filled(array.astype(np.float64), np.nan)  # what is masked was not observed
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        try:
            array = np.asarray(array)
        except ValueError:
            raise DataError(f"{name} is ragged; all rows must have the same shape") from None
    if array.dtype.kind not in "fiu":
        raise DataError(f"{name} has type {array.dtype}; real numbers (float or integer) are needed")
    return array  # type: ignore[no-any-return]


def _blocks(array: Array) -> Iterator[Any]:
    if not array.shape:
        yield np.asarray(array[...])
        return
    rows = max(1, BLOCK // (array.dtype.itemsize * math.prod(array.shape[1:]) or 1))
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]
