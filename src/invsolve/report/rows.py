"""The rows of a comparison as columns that a page holds: small, and quick to sort by its script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from invsolve.analysis.comparison import Block, Comparison
from invsolve.analysis.wording import number
from invsolve.data.solution import Solution, Status

MOST_BYTES = 7_000_000  # of all columns: pages stay below 10 MB
MOST_PARAMETERS = 8  # that have a column each
_LONGEST = 80  # characters of an example's name
_ROUND = np.uint64(1 << 31)


@dataclass(frozen=True)
class Column:
    """One column of the table: a value for each row, or for each example where all blocks have the same."""

    label: str
    values: np.ndarray  # (rows,) or (examples,): float64, or integers; codes where there are words
    words: tuple[str, ...] = ()
    key: str = ""  # what a filter is called by

    def cell(self, row: int) -> str:
        """Its text in a row, as the script writes it too."""
        value = self.values[row % len(self.values)]
        if self.words:
            return self.words[int(value)]
        if self.values.dtype.kind != "f":
            return str(value)
        return "" if np.isnan(value) else number(float(value)) if np.isfinite(value) else "∞" if value > 0 else "-∞"

    @property
    def size(self) -> int:
        """Bytes of a value as it is packed: half of a float64, or as few as the largest integer needs."""
        if self.values.dtype.kind == "f":
            return 4
        return next(size for size in (1, 2, 4, 8) if self.values.max(initial=0) < 256**size)

    def to_json(self) -> dict[str, Any]:
        """Its label, and its values as base64 of little-endian numbers of the type told as `kind`.

        "f8" are the upper halves of float64: all of its range, and six digits. "uN" are N bytes an integer.
        """
        if self.values.dtype.kind == "f":
            bits = np.ascontiguousarray(self.values, dtype="<f8").view("<u8")
            kind, packed = "f8", ((bits + np.where(np.isfinite(self.values), _ROUND, np.uint64(0))) >> 32).astype("<u4")
        else:
            kind, packed = f"u{self.size}", self.values.astype(f"<u{self.size}")
        told = {"label": self.label, "kind": kind, "data": base64.b64encode(packed.tobytes()).decode()}
        return told | ({"words": self.words} if self.words else {}) | ({"key": self.key} if self.key else {})


@dataclass(frozen=True)
class Rows:
    """A row for each method, seed and example; the methods' blocks one after the other, all of the same examples."""

    examples: np.ndarray | None  # names; None where they are numbers from 0
    shown: int  # examples in each block
    n: int  # examples there are
    columns: tuple[Column, ...]
    count: int

    def to_json(self) -> dict[str, Any]:
        """What the page's script reads."""
        names = None if self.examples is None else [str(name) for name in self.examples]
        return {
            "examples": names,
            "shown": self.shown,
            "rows": self.count,
            "columns": [column.to_json() for column in self.columns],
        }

    def first(self, most: int) -> list[list[str]]:
        """The texts of the first rows."""
        names = range(self.shown) if self.examples is None else self.examples
        return [
            [str(names[row % self.shown]), *(column.cell(row) for column in self.columns)]
            for row in range(min(most, self.count))
        ]


def rows_of(comparison: Comparison, most_bytes: int = MOST_BYTES) -> Rows:
    """The table of a comparison: of all its examples, or of as many of the first as are within `most_bytes`."""
    blocks = list(comparison.blocks())
    columns = _columns(comparison, blocks)
    names = _names(blocks[0].run.example)
    each = 4 / 3 * sum(column.size * len(column.values) for column in columns) / comparison.n
    if names is not None:
        each += sum(len(str(name).encode(errors="replace")) + 3 for name in names[:1000]) / len(names[:1000])
    shown = max(1, min(comparison.n, int(most_bytes / each)))
    cut = tuple(
        Column(c.label, c.values.reshape(-1, comparison.n)[:, :shown].reshape(-1), c.words, c.key) for c in columns
    )
    return Rows(None if names is None else names[:shown], shown, comparison.n, cut, len(blocks) * shown)


def _names(examples: np.ndarray) -> np.ndarray | None:
    """The examples' names, where they are not just their numbers; long ones without their middle."""
    if examples.dtype.kind in "iu" and np.array_equal(examples, np.arange(len(examples))):
        return None
    texts = (str(name) for name in examples.tolist())
    half = _LONGEST // 2
    return np.array([t if len(t) <= _LONGEST else f"{t[:half]}…{t[-half:]}" for t in texts], dtype=object)


def _columns(comparison: Comparison, blocks: Sequence[Block]) -> tuple[Column, ...]:
    n, methods, seeds = comparison.n, list(comparison.contenders), [str(seed) for seed in comparison.seeds]
    found: list[Column] = []
    if len(methods) > 1:
        codes = np.repeat([methods.index(b.method) for b in blocks], n)
        found.append(Column("method", codes, tuple(methods), "method"))
    if len(seeds) > 1:
        codes = np.repeat([i % len(seeds) for i in range(len(blocks))], n)
        found.append(Column("seed", codes, tuple(seeds), "seed"))
    found += _numbers(blocks)
    statuses = {int(status): status.name.lower().replace("_", " ") for status in Status}
    status = np.concatenate([np.clip(b.run.status, -1, max(statuses) + 1) for b in blocks]).astype(np.int64)
    words = tuple(statuses.get(code, "unknown") for code in range(len(statuses) + 1))
    found.append(Column("status", np.where(status < 0, len(statuses), status), words, "status"))
    solved = [b.solved for b in blocks if b.solved is not None]
    if solved:
        codes = np.where(np.concatenate(solved), 0, 1)
        found.append(Column("solved", codes, ("yes", "no"), "solved"))
    if len(methods) > 1:
        codes = np.concatenate([np.full(n, 3) if b.outcome is None else b.outcome + 1 for b in blocks])
        found.append(Column(f"against {comparison.baseline}", codes, ("better", "tied", "worse", ""), "outcome"))
    return (*found, *_parameters(blocks))


def _numbers(blocks: Sequence[Block]) -> list[Column]:
    def column(label: str, name: str) -> Column:
        return Column(label, np.concatenate([_of(b.run, name) for b in blocks]))

    initial = np.stack([b.run.loss_initial for b in blocks])
    same = np.array_equal(initial, np.broadcast_to(initial[:1], initial.shape), equal_nan=True)
    found = [column("loss", "loss")]
    for label, name in (("prior's penalty", "loss_prior"), ("reduced χ²", "reduced_chi2")):
        if any(getattr(b.run, name) is not None for b in blocks):
            found.append(column(label, name))
    found.append(Column("loss at x_initial", initial[0] if same else initial.reshape(-1)))
    return [*found, column("evaluations", "evaluations"), column("gradients", "gradients")]


def _of(run: Solution, name: str) -> np.ndarray:
    values = getattr(run, name)
    if values is None:
        return np.full(len(run), np.nan)
    wanted: np.ndarray = values.astype(np.float64) if values.dtype.kind == "f" else np.maximum(values, 0)
    return wanted


def _parameters(blocks: Sequence[Block]) -> list[Column]:
    """The components of x, where there are few."""
    x = [b.run.x.reshape(len(b.run), -1).astype(np.float64) for b in blocks]
    if x[0].shape[1] > MOST_PARAMETERS:
        return []
    labels = parameter_labels(blocks[0].run)
    return [Column(labels[j], np.concatenate([values[:, j] for values in x])) for j in range(x[0].shape[1])]


def parameter_labels(run: Solution) -> list[str]:
    """Name and unit of each component of x flattened."""
    size = run.x[0].size
    named: Sequence[Mapping[str, str]] = run.parameters if len(run.parameters) == size else ()
    if not named:
        return [f"x[{j}]" for j in range(size)]
    return [f"{p['name']} [{p['unit']}]" if p.get("unit") else p["name"] for p in named]
