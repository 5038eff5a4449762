"""`check --method` finds what is wrong with a method, each defect by its own check."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invsolve.checks.method import check_method
from invsolve.checks.report import Verdict
from invsolve.control import Control
from invsolve.data.solution import Status
from invsolve.engine import RowResults
from invsolve.methods.base import Budget
from invsolve.methods.bfgs import Bfgs, BfgsStepper
from invsolve.problem import Problem


class Sound(Bfgs):
    """BFGS under another name."""


class Unbounded(Bfgs):
    """Knows no bounds."""

    def stepper(self, problem: Problem) -> BfgsStepper:
        away = torch.full_like(problem.coordinates.lower, torch.inf)
        problem.coordinates.x_lower, problem.coordinates.x_upper = -away, away
        return BfgsStepper(self.options, -away, away)


class Spendthrift(Bfgs):
    """Knows no budget."""

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        return super().solve(problem, z0, Budget(None, budget.slots), control)


class Random(Bfgs):
    """Starts wherever it likes."""

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        return super().solve(problem, z0 + 0.1 * torch.rand_like(z0), budget, control)


class Coupled(Bfgs):
    """Lets every row start at the mean of all."""

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        mean = problem.targets.mean() / 10
        return super().solve(problem, z0 + mean, budget, control)


class Liar(Bfgs):
    """Does nothing, and says it converged."""

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        results = RowResults.unstarted(z0)
        results.status.fill_(int(Status.CONVERGED))
        return results


def faults(method: type[Bfgs], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setitem(__import__("invsolve.registry").registry.METHODS, "mine", f"{__name__}:{method.__name__}")
    monkeypatch.setattr(method, "name", "mine")
    return {f.check for f in check_method("mine").findings if f.verdict is Verdict.FAULT}


def test_nothing_is_found_in_a_sound_method(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(Sound, monkeypatch) == set()


@pytest.mark.parametrize(
    ("method", "check"),
    [
        (Unbounded, "bounds"),
        (Spendthrift, "budget"),
        (Random, "seed"),
        (Coupled, "alone = in a batch"),
        (Liar, "convex problems"),
    ],
)
def test_each_defect_is_found_by_its_check(method: type[Bfgs], check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check in faults(method, monkeypatch)
