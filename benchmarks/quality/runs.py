"""One run: what is solved and how, and what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import kept
from benchmarks.quality.problems import PROBLEMS


@dataclass(frozen=True)
class Case:
    """One method on one dataset."""

    problem: str  # a key of PROBLEMS
    n: int
    method: str
    seed: int
    budget: int | None = None  # max_evaluations; None leaves the end to the method
    options: tuple[tuple[str, Any], ...] = ()  # of the method

    @property
    def key(self) -> str:
        """Everything that tells it from other cases, also after a problem's options have changed."""
        method = ",".join([self.method, *(f"{k}={v}" for k, v in self.options)])
        budget = "unlimited" if self.budget is None else f"max{self.budget}"
        return f"{PROBLEMS[self.problem].title}.n{self.n}.{method}.{budget}.seed{self.seed}"

    def to_json(self) -> str:
        """For the command line of a process."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The reverse of `to_json`."""
        return cls(**kept.as_fields(text))

    @property
    def unlimited(self) -> Case:
        """The same without a budget."""
        return replace(self, budget=None)


@dataclass(frozen=True)
class Result(kept.Result):
    """What came of a case; numbers only where it was done."""

    solved: float = math.nan
    evaluations: float = math.nan  # per example, mean
    most_evaluations: int = 0  # of any example
    gradients: float = math.nan
    seconds: float = math.nan
    starts: float = math.nan  # per example, of methods with several

    def told(self) -> str:
        if self.outcome != "done":
            return super().told()
        return f"{self.solved:.3f} solved, {self.evaluations:.0f} evaluations, {self.seconds:.1f} s"


Store = kept.Store[Case, Result]
