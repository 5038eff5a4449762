"""What a method is: options, and a solve by rows; the row methods, which are state machines run by the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from invsolve.control import Control
from invsolve.engine import Evaluation, Kernels, RowResults, RowStepper, run_rows
from invsolve.options import Options as BaseOptions
from invsolve.options import parse_options
from invsolve.problem import Batch, Problem

_NO_LIMIT = torch.iinfo(torch.int64).max

STATE_BYTES = 4 * 2**30
"""What the states of the rows that are solved together may take; of larger rows, fewer are solved at a time."""


@dataclass(frozen=True)
class Budget:
    """How much work a solve may do."""

    max_evaluations: int | None = None  # per example, those counted by the problem already included
    slots: int = 1024  # examples in one batched call, at most
    kernels: Kernels | None = None  # of a row method's rounds, where they are compiled
    refiner: Method | None = None  # with what a joint method refines its solutions, for which it leaves evaluations
    limits: Tensor | None = None  # (n,) of each row's own count, in place of `max_evaluations`

    def limit(self, problem: Problem) -> Tensor:
        """(n,) int64: where each row's count must end."""
        if self.limits is not None:
            return self.limits
        most = _NO_LIMIT if self.max_evaluations is None else self.max_evaluations
        return torch.full((problem.n,), most, dtype=torch.int64, device=problem.device)

    def left(self, made: Tensor) -> int:
        """Evaluations that are left to every example, of which `made` (n,) were."""
        return _NO_LIMIT if self.max_evaluations is None else max(0, self.max_evaluations - int(made.max()))


class Method(ABC):
    """A way to solve rows. Subclasses set `name` and `Options`, and define `solve`."""

    name: ClassVar[str]
    refines_with: ClassVar[str] = "none"
    """The row method that polishes this method's solutions unless the user says otherwise."""
    uses_seed: ClassVar[bool] = True
    """Whether anything is drawn at random; where not, all seeds have one solution, and `compare` asks for it once."""
    columns: ClassVar[tuple[str, ...]] = ()
    """What it tells of each example beside what all methods do: see `RowResults`."""

    Options: type[BaseOptions] = BaseOptions
    options: Any

    def __init__(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        self.seed = seed
        self.options = parse_options(type(self).Options, options or {}, f"method '{self.name}'")

    @property
    def row_method(self) -> RowMethod | None:
        """The row method that does its work, whose batch size is raced for and whose rounds may be compiled."""
        return None

    @property
    def rows_each(self) -> int:
        """Rows that an example is solved as at a time, about."""
        return 1

    @property
    def minimizes_loss(self) -> bool:
        """Whether what the method minimizes is the loss that all others do, so that they may refine its solutions."""
        return True

    def refusal(self, d: int, dtype: torch.dtype) -> str | None:
        """Why the method cannot take examples of d unknowns, and what to use instead; None where it can."""
        return None

    @abstractmethod
    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        """Solutions of the problem's rows, started from z0 (n, d), each independent of the other rows."""


def loss_unit(first_loss: Tensor) -> Tensor:
    """What a row's gradient (b,) is held against: 1, or in proportion to its first loss where that is below 0.01.

    Losses of targets in their errors are counts, and 1 says something. Without sigma they may be of any size, and below
    some size it is that of the targets. Above zero always.
    """
    return (first_loss / 0.01).clamp(torch.finfo(first_loss.dtype).tiny, 1.0)


class RowOptions(BaseOptions):
    """What all row methods share."""

    grad_tolerance: float = Field(
        1e-5,
        ge=0,
        description="converged once the max-norm of the gradient, per typical change of each parameter and projected "
        "where bounds are active, is at most this; in proportion to the first loss where that is small",
    )
    max_iterations: int = Field(1000, ge=1, description="accepted steps per example at most")


class FirstOrder:
    """What a stepper is that takes loss and gradient: a base of such."""

    cost = 1

    def evaluate(self, problem: Problem, batch: Batch, state: Any, trial: Tensor) -> Evaluation:
        """Loss (b,) and gradient (b, d) at the trials (b, d), +inf and 0 where F fails."""
        compute = problem.objective
        loss, gradient = problem.attempt(compute, "gradient", batch, trial, failed=problem.nowhere(trial))
        return self._evaluation(loss, gradient)

    def compute(self, problem: Problem, batch: Batch, state: Any, trial: Tensor) -> Evaluation:
        """The same, for a model that does not raise."""
        return self._evaluation(*problem.objective(batch, trial))

    def _evaluation(self, loss: Tensor, gradient: Tensor) -> Evaluation:
        one = torch.ones_like(loss, dtype=torch.int64)
        return Evaluation(loss, (gradient,), one, one)


class RowMethod(Method):
    """A method that is a state machine of its rows, run by the engine."""

    @property
    def row_method(self) -> RowMethod:
        return self

    @abstractmethod
    def stepper(self, problem: Problem) -> RowStepper[Any]:
        """The mathematics, for this problem's bounds, device and dtype."""

    def prepare(self, problem: Problem, limit: Tensor) -> None:
        """Find out what `stepper` goes by; what that computes is counted, within the `limit` (n,) of each row."""

    def why_uncompiled(self, d: int) -> str | None:
        """Why the rounds for d unknowns cannot be compiled; None where they can."""
        return None

    def row_bytes(self, d: int, dtype: torch.dtype) -> int:
        """Memory that a row of d unknowns takes while it is advanced, about."""
        return 12 * d * dtype.itemsize

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        limit = budget.limit(problem)
        self.prepare(problem, limit)
        fitting = max(1, STATE_BYTES // self.row_bytes(problem.d, problem.dtype))
        return run_rows(
            self.stepper(problem),
            problem,
            z0,
            limit=limit,
            slots=min(budget.slots, fitting),
            control=control,
            stage=self.name,
            kernels=budget.kernels,
        )
