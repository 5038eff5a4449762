"""What a diagnosis finds: numbers to be shown or printed as JSON, and the curves behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from invsolve.analysis.slices import Slice


@dataclass(frozen=True)
class Alignment:
    """Mean cosine between an update of x_i and the direction from x0_i to its solution; NaN where none is known."""

    reference: str  # what the solutions are: "x_true", or "best found"
    examples: int  # of which one is known
    networks: int
    sizes: list[int]  # k, the examples that make a joint step
    joint: list[float]  # mean over networks and examples, for each k
    spread: list[float]  # standard deviation over networks of their means
    plain: float  # of the negative gradient
    joint_flat: float | None  # joint, at the largest k, of the examples whose own gradient vanishes


@dataclass(frozen=True)
class Flatness:
    """Shares of vanishing gradients, and of points where F fails."""

    at_x0: float
    at_drawn: float | None  # of the points that the sampler draws; None where none were
    failing_drawn: float | None


@dataclass(frozen=True)
class Minima:
    """What a local method meets from x0 and further starts; shares are of the examples, None where none is known."""

    method: str
    examples: int  # of which two starts came anywhere
    starts: int  # of each
    unfinished: float  # share of starts that evaluations or time cut off
    several: float | None  # ended in more than one minimum
    mean: float | None  # distinct minima
    x0_worse: float | None  # the best start beats x0's (contract's rule)
    found_again: float | None  # two starts at least found the best minimum
    solved_x0: float | None  # from x0, where x_true is known (contract's rule)
    solved_best: float | None  # by the best of the starts
    barrier: float | None  # the loss rises on the straight way from x0 to the best known solution


@dataclass(frozen=True)
class Verdict:
    """Whether a method is thought to help, and why."""

    method: str
    verdict: str  # "enough", "helps", "may help" or "does not help"
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """Whether JPO, more starts or BFGS alone will do, and what was measured to tell."""

    model: str
    n: int  # examples of the data
    examples: np.ndarray  # (N,) that were looked at
    nonfinite: int  # further ones whose F fails at x0
    unknowns: int
    alignment: Alignment | None
    flatness: Flatness
    minima: Minima
    recommendation: str  # "bfgs", "multistart" or "jpo"
    summary: str  # one or two sentences
    verdicts: list[Verdict]
    evaluations: int  # rows of F computed
    gradients: int
    seconds: float
    cut_short: bool  # fewer examples or starts than asked for, or an interruption
    slices: list[Slice] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The `diagnose --json` document."""
        plain = {"model", "n", "nonfinite", "unknowns", "recommendation", "summary", "evaluations", "gradients",
            "seconds", "cut_short"}  # fmt: skip
        return {
            "schema": "invsolve-diagnose/1",
            **{name: getattr(self, name) for name in plain},
            "examples": len(self.examples),
            "alignment": None if self.alignment is None else asdict(self.alignment),
            "flatness": asdict(self.flatness),
            "minima": asdict(self.minima),
            "verdicts": [asdict(v) for v in self.verdicts],
        }
