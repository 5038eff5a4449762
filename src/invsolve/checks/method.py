"""Does a method keep what users rely on? Looked at on small problems whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invsolve.checks.report import Finding, Report, Verdict, examine
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Solution, Status
from invsolve.methods.base import RowMethod
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.pipeline import generate, solve
from invsolve.registry import load_method, method_class

_BUDGETS = (3, 7, 40)


@dataclass
class MethodUnderCheck:
    """A registered method, with options that keep it quick."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def solve(self, data: Dataset, model: Any, **more: Any) -> Solution:
        """Solve without caring what the method is."""
        return solve(data, model, self.name, device="cpu", options=self.options, **more)


class _Bounded(ForwardModel):
    """y = x³ with x in [0.5, 2]. Records every x that it is asked for."""

    parameters = (Parameter("a", lower=0.5, upper=2.0, initial=1.0),)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        self.asked.append(x.detach().clone())
        return x**3


def check_method(name: str, options: Mapping[str, Any] | None = None) -> Report:
    """All that every method must keep.

    Raises:
        OptionError: no method is registered under this name, or an option of it is unknown or unusable.
    """
    load_method(name, options or {}, seed=0)
    subject = MethodUnderCheck(name, options or {})
    return Report(f"method '{name}'", examine(CHECKS, subject))


def quadratics() -> Dataset:
    """24 convex problems y = γ ∘ x of three unknowns with condition numbers up to 100, and their solutions."""
    rng = np.random.default_rng(5)
    x_true = rng.uniform(-3, 3, (24, 3))
    stiffness = 10.0 ** rng.uniform(-0.5, 0.5, (24, 3))
    return Dataset(targets=stiffness * x_true, identifiers=stiffness, x0=np.zeros(3), x_true=x_true)


def product(x: Tensor, identifiers: Tensor) -> Tensor:
    """The forward model y = γ ∘ x of `quadratics`."""
    return identifiers * x


def _nan_for_negative(x: Tensor, identifiers: Tensor) -> Tensor:
    y = product(x, identifiers)
    return torch.where(identifiers < 0, torch.full_like(y, torch.nan), y)


def _raises_for_negative(x: Tensor, identifiers: Tensor) -> Tensor:
    if bool((identifiers < 0).any()):
        raise ValueError("a stiffness cannot be negative")
    return product(x, identifiers)


def _verdict(name: str, good: bool, well: str, badly: str) -> Finding:
    return Finding(name, Verdict.OK if good else Verdict.FAULT, well if good else badly)


def _convex(s: MethodUnderCheck) -> Finding:
    data = quadratics()
    solution = s.solve(data, product)
    # A gradient of 1e-5 over the least curvature, the stiffness squared, 0.1, leaves 1e-4.
    error = float(np.abs(solution.x - np.asarray(data.x_true)).max())
    converged = int((solution.status == Status.CONVERGED).sum())
    found = f"{converged} of 24 converged, x off by {error:.1g} at most"
    return _verdict("convex problems", converged == 24 and error <= 1.5e-4, found, f"{found}; 1.5e-4 is needed")


def _bounds(s: MethodUnderCheck) -> Finding:
    model = _Bounded()
    targets = np.array([[0.0], [0.2], [1.0], [3.0], [8.0], [50.0]])
    solution = s.solve(Dataset(targets=targets), model)
    asked = torch.cat(model.asked)
    low, high = float(asked.min()), float(asked.max())
    error = float(np.abs(solution.x[:, 0] - np.cbrt(targets[:, 0]).clip(0.5, 2.0)).max())
    if low < 0.5 or high > 2.0:
        return Finding("bounds", Verdict.FAULT, f"F was asked for x in [{low:g}, {high:g}], its bounds are [0.5, 2]")
    return _verdict(
        "bounds", error <= 1e-4, "kept by every trial", f"kept, but x is off by {error:.1g} at or near them"
    )


def _failing_row(s: MethodUnderCheck) -> Finding:
    clean = quadratics()
    identifiers = np.array(clean.identifiers)
    identifiers[5] = -1
    others = np.arange(24) != 5
    for what, model in (("NaN", _nan_for_negative), ("an exception", _raises_for_negative)):
        alone = s.solve(clean, model)
        solution = s.solve(replace(clean, identifiers=identifiers), model)
        if solution.status[5] != Status.NONFINITE:
            return Finding("a failing row", Verdict.FAULT, f"{what} in a row is not told as its status nonfinite")
        harmed = not (solution.loss[others] < 1e-6).all()
        if issubclass(method_class(s.name), RowMethod):
            harmed |= not np.allclose(solution.loss[others], alone.loss[others], rtol=1e-6, atol=1e-12)
        if harmed:
            return Finding("a failing row", Verdict.FAULT, f"{what} in a row changes the solutions of others")
    return Finding("a failing row", Verdict.OK, "NaN or an exception in a row is its status, and harms no other")


def _budget(s: MethodUnderCheck) -> Finding:
    for most in _BUDGETS:
        seen = torch.zeros(8, dtype=torch.int64)

        def counting(x: Tensor, identifiers: Tensor, seen: Tensor = seen) -> Tensor:
            seen.index_add_(0, identifiers[:, 0].long(), torch.ones(len(x), dtype=torch.int64))
            return torch.sin(3 * x) + x

        data = Dataset(targets=np.linspace(-3, 3, 8)[:, None], identifiers=np.arange(8.0)[:, None], x0=np.zeros((8, 1)))
        solution = s.solve(data, counting, max_evaluations=most, batch_size=3)
        if not np.array_equal(solution.evaluations, seen.numpy()):
            return Finding("budget", Verdict.FAULT, f"says {solution.evaluations.sum()} evaluations, did {seen.sum()}")
        if solution.evaluations.max() > most:
            found = f"{solution.evaluations.max()} evaluations of an example, at most {most} were allowed"
            return Finding("budget", Verdict.FAULT, found)
        if not (solution.loss <= solution.loss_initial * (1 + 1e-12)).all():
            return Finding("budget", Verdict.FAULT, f"some example is worse than its start after {most} evaluations")
    return Finding("budget", Verdict.OK, "kept and truly counted; no example ends worse than it started")


def _alone(s: MethodUnderCheck) -> Finding:
    name = "alone = in a batch"
    if not issubclass(method_class(s.name), RowMethod):
        return Finding(name, Verdict.SKIPPED, "the method learns from all examples, or goes by their numbers")
    data = generate("billiards", 9, seed=2)
    together = s.solve(data, None)
    for i in range(9):
        single = s.solve(Dataset(data.targets[i : i + 1], data.identifiers[i : i + 1], model="billiards"), None)  # type: ignore[index]
        same = np.allclose(single.loss[0], together.loss[i], rtol=1e-6, atol=1e-12)
        if not (same and np.allclose(single.x[0], together.x[i], rtol=1e-5, atol=1e-6)):
            return Finding(name, Verdict.FAULT, f"example {i} has another solution alone than among others")
    turned = replace(data, targets=data.targets[::-1], identifiers=data.identifiers[::-1], x_true=None)  # type: ignore[index]
    for what, again in (
        ("smaller batches", s.solve(data, None, batch_size=2).loss),
        ("another order", s.solve(turned, None).loss[::-1]),
    ):
        if not np.allclose(again, together.loss, rtol=1e-6, atol=1e-12):
            return Finding(name, Verdict.FAULT, f"{what} give other solutions")
    return Finding(name, Verdict.OK, "batch size and order change nothing")


def _seed(s: MethodUnderCheck) -> Finding:
    data = generate("billiards", 12, seed=1)
    one, again = (s.solve(data, None, seed=3) for _ in range(2))
    same = np.array_equal(one.x, again.x) and np.array_equal(one.evaluations, again.evaluations)
    return _verdict("seed", same, "the same seed gives the same result", "the same seed gives another result")


def _single_precision(s: MethodUnderCheck) -> Finding:
    solution = s.solve(generate("billiards", 10, seed=1), None, dtype="float32")
    median = float(np.median(solution.loss))
    found = f"median loss {median:.1g} on billiards"
    return _verdict("float32", median < 1e-6, found, f"{found}; 1e-6 is needed")


CHECKS = (
    ("convex problems", _convex),
    ("bounds", _bounds),
    ("a failing row", _failing_row),
    ("budget", _budget),
    ("alone = in a batch", _alone),
    ("seed", _seed),
    ("float32", _single_precision),
)
