"""BFGS on problems whose answers are known, and against SciPy's on the built-in models."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from benchmarks.bfgs import scipy_loop
from torch import Tensor

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from tests.strd.problems import NAMES, load


def rosenbrock(x: Tensor, identifiers: Tensor | None) -> Tensor:
    """Residuals of the Rosenbrock function (Moré, Garbow and Hillstrom 1981, problem 1); minimum 0 at (1, 1)."""
    return torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], dim=1)


def test_curved_valleys_are_followed_to_their_end() -> None:
    starts = np.array([[-1.2, 1.0], [0.0, 0.0], [2.0, -3.0], [-4.0, 5.0]])
    data = Dataset(targets=np.zeros((4, 2)), x0=starts)
    solution = invsolve.solve(data, rosenbrock, "bfgs")
    np.testing.assert_allclose(solution.x, 1.0, atol=1e-4)
    assert (solution.status == Status.CONVERGED).all()
    assert solution.evaluations.max() < 150


@pytest.mark.parametrize("name", ["wave-packet", "billiards"])
def test_never_worse_than_scipy_in_mean_loss(name: str) -> None:
    """Kuramoto–Sivashinsky takes SciPy minutes, and NaN in one row of three: see benchmarks/bfgs.py."""
    data = invsolve.generate(name, 256, seed=21)
    theirs, _, _ = scipy_loop(data)
    ours = invsolve.solve(data, method="bfgs").loss
    assert ours.mean() <= theirs.mean() * (1 + 1e-6)


class Box(ForwardModel):
    """A stretched valley, rotated against its bounds: the constrained minimum is on an edge or in a corner."""

    parameters = (Parameter("a", lower=-1, upper=1, initial=0.5), Parameter("b", lower=0, upper=2, initial=1.5))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.stack([x[:, 0] + x[:, 1], 10 * (x[:, 0] - x[:, 1])], dim=1)


def test_minima_on_bounds_agree_with_scipy() -> None:
    rng = np.random.default_rng(8)
    targets = np.stack([rng.uniform(-4, 6, 40), rng.uniform(-40, 40, 40)], axis=1)
    solution = invsolve.solve(Dataset(targets=targets), Box, "bfgs")
    matrix = np.array([[1.0, 1.0], [10.0, -10.0]])
    for i, y in enumerate(targets):
        exact = scipy.optimize.lsq_linear(matrix, y, bounds=([-1, 0], [1, 2]), tol=1e-14)
        assert solution.loss[i] == pytest.approx(exact.cost, rel=1e-6, abs=1e-9)
    assert (solution.status == Status.CONVERGED).all()
    on_edge = (np.abs(solution.x[:, 0]) == 1) | (solution.x[:, 1] == 0) | (solution.x[:, 1] == 2)
    assert on_edge.sum() > 20


def test_max_iterations_ends_in_budget() -> None:
    data = Dataset(targets=np.zeros((1, 2)), x0=np.array([-1.2, 1.0]))
    solution = invsolve.solve(data, rosenbrock, "bfgs", options={"max_iterations": 4})
    assert solution.status[0] == Status.BUDGET
    assert solution.iterations[0] == 4


def test_what_rounding_hides_counts_as_converged() -> None:
    """A loss of 10⁶ resolves no decrease of less than 10⁻¹⁰, whatever tolerance is asked for."""

    def bowl(x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.cat([x.cosh() * (1 + x[:, :1] ** 2), torch.full_like(x, 1e3)], dim=1)

    data = Dataset(targets=np.tile([0.0, 0.0, 2e3, 2e3], (20, 1)), x0=np.random.default_rng(0).normal(size=(20, 2)))
    solution = invsolve.solve(data, bowl, "bfgs", options={"grad_tolerance": 1e-12})
    assert (solution.status == Status.CONVERGED).all()
    np.testing.assert_allclose(solution.x, 0, atol=1e-4)
    assert solution.grad_norm.max() > 1e-12


TIMES = torch.linspace(0, 3, 20, dtype=torch.float64)


def decay(x: Tensor, identifiers: Identifiers) -> Tensor:
    return x[:, :1] * torch.exp(-x[:, 1:] * TIMES)


class NamedDecay(ForwardModel):
    parameters = (
        Parameter("amplitude", lower=0, upper=10, initial=1.0),
        Parameter("rate", lower=0, scale="log", initial=1.0),
    )

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return decay(x, identifiers)


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-3, 1e9])
@pytest.mark.parametrize("named", [False, True])
def test_the_unit_of_the_targets_does_not_matter(scale: float, named: bool) -> None:
    """Without sigma a loss may be of any size; what is found, and how soon, is the same."""
    rng = np.random.default_rng(3)
    x_true = np.stack([rng.uniform(1, 3, 30), rng.uniform(0.3, 2, 30)], axis=1)
    noise = 0.01 * rng.normal(size=(30, 20))
    clean = x_true[:, :1] * np.exp(-x_true[:, 1:] * TIMES.numpy())

    def solve(unit: float) -> invsolve.Solution:
        class Scaled(NamedDecay):
            def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
                return unit * decay(x, identifiers)

        data = Dataset(targets=unit * (clean + noise), x0=np.ones(2))
        return invsolve.solve(data, Scaled if named else lambda x, identifiers: unit * decay(x, identifiers), "bfgs")

    found, usual = solve(scale), solve(1.0)
    assert (found.status == Status.CONVERGED).all()
    np.testing.assert_allclose(found.x, usual.x, rtol=1e-4)
    if not named:
        # The same trials, up to rounding.
        assert np.abs(found.iterations - usual.iterations).max() <= 1


@pytest.mark.parametrize("units", [(1.0, 1.0), (1e6, 1e-9), (1e-9, 1e3)])
def test_units_of_unnamed_unknowns_are_found(units: tuple[float, float]) -> None:
    """Each row by itself, so that rows of different units may stand beside each other."""
    unit = np.array([units, (1.0, 1.0), units[::-1]])
    x_true = np.array([[2.0, 0.7], [1.5, 1.2], [2.5, 0.4]])
    targets = x_true[:, :1] * np.exp(-x_true[:, 1:] * TIMES.numpy())

    def model(x: Tensor, identifiers: Tensor) -> Tensor:
        return decay(x / identifiers, None)

    data = Dataset(targets=targets, identifiers=unit, x0=np.array([1.2, 0.9]) * unit)
    solution = invsolve.solve(data, model, "bfgs")
    np.testing.assert_allclose(solution.x / unit, x_true, rtol=1e-9)
    assert solution.evaluations.max() < 40


def test_unnamed_unknowns_at_zero_take_their_unit_from_the_gradient() -> None:
    scale = np.array([[1e9], [1.0], [1e-9]])
    x_true = scale * np.array([[3.0, -2.0, 0.5]])
    data = Dataset(targets=x_true / scale, identifiers=scale, x0=np.zeros((3, 3)))
    solution = invsolve.solve(data, lambda x, identifiers: x / identifiers, "bfgs")
    np.testing.assert_allclose(solution.x, x_true, rtol=1e-9)
    assert solution.evaluations.max() < 10


# Starts of the regression sets from which no minimum is found: MGH17 ends in a flat valley of the far start, Eckerle4
# on a plateau beside its peak.
OUT_OF_REACH = {("Eckerle4", 0), ("MGH17", 0)}


@pytest.mark.parametrize("name", NAMES)
def test_certified_optima_of_the_regression_sets_are_reached(name: str) -> None:
    problem = load(name)
    solution = invsolve.solve(problem.dataset(), problem.function, "bfgs", options={"max_iterations": 2000})
    missed = {(name, i) for i in range(2) if not problem.reached(solution.x[i])}
    assert missed <= OUT_OF_REACH
