"""What methods share that learn from all examples at once: the fit is the solving, the ranges only read it off."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from invsolve.engine import Control, RowResults
from invsolve.examples import Examples
from invsolve.methods.base import Budget, Method
from invsolve.problem import Problem


class JointMethod(Method):
    """Subclasses define `train`; what it finds for row i is the solution of example i."""

    refines_with = "bfgs"

    def __init__(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.fitted: RowResults | None = None

    @abstractmethod
    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        """The best z of every row (n, d) over the training; where none beats `initial_loss` (n,), the start."""

    def fit(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        """Learn from all n examples at once, whose losses (n,) at x0 are known, before any range is solved."""
        self.fitted = self.train(examples, initial_loss, budget, control)
        return self.fitted

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        assert self.fitted is not None, "fit comes first"
        return self.fitted.slice(problem.start, problem.start + problem.n)
