"""Which array of a foreign file is what: a guess from names and shapes, for `inspect` to propose a command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_HINTS = {
    "targets": ("targets", "target", "y", "data", "measurements", "measured", "observations", "observed", "signal",
                "signals", "values", "intensity", "counts", "images", "spectra", "waveforms"),
    "sigma": ("sigma", "sigmas", "error", "errors", "err", "std", "stddev", "uncertainty", "uncertainties", "noise"),
    "x0": ("x0", "guess", "initial", "initial_guess", "start"),
}  # fmt: skip
_RESERVED = ("x_true", "names")  # found by these names alone

Arrays = Mapping[str, Mapping[str, Any]]


def propose_parts(arrays: Arrays) -> dict[str, str]:
    """Paths of targets, sigma, x0 and identifiers among arrays as `describe_file` tells them; {} without any targets.

    Targets are the array with the likeliest name, then one with several numbers an example, then the largest; sigma and
    x0 go by name; what else has a value for every example are identifiers, as a group where one holds them all.
    """
    numeric = {
        path: tuple(a["shape"])
        for path, a in arrays.items()
        if "shape" in a and a["dtype"].startswith(("float", "int", "uint", ">f", ">i", ">u")) and 0 not in a["shape"]
    }
    candidates = {path: shape for path, shape in numeric.items() if shape and not _is("sigma", path)}
    candidates = {p: s for p, s in candidates.items() if not _is("x0", p) and _name(p) not in _RESERVED}
    if not candidates:
        return {}
    targets = max(candidates, key=lambda p: (_likeness("targets", p), len(candidates[p]) > 1, math.prod(candidates[p])))
    shape = candidates[targets]
    parts = {"targets": targets}
    for part in ("sigma", "x0"):
        named = [p for p in numeric if _is(part, p) and p != targets and _may_be(part, numeric[p], shape)]
        if named:
            parts[part] = max(named, key=lambda p: (_likeness(part, p), _common(p, targets)))
    known = [p for p, s in candidates.items() if s[0] == shape[0] and p not in parts.values()]
    if known:
        parts["identifiers"] = _together(known, targets, arrays)
    return parts


def _together(known: list[str], targets: str, arrays: Arrays) -> str:
    """One path for several identifiers: their group if it holds nothing else, else the likeliest of them."""
    groups = {p.rpartition("/")[0] for p in known}
    if len(known) > 1 and len(groups) == 1:
        (group,) = groups
        if group and all(p in known for p in arrays if p.startswith(f"{group}/")):
            return group
    return max(known, key=lambda p: (_name(p) == "identifiers", _common(p, targets)))


def _name(path: str) -> str:
    return path.rpartition("/")[2].lower()


def _likeness(part: str, path: str) -> int:
    hints = _HINTS[part]
    return len(hints) - hints.index(_name(path)) if _name(path) in hints else 0


def _is(part: str, path: str) -> bool:
    return _name(path) in _HINTS[part]


def _may_be(part: str, shape: tuple[int, ...], targets: tuple[int, ...]) -> bool:
    if part == "x0":
        return bool(shape)
    padded = (1,) * (len(targets) - len(shape)) + shape
    fits = len(shape) <= len(targets) and all(a in (1, b) for a, b in zip(padded, targets, strict=True))
    return fits or shape == targets[:1]


def _common(path: str, other: str) -> int:
    """How many groups two paths share."""
    pairs = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for a, b in pairs if a == b)
