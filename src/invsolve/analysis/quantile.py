"""Statistics of a column that need not be in memory as a whole: exact, in a few passes over its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

Parts = Callable[[], Iterable[np.ndarray]]
"""A column (n,) in parts, from its first row anew at each call."""

_DIGIT = 16  # bits of a key that one pass tells
_PASSES = 64 // _DIGIT
_SIGN = np.uint64(1 << 63)


def quantile(parts: Parts, at: Sequence[float], method: str = "linear") -> np.ndarray:
    """What `numpy.quantile` gives of a column without NaN, to the bit.

    Args:
        at: from 0 to 1.
        method: "linear", or "nearest" or "higher" for elements of the column.

    Raises:
        ValueError: the column is empty.
    """
    sizes, few = _first_parts(parts)
    if few is not None:
        return np.atleast_1d(np.quantile(few, at, method=method))  # type: ignore[call-overload]
    places = [(sum(sizes) - 1) * q for q in at]
    if method == "nearest":
        return _elements(parts, [round(place) for place in places])
    if method == "higher":
        return _elements(parts, [math.ceil(place) for place in places])
    ends = _elements(parts, [end(place) for place in places for end in (math.floor, math.ceil)]).reshape(-1, 2)
    # Of two elements the quantile is their interpolation, rounded as it is.
    return np.array([np.quantile(pair, place % 1) for pair, place in zip(ends, places, strict=True)])


def _first_parts(parts: Parts) -> tuple[list[int], np.ndarray | None]:
    """The sizes of all parts, and the column itself where it is one part."""
    sizes: list[int] = []
    only: np.ndarray | None = None
    for part in parts():
        only = None if sizes else part
        sizes.append(len(part))
    return sizes, only


def _elements(parts: Parts, ranks: Sequence[int]) -> np.ndarray:
    """Of the column in ascending order the elements at `ranks`: a radix selection, from the highest digit on."""
    prefixes, left = [0] * len(ranks), list(ranks)
    for i in range(_PASSES):
        shift = 64 - _DIGIT * (i + 1)
        counts = {prefix: np.zeros(1 << _DIGIT, dtype=np.int64) for prefix in prefixes}
        for part in parts():
            high = _keys(part) >> np.uint64(shift)
            for prefix, count in counts.items():
                digits = high[high >> np.uint64(_DIGIT) == prefix] & np.uint64((1 << _DIGIT) - 1)
                counts[prefix] = count + np.bincount(digits.astype(np.intp), minlength=1 << _DIGIT)
        for j, prefix in enumerate(prefixes):
            below = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(below, left[j], side="right"))
            left[j] -= int(below[digit - 1]) if digit else 0
            prefixes[j] = prefix << _DIGIT | digit
    keys = np.array(prefixes, dtype=np.uint64)
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


def _keys(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of these float64: all bits of a negative one turned, and the sign of others."""
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
    keys: np.ndarray = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return keys
