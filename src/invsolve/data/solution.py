"""What a run leaves: solutions, losses and outcomes, one row an example."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np


class Status(IntEnum):
    """Why work on an example ended."""

    CONVERGED = 0
    BUDGET = 1
    STALLED = 2
    NONFINITE = 3
    NOT_RUN = 4

    @property
    def reason(self) -> str:
        """The cause and what to do, for a reader of the report."""
        return _REASONS[self]


_REASONS = {
    Status.CONVERGED: "the gradient is within tolerance, or what a step could gain is below the loss's rounding; "
    "if the loss is high, this is a local minimum or a flat region",
    Status.BUDGET: "evaluations, iterations or time ran out; raise the limit to go on",
    Status.STALLED: "no step lowers the loss any further; the model may be rough or the tolerance below its precision",
    Status.NONFINITE: "at the start the model is NaN, Inf or raises, or no target is observed; mend the data or it",
    Status.NOT_RUN: "the run ended before this example was begun; run again",
}


class Identifiability(IntEnum):
    """What the data tell of one parameter of one example."""

    UNKNOWN = -1
    DETERMINED = 0
    WEAK = 1
    SINGULAR = 2
    AT_BOUND = 3

    @property
    def reason(self) -> str:
        """The meaning, for a reader of the report."""
        return _MEANINGS[self]


_MEANINGS = {
    Identifiability.UNKNOWN: "the Jacobian at x is not finite",
    Identifiability.DETERMINED: "the data determine it",
    Identifiability.WEAK: "its standard error exceeds what was known before: prior, bounds, or 100 % on a log scale",
    Identifiability.SINGULAR: "the data do not tell it: another value, with others changed alike, fits as well",
    Identifiability.AT_BOUND: "it lies on a bound, where the covariance says little",
}


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
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: list[dict[str, str]] = field(default_factory=list)  # name and unit of each component of x

    def __len__(self) -> int:
        return len(self.loss)

    def status_counts(self) -> dict[str, int]:
        """How many examples ended in each status, all statuses named."""
        return {s.name.lower(): int((self.status == s).sum()) for s in Status}

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, those that are there."""
        found = {name: getattr(self, name) for name in (*COLUMNS, *OPTIONAL)}
        return {name: values for name, values in found.items() if values is not None}

    @property
    def objective(self) -> np.ndarray:
        """(n,) what was minimized: the loss, and with a prior its penalty."""
        return self.loss if self.loss_prior is None else self.loss + self.loss_prior


OPTIONAL = ("loss_prior", "reduced_chi2", "covariance", "std_error", "condition_number", "identifiability")
"""Columns that only some solutions have."""
COLUMNS = tuple(f.name for f in fields(Solution) if f.name not in (*OPTIONAL, "attributes", "parameters"))
"""Columns that every solution has."""
