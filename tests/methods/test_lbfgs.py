"""L-BFGS on problems whose answers are known, and against SciPy's L-BFGS-B where there are bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

import invsolve
import invsolve.methods.base
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter


def rosenbrock(x: Tensor, identifiers: Identifiers) -> Tensor:
    """Residuals of the extended Rosenbrock function (Moré, Garbow and Hillstrom 1981, problem 21); minimum 0 at 1."""
    return torch.cat([10 * (x[:, 1::2] - x[:, ::2] ** 2), 1 - x[:, ::2]], dim=1)


@pytest.mark.parametrize("d", [2, 10, 100])
def test_curved_valleys_are_followed_to_their_end(d: int) -> None:
    starts = np.random.default_rng(d).uniform(-2, 2, (6, d))
    starts[0] = np.tile([-1.2, 1.0], d // 2)
    data = Dataset(targets=np.zeros((6, d)), x0=starts)
    # With 50 valleys at once, SciPy takes as many. To converge takes longer: a loss of 0 is followed to its rounding.
    soon = invsolve.solve(data, rosenbrock, "lbfgs", max_evaluations=249)
    np.testing.assert_allclose(soon.x, 1.0, atol=1e-4)
    solution = invsolve.solve(data, rosenbrock, "lbfgs")
    assert (solution.status == Status.CONVERGED).all()
    np.testing.assert_allclose(solution.x, 1.0, atol=1e-10)
    assert solution.evaluations.max() < 700


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_field_may_start_anywhere_and_be_of_any_unit(scale: float) -> None:
    """Its unknowns share a unit, for a component that happens to start near zero is as large as the others."""
    rng = np.random.default_rng(6)
    y = rng.normal(size=(1, 40, 40))

    def smooth(x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.stack([x, *(3 * (x.roll(-1, axis) - x) for axis in (1, 2))], dim=1) / scale

    targets = np.stack([y, 0 * y, 0 * y], axis=1)
    for x0 in (0 * y, scale * rng.normal(size=(1, 40, 40))):
        solution = invsolve.solve(Dataset(targets=targets, x0=x0), smooth, "lbfgs")
        assert solution.status[0] == Status.CONVERGED
        assert solution.evaluations[0] < 150  # from 0 the loss falls by 4 %, and is followed to its rounding
        stiffness = 4 - 2 * np.cos(2 * np.pi * np.arange(40) / 40)[:, None] - 2 * np.cos(2 * np.pi * np.arange(40) / 40)
        exact = np.fft.ifft2(np.fft.fft2(y[0]) / (1 + 9 * stiffness)).real
        np.testing.assert_allclose(solution.x[0] / scale, exact, atol=1e-3)


def test_least_squares_are_those_of_linear_algebra() -> None:
    rng = np.random.default_rng(1)
    matrix, targets = rng.normal(size=(80, 50)), rng.normal(size=(5, 80))
    a = torch.from_numpy(matrix)
    data = Dataset(targets=targets, x0=np.zeros(50))
    solution = invsolve.solve(data, lambda x, _: x @ a.T, "lbfgs", options={"grad_tolerance": 1e-9})
    exact = np.linalg.lstsq(matrix, targets.T)[0].T
    # The least curvature, the square of the least singular value, is above 1.
    np.testing.assert_allclose(solution.x, exact, atol=1e-8)


def test_rows_that_come_and_go_are_solved_as_if_alone() -> None:
    starts = np.random.default_rng(3).uniform(-3, 3, (12, 4))
    few = invsolve.solve(Dataset(targets=np.zeros((12, 4)), x0=starts), rosenbrock, "lbfgs", batch_size=4)
    for i in range(12):
        alone = invsolve.solve(Dataset(targets=np.zeros((1, 4)), x0=starts[i : i + 1]), rosenbrock, "lbfgs")
        np.testing.assert_allclose(few.x[i], alone.x[0], atol=1e-6)
    assert len(set(few.evaluations.tolist())) > 5  # they did come and go


def test_large_rows_are_solved_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counting(x: Tensor, identifiers: Identifiers) -> Tensor:
        seen.append(len(x))
        return x * torch.linspace(1, 2, 10, dtype=x.dtype)

    data = Dataset(targets=np.random.default_rng(0).normal(size=(8, 10)), x0=np.zeros(10))
    together = invsolve.solve(data, counting, "lbfgs")
    assert max(seen[1:-1]) == 8
    seen.clear()
    monkeypatch.setattr(invsolve.methods.base, "STATE_BYTES", 3 * 35 * 10 * 8)
    few = invsolve.solve(data, counting, "lbfgs")
    assert max(seen[1:-1]) == 3
    np.testing.assert_allclose(few.x, together.x, rtol=1e-12)


def test_what_is_too_large_for_a_matrix_is_refused_with_the_remedy() -> None:
    data = Dataset(targets=np.zeros((1, 20_000)), x0=np.zeros(20_000))
    for choice in ({"method": "bfgs"}, {"method": "gd", "refine": "bfgs"}, {"method": "jpo"}):
        with pytest.raises(invsolve.OptionError, match="16 GB for an x of d = 20000 unknowns; use --method lbfgs"):
            invsolve.solve(data, lambda x, _: x, **choice)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_large_field_is_smoothed_to_its_known_optimum(dtype: str) -> None:
    """½|x − y|² + ½·9|∇x|² on a torus: a product in Fourier space. d = 102,400."""
    n = 320
    rng = np.random.default_rng(4)
    angle = 2 * np.pi * np.arange(n) / n
    noisy = np.sin(angle)[:, None] * np.cos(2 * angle) + 0.3 * rng.normal(size=(n, n))

    def smooth(x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.stack([x, *(3 * (x.roll(-1, axis) - x) for axis in (1, 2))], dim=1)

    targets = np.zeros((1, 3, n, n))
    targets[0, 0] = noisy
    data = Dataset(targets=targets, x0=np.zeros((1, n, n)))
    solution = invsolve.solve(data, smooth, "lbfgs", dtype=dtype)
    stiffness = 4 - 2 * np.cos(angle)[:, None] - 2 * np.cos(angle)
    exact = np.fft.ifft2(np.fft.fft2(noisy) / (1 + 9 * stiffness)).real
    loss = 0.5 * ((exact - noisy) ** 2).sum() + 4.5 * sum(((np.roll(exact, -1, a) - exact) ** 2).sum() for a in (0, 1))
    assert solution.status[0] == Status.CONVERGED
    assert solution.loss[0] == pytest.approx(loss, rel=1e-9 if dtype == "float64" else 1e-6)
    # The least curvature is 1; the rounding of float32 hides changes of the loss of 1e-6.
    np.testing.assert_allclose(solution.x[0], exact, atol=1e-4 if dtype == "float64" else 1e-2)
    assert solution.evaluations[0] < 100


@dataclass
class Bounded:
    """A problem with bounds: residuals F(x) − y, x within [lower, upper] (d,), started from x0 (d,)."""

    function: Callable[[Tensor], Tensor]
    targets: np.ndarray
    x0: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def solve(self, **options: float) -> invsolve.Solution:
        """By lbfgs, with a named parameter for each component."""

        class Model(ForwardModel):
            parameters = tuple(
                Parameter(f"p{j}", lower=a, upper=b, initial=c)
                for j, (a, b, c) in enumerate(zip(self.lower, self.upper, self.x0, strict=True))
            )

            def forward(_, x: Tensor, identifiers: Identifiers) -> Tensor:
                return self.function(x)

        return invsolve.solve(Dataset(targets=self.targets[None]), Model, "lbfgs", options=options)

    def scipy(self, **options: float) -> scipy.optimize.OptimizeResult:
        """By SciPy's L-BFGS-B."""
        y = torch.from_numpy(self.targets)

        def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
            z = torch.from_numpy(x)[None].requires_grad_()
            loss = 0.5 * (self.function(z)[0] - y).square().sum()
            return loss.item(), torch.autograd.grad(loss, z)[0][0].numpy()

        bounds = np.stack([self.lower, self.upper], axis=1)
        return scipy.optimize.minimize(
            value_and_gradient, self.x0, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"ftol": 0, "maxiter": 10_000, "maxfun": 100_000, **options},
        )  # fmt: skip


def deconvolution() -> Bounded:
    """A spiky signal that is nowhere negative, from a blurred and noisy one; rather smooth."""
    d, rng = 4000, np.random.default_rng(0)
    kernel = np.exp(-0.5 * (np.arange(-15, 16) / 4) ** 2)
    weight = torch.from_numpy(kernel / kernel.sum())[None, None]
    t = np.arange(d)
    truth = np.maximum(np.sin(t / 37) * np.cos(t / 211), 0) * (rng.random(d) < 0.9)

    def function(x: Tensor) -> Tensor:
        return torch.cat([conv1d(x[:, None], weight, padding=15)[:, 0], 0.1 * x.diff(dim=1)], dim=1)

    blurred = function(torch.from_numpy(truth)[None])[0, :d].numpy() + 0.02 * rng.normal(size=d)
    targets = np.concatenate([blurred, np.zeros(d - 1)])
    return Bounded(function, targets, np.full(d, 0.5), np.zeros(d), np.full(d, np.inf))


def obstacle() -> Bounded:
    """A membrane over a hill, pressed down at its feet: the classical obstacle problem, condition number 10³."""
    n = 50
    t = np.linspace(-0.5, 0.5, n)
    hill = np.maximum(0, 0.3 - 4 * (t[:, None] ** 2 + t**2))

    def function(x: Tensor) -> Tensor:
        u = pad(x.reshape(-1, n, n), (1, 1, 1, 1))
        return torch.cat([u.diff(dim=1).flatten(1), u.diff(dim=2).flatten(1)], dim=1)

    targets = np.zeros(len(function(torch.zeros(1, n * n))[0]))
    return Bounded(function, targets, np.ones(n * n), hill.ravel(), np.full(n * n, np.inf))


def saturated() -> Bounded:
    """Nonlinear and coupled in all components, with bounds on both sides, most of them active."""
    d, rng = 2500, np.random.default_rng(1)
    a = torch.from_numpy(rng.normal(size=(d, d)) / np.sqrt(d))

    def function(x: Tensor) -> Tensor:
        return torch.tanh(x @ a.T) + 0.3 * x

    return Bounded(function, 2 * rng.normal(size=d), np.zeros(d), np.full(d, -0.7), np.full(d, 0.5))


@pytest.mark.parametrize(("problem", "active"), [(deconvolution, 1500), (obstacle, 100), (saturated, 1500)])
def test_thousands_of_active_bounds_cost_no_more_than_by_scipy(problem: Callable[[], Bounded], active: int) -> None:
    p = problem()
    ours, theirs = p.solve(grad_tolerance=1e-5), p.scipy(gtol=1e-5)
    x = ours.x[0]
    assert ours.status[0] == Status.CONVERGED
    assert ours.loss[0] == pytest.approx(theirs.fun, rel=1e-6)
    assert ((x >= p.lower) & (x <= p.upper)).all()
    assert ((x == p.lower) | (x == p.upper)).sum() >= active
    assert ours.evaluations[0] <= 1.3 * theirs.nfev + 10


def test_small_problems_with_bounds_have_the_exact_solutions() -> None:
    rng = np.random.default_rng(8)
    matrix = rng.normal(size=(9, 6))
    targets = rng.normal(size=(40, 9)) * 3
    a = torch.from_numpy(matrix)
    lower, upper = np.array([-1, 0, -np.inf, 0.2, -2, -0.1]), np.array([1, np.inf, 0.5, 0.3, 2, 0.1])

    class Box(ForwardModel):
        parameters = tuple(
            Parameter(f"p{j}", lower=low, upper=high, initial=start)
            for j, (low, high, start) in enumerate(zip(lower, upper, [0.5, 1, 0, 0.25, 1.9, 0.1], strict=True))
        )

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return x @ a.T

    solution = invsolve.solve(Dataset(targets=targets), Box, "lbfgs")
    assert (solution.status == Status.CONVERGED).all()
    for i, y in enumerate(targets):
        exact = scipy.optimize.lsq_linear(matrix, y, bounds=(lower, upper), method="bvls")
        assert solution.loss[i] == pytest.approx(exact.cost, rel=1e-6, abs=1e-9)
    assert solution.evaluations.max() < 60


def test_it_refines_and_keeps_the_better() -> None:
    starts = np.random.default_rng(5).uniform(-2, 2, (5, 10))
    data = Dataset(targets=np.zeros((5, 10)), x0=starts)
    rough = invsolve.solve(data, rosenbrock, "gd", options={"max_iterations": 20})
    refined = invsolve.solve(data, rosenbrock, "gd", options={"max_iterations": 20}, refine="lbfgs")
    assert rough.loss.min() > 1e-3
    assert refined.loss.max() < 1e-8


def test_a_memory_that_fills_the_machine_is_refused() -> None:
    data = invsolve.Dataset(targets=np.ones((3, 2)), x0=np.ones(2))
    with pytest.raises(invsolve.OptionError, match="memory.*less than or equal to 1000"):
        invsolve.solve(data, lambda x, identifiers: 2 * x, "lbfgs", options={"memory": 10**9})
