"""What a run leaves: solutions, losses and outcomes, one row an example."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Protocol, Self

import numpy as np


class Code(IntEnum):
    """A number in a column, with its meaning for a reader of the report."""

    reason: str

    def __new__(cls, value: int, reason: str) -> Self:
        code = int.__new__(cls, value)
        code._value_, code.reason = value, reason
        return code


class Status(Code):
    """Why work on an example ended: each with the cause, and what to do."""

    CONVERGED = (
        0,
        "the gradient is within tolerance, or what a step could gain is below the loss's rounding; "
        "if the loss is high, this is a local minimum or a flat region",
    )
    BUDGET = 1, "evaluations, iterations or time ran out; raise the limit to go on"
    STALLED = (
        2,
        "no step lowers the loss any further; the model may be rough or the tolerance below its precision",
    )
    NONFINITE = (
        3,
        "at the start the model is NaN, Inf or raises, or no target is observed; mend the data or it",
    )
    NOT_RUN = 4, "the run ended before this example was begun; run again"


class Identifiability(Code):
    """What the data tell of one parameter of one example."""

    UNKNOWN = -1, "the Jacobian at x is not finite, or time was over"
    DETERMINED = 0, "the data determine it"
    WEAK = 1, "its standard error exceeds what was known before: prior, bounds, or 100 % on a log scale"
    SINGULAR = 2, "the data do not tell it: another value, with others changed alike, fits as well"
    AT_BOUND = 3, "it lies on a bound, where the covariance says little"


class FoundBy(Code):
    """Which stage of a method with several found an example's solution, or what the local solve that did began at."""

    START = 0, "nothing better than its start was found"
    LOCAL = 1, "a local solve from the example's own start"
    PROPOSAL = 2, "the points that were simulated for it"
    NETWORK = 3, "the network"
    MULTISTART = 4, "a local solve from one of further starts"


HISTORY_EVALUATIONS = (1, *(m << e for e in range(19) for m in (2, 3)), 2**20)
"""Evaluations of F up to which the entries of `Solution.history` reach, two for each octave.

Entry k is the least objective (what was minimized) known of an example once at most so many evaluations of it were
made, scoring and training included; NaN while none is known. After an example ended its last value goes on. The last
entry is that of all evaluations, however many more there were.
"""
HISTORY_EXAMPLES = 10_000
"""Examples of a run up to which histories are kept, 160 bytes each."""


class Solved(Protocol):
    """Solutions as they are reported on, a window of their rows at a time, wherever they are."""

    attributes: dict[str, Any]
    parameters: list[dict[str, str]]

    def __len__(self) -> int:
        """Examples."""
        ...

    def columns(self) -> Collection[str]:
        """The names of the columns that are there."""
        ...

    @property
    def windows(self) -> Sequence[tuple[int, int]]:
        """Ranges of rows, all of them in order."""
        ...

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Of a column that is there the rows start ≤ i < stop."""
        ...

    def load(self) -> Solution:
        """All of it in memory."""
        ...

    def close(self) -> None:
        """Close the file, if it lies in one."""
        ...


def parts(solved: Solved, name: str) -> Iterator[np.ndarray]:
    """A column, a window at a time."""
    return (solved.rows(name, *window) for window in solved.windows)


def code_counts(solved: Solved, name: str) -> dict[str, int]:
    """How many rows of a column of codes hold each, all codes named."""
    kinds = CODES[name]
    counts = np.zeros(len(kinds), dtype=np.int64)
    for rows in parts(solved, name):
        counts += [int((rows == kind).sum()) for kind in kinds]
    return {kind.name.lower(): int(count) for kind, count in zip(kinds, counts, strict=True)}


@dataclass
class Solution:
    """Columns of a solution file (contract, section 3), all NumPy arrays with n rows, and how they came to be."""

    x: np.ndarray  # (n, *x_shape) best found, inside the bounds
    loss: np.ndarray  # (n,) float64, recomputed from x
    loss_initial: np.ndarray  # (n,) float64, recomputed from x_initial
    status: np.ndarray  # (n,) int8, see Status
    iterations: np.ndarray  # (n,) int64
    evaluations: np.ndarray  # (n,) int64, rows of F computed for this example, scoring included
    gradients: np.ndarray  # (n,) int64, rows differentiated
    grad_norm: np.ndarray  # (n,) max-norm of ∂L/∂x at x, projected where bounds are active
    x_initial: np.ndarray  # (n, *x_shape)
    example: np.ndarray  # (n,) names, or 0..n−1
    loss_prior: np.ndarray | None = None  # (n,) penalty of the prior at x, where `prior` was asked for
    reduced_chi2: np.ndarray | None = None  # (n,) 2·loss over the degrees of freedom, where the data bring sigma
    covariance: np.ndarray | None = None  # (n, d, d) Gauss–Newton, of x flattened, where asked for; with it:
    std_error: np.ndarray | None = None  # (n, *x_shape) square roots of its diagonal
    condition_number: np.ndarray | None = None  # (n,) of the Jacobian, per typical change of each parameter
    identifiability: np.ndarray | None = None  # (n, *x_shape) int8, see Identifiability
    found_by: np.ndarray | None = None  # (n,) int8, see FoundBy, of methods with several stages
    starts: np.ndarray | None = None  # (n,) int64 points that an example was solved from, where there may be several
    minima: np.ndarray | None = None  # (n,) int64 distinct minima found from them
    history: np.ndarray | None = None  # (n, K) float32, see HISTORY_EVALUATIONS
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: list[dict[str, str]] = field(default_factory=list)  # name and unit of each component of x

    def __len__(self) -> int:
        return len(self.loss)

    def status_counts(self) -> dict[str, int]:
        """How many examples ended in each status, all statuses named."""
        return code_counts(self, "status")

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, those that are there."""
        found = {name: getattr(self, name) for name in (*COLUMNS, *OPTIONAL)}
        return {name: values for name, values in found.items() if values is not None}

    def load(self) -> Solution:
        """Itself: all of it is in memory."""
        return self

    def close(self) -> None:
        """Nothing: it lies in no file."""

    def first(self, n: int) -> Solution:
        """The first n examples; of the run's `seconds` nobody knows which were theirs, so that they are left out."""
        columns: dict[str, Any] = {name: values[:n] for name, values in self.columns().items()}
        return replace(self, **columns, attributes={k: v for k, v in self.attributes.items() if k != "seconds"})

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Of a column that is there the rows start ≤ i < stop."""
        rows: np.ndarray = getattr(self, name)[start:stop]
        return rows

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The ranges of rows that are in memory at a time: one."""
        return [(0, len(self))]

    @property
    def objective(self) -> np.ndarray:
        """(n,) what was minimized: the loss, and with a prior its penalty."""
        return self.loss if self.loss_prior is None else self.loss + self.loss_prior


OPTIONAL = (
    "loss_prior", "reduced_chi2", "covariance", "std_error", "condition_number", "identifiability", "found_by",
    "starts", "minima", "history",
)  # fmt: skip
"""Columns that only some solutions have."""
COLUMNS = tuple(f.name for f in fields(Solution) if f.name not in (*OPTIONAL, "attributes", "parameters"))
"""Columns that every solution has."""
CODES: dict[str, type[Code]] = {"status": Status, "identifiability": Identifiability, "found_by": FoundBy}
"""Columns of codes, which say what their numbers mean."""
COUNTS = ("iterations", "evaluations", "gradients", "starts", "minima")
"""Columns of counts."""
MOST_COUNTED = 10**15
"""More than any run will ever count of one example, so that sums stay within 64 bits."""
