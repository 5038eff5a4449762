"""The problems, how many examples of each are solved, and what was asked of whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SIZES = (16, 64, 256, 1024)


@dataclass(frozen=True)
class Goal:
    """A fraction of n examples that a method shall solve."""

    method: str
    n: int
    solved: float = 0.0
    evaluations: int | None = None  # per example in the mean, at most
    times_bfgs: float = 0.0  # as many times what bfgs solves
    beats_multistart: bool = False  # at least what multistart solves with `RIVAL_EVALUATIONS` times the evaluations

    def __str__(self) -> str:
        asked = [f"≥ {self.solved:g}"] if self.solved else []
        asked += [f"≥ {self.times_bfgs:g} × bfgs"] if self.times_bfgs else []
        asked += [f"≥ multistart with {RIVAL_EVALUATIONS} × evaluations"] if self.beats_multistart else []
        return " and ".join(asked) + (f" at ≤ {self.evaluations}" if self.evaluations else "")


RIVAL_EVALUATIONS = 3


@dataclass(frozen=True)
class Problem:
    """A model with its options."""

    name: str
    model: str
    options: Mapping[str, float | str] = field(default_factory=dict)
    sizes: tuple[int, ...] = SIZES
    goals: tuple[Goal, ...] = ()

    @property
    def title(self) -> str:
        """Model and options, as tables and files call it."""
        return ",".join([self.model, *(f"{k}={v}" for k, v in self.options.items())])


def _auto(n: int) -> Goal:
    return Goal("auto", n, solved=0.99, beats_multistart=True)


PROBLEMS = {
    p.name: p
    for p in (
        Problem("wave-packet", "wave-packet", goals=(Goal("jpo", 256, 0.97, 400), _auto(1024))),
        Problem(
            "wave-packet-50",
            "wave-packet",
            {"duration": 50, "width": 5},
            goals=(Goal("jpo", 256, 0.90, 600), _auto(1024)),
        ),
        Problem("billiards", "billiards", goals=(Goal("jpo", 256, 0.99, 400), _auto(1024))),
        Problem(
            "kuramoto-sivashinsky",
            "kuramoto-sivashinsky",
            sizes=(16, 64, 128, 256, 512, 1024),
            goals=(Goal("jpo", 128, 0.95, 500), _auto(512)),
        ),
        Problem("navier-stokes", "navier-stokes", sizes=(16, 64), goals=(Goal("jpo", 64, 0.80, 600),)),
        Problem(
            "navier-stokes-half",
            "navier-stokes",
            {"observed": "half"},
            sizes=(16, 64),
            goals=(Goal("jpo", 64, evaluations=600, times_bfgs=2),),
        ),
    )
}
