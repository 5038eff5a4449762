"""What every registered method must keep; a new one is tested here unasked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.methods.base import RowMethod
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.registry import method_class, registered
from tests.conftest import quadratic

NAMES = sorted(registered("methods"))
ROW_METHODS = [name for name in NAMES if issubclass(method_class(name), RowMethod)]
# Training is cut short in these tests; refinement then does what a short training leaves.
OPTIONS: dict[str, dict[str, Any]] = {"jpo": {"steps": 60}}


class Bounded(ForwardModel):
    """y = x³ with x in [0.5, 2]: the unbounded minimum of most rows lies outside. Records every x it is asked for."""

    parameters = (Parameter("a", lower=0.5, upper=2.0, initial=1.0),)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        self.asked.append(x.detach().clone())
        return x**3


def nan_for_negative(x: Tensor, identifiers: Tensor) -> Tensor:
    y = quadratic(x, identifiers)
    return torch.where(identifiers < 0, torch.full_like(y, torch.nan), y)


def raises_for_negative(x: Tensor, identifiers: Tensor) -> Tensor:
    if bool((identifiers < 0).any()):
        raise ValueError("a stiffness cannot be negative")
    return quadratic(x, identifiers)


def solve(data: Dataset, model: Any, name: str, **more: Any) -> invsolve.Solution:
    return invsolve.solve(data, model, name, options=OPTIONS.get(name, {}), **more)


@pytest.mark.parametrize("name", NAMES)
def test_convex_problems_are_solved_exactly(name: str, quadratics: Dataset) -> None:
    solution = solve(quadratics, quadratic, name)
    assert (solution.status == Status.CONVERGED).all()
    # A gradient of 1e-5 over the least curvature, the stiffness squared, 0.1, leaves 1e-4.
    np.testing.assert_allclose(solution.x, np.asarray(quadratics.x_true), atol=1.5e-4)
    assert (solution.grad_norm <= 1e-5).all()


@pytest.mark.parametrize("name", ROW_METHODS)
@pytest.mark.parametrize(
    ("model", "n", "iterations"), [("wave-packet", 9, 500), ("billiards", 9, 500), ("kuramoto-sivashinsky", 3, 8)]
)
def test_alone_equals_in_a_batch(name: str, model: str, n: int, iterations: int) -> None:
    data = invsolve.generate(model, n, seed=2)
    options = {"max_iterations": iterations}
    together = invsolve.solve(data, method=name, options=options)
    for i in range(n):
        identifiers = None if data.identifiers is None else data.identifiers[i : i + 1]
        alone = Dataset(targets=data.targets[i : i + 1], identifiers=identifiers, model=model)
        single = invsolve.solve(alone, method=name, options=options)
        np.testing.assert_allclose(single.loss[0], together.loss[i], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(single.x[0], together.x[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROW_METHODS)
def test_batch_size_and_order_change_nothing(name: str) -> None:
    data = invsolve.generate("billiards", 16, seed=4)
    whole = solve(data, None, name)
    pieces = solve(data, None, name, batch_size=3)
    np.testing.assert_allclose(pieces.loss, whole.loss, rtol=1e-6, atol=1e-12)
    turned = replace(data, targets=data.targets[::-1], identifiers=data.identifiers[::-1], x_true=None)
    np.testing.assert_allclose(solve(turned, None, name).loss[::-1], whole.loss, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_kept_by_every_trial(name: str) -> None:
    model = Bounded()
    targets = np.array([[0.0], [0.2], [1.0], [3.0], [8.0], [50.0]])
    solution = solve(Dataset(targets=targets), model, name)
    asked = torch.cat(model.asked)
    assert asked.min() >= 0.5
    assert asked.max() <= 2.0
    np.testing.assert_allclose(solution.x[:, 0], [0.5, 0.2 ** (1 / 3), 1.0, 3 ** (1 / 3), 2.0, 2.0], atol=1e-4)
    assert (solution.status == Status.CONVERGED).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", [nan_for_negative, raises_for_negative])
def test_a_failing_row_harms_no_other(name: str, model: Any, quadratics: Dataset) -> None:
    identifiers = np.array(quadratics.identifiers)
    identifiers[5] = -1
    dirty = replace(quadratics, identifiers=identifiers)
    clean, solution = solve(quadratics, model, name), solve(dirty, model, name)
    assert solution.status[5] == Status.NONFINITE
    assert np.isinf(solution.loss[5])
    others = np.arange(24) != 5
    assert (solution.status[others] == Status.CONVERGED).all()
    if name in ROW_METHODS:
        np.testing.assert_allclose(solution.loss[others], clean.loss[others], rtol=1e-6, atol=1e-12)
    assert (solution.loss[others] < 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("most", [3, 7, 40])
def test_counts_are_true_and_within_the_budget(name: str, most: int) -> None:
    seen = torch.zeros(8, dtype=torch.int64)

    def counting(x: Tensor, identifiers: Tensor) -> Tensor:
        seen.index_add_(0, identifiers[:, 0].long(), torch.ones(len(x), dtype=torch.int64))
        return torch.sin(3 * x) + x

    data = Dataset(targets=np.linspace(-3, 3, 8)[:, None], identifiers=np.arange(8.0)[:, None], x0=np.zeros((8, 1)))
    solution = solve(data, counting, name, max_evaluations=most, batch_size=3)
    assert np.array_equal(solution.evaluations, seen.numpy())
    assert solution.evaluations.max() <= most
    assert (solution.gradients <= solution.evaluations).all()
    assert (solution.loss <= solution.loss_initial * (1 + 1e-12)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_result(name: str) -> None:
    data = invsolve.generate("billiards", 12, seed=1)
    one, again = (solve(data, None, name, seed=3) for _ in range(2))
    assert np.array_equal(one.x, again.x)
    assert np.array_equal(one.evaluations, again.evaluations)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_the_solutions(name: str) -> None:
    data = invsolve.generate("wave-packet", 10, seed=6)
    data.sigma = np.full(10, 0.1)
    gaps = np.array(data.targets)
    gaps[:, ::7] = np.nan
    data.targets = gaps
    solution = solve(data, None, name)
    t = np.linspace(0, 20, 128) - solution.x
    residual = (np.sin(t) * np.exp(-(t**2) / 8) - gaps) / 0.1
    np.testing.assert_allclose(solution.loss, 0.5 * np.nansum(residual**2, axis=1), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_float32_works_and_scores_in_float64(name: str) -> None:
    data = invsolve.generate("billiards", 10, seed=1)
    solution = solve(data, None, name, dtype="float32")
    assert solution.loss.dtype == np.float64
    assert solution.x.dtype == np.float64
    assert np.median(solution.loss) < 1e-6
