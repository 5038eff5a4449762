"""Levenberg–Marquardt where the answers are certified, by hand, or SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Normal, Parameter
from tests.strd.problems import NAMES, load
from tests.test_jacobian import backward_only, older_form

T = np.linspace(0, 3, 40)
SOLVERS = pytest.mark.parametrize("solver", ["dense", "cg"])
EXACT = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
TRUE = np.array([[3.0, 1.2, 0.5], [2.0, 0.8, -1.0], [1.0, 3.0, 0.2], [4.0, 2.0, 0.0]])


def decay(x: Tensor, identifiers: Identifiers = None) -> Tensor:
    return x[:, :1] * torch.exp(-x[:, 1:2] * torch.from_numpy(T).to(x)) + x[:, 2:3]


def measured(n: int = 4, noise: float = 0.02) -> np.ndarray:
    """Noisy curves (n, 40) of the rows of TRUE in turn."""
    y = decay(torch.from_numpy(TRUE)).numpy()[np.arange(n) % len(TRUE)]
    return y + noise * np.random.default_rng(5).normal(size=y.shape)


def solve(y: np.ndarray, model: Any = decay, x0: Any = (1.0, 1.0, 0.0), **more: Any) -> invsolve.Solution:
    keywords = ("prior", "dtype", "max_evaluations", "batch_size", "compile")
    settings = {k: more.pop(k) for k in keywords if k in more}
    data = {k: more.pop(k) for k in ("identifiers", "sigma") if k in more}
    start = None if x0 is None else np.tile(x0, (len(y), 1))
    return invsolve.solve(Dataset(targets=y, x0=start, **data), model, "lm", options=more, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_both_starts_of_every_certified_set_reach_its_optimum(name: str) -> None:
    problem = load(name)
    solution = invsolve.solve(problem.dataset(), problem.function, "lm", compile="off")
    assert all(problem.reached(x) for x in solution.x)
    assert (solution.status == Status.CONVERGED).all()


@pytest.mark.parametrize(("start", "steps"), [(1e3, 1), (0.0, 3)])
def test_linear_least_squares_take_as_few_steps_as_the_region_allows(start: float, steps: int) -> None:
    """From far away one; from zero the first region has radius one, and doubles."""
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(12, 5)), rng.normal(size=(4, 12))
    solution = solve(y, lambda x, identifiers: x @ torch.from_numpy(a.T), x0=[start] * 5)
    np.testing.assert_allclose(solution.x, np.linalg.lstsq(a, y.T, rcond=None)[0].T, rtol=1e-9, atol=1e-10)
    assert solution.iterations.max() <= steps


class Coupled(ForwardModel):
    """Five unknowns that act alike, within [−1, 1]; two of them start on a bound."""

    parameters = tuple(Parameter(f"p{i}", lower=-1, upper=1, initial=-1.0 if i % 2 else 0.3) for i in range(5))
    matrix = np.random.default_rng(2).normal(size=(12, 5)) @ np.diag([1, 1, 10, 0.1, 1]) @ (np.eye(5) + 0.8)

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x @ torch.from_numpy(self.matrix.T)


class Bent(Coupled):
    """The same, not linear."""

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        a = torch.from_numpy(self.matrix)
        return x.sinh() @ a.T + 0.3 * x.square() @ a.roll(1, 0).T


class Boxed(ForwardModel):
    parameters = (
        Parameter("a", lower=0, upper=2, initial=1.0),
        Parameter("k", lower=0.5, upper=4, initial=0.5),
        Parameter("c", lower=-0.3, upper=0.3),
    )

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return decay(x)


@SOLVERS
@pytest.mark.parametrize("rounds", [0, 8])
def test_linear_problems_within_bounds_are_solved_exactly(
    solver: str, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newton's step, cut off at the bounds, can go uphill here: no convergence. Compiled, there are no rounds."""
    monkeypatch.setattr("invsolve.methods.lm._BOUND_ROUNDS", rounds)
    y = 60 * np.random.default_rng(2).normal(size=(60, 12))
    solution = solve(y, Coupled, x0=None, solver=solver, compile="off")
    exact = [scipy.optimize.lsq_linear(Coupled.matrix, v, bounds=(-1, 1), tol=1e-14).cost for v in y]
    np.testing.assert_allclose(solution.loss, exact, rtol=1e-9)
    assert (solution.status == Status.CONVERGED).all()
    assert (np.abs(solution.x) == 1).sum() > 100


@SOLVERS
def test_no_curved_problem_within_bounds_ends_where_scipy_could_go_on(solver: str) -> None:
    y = 40 * np.random.default_rng(1).normal(size=(15, 12))
    solution = solve(y, Bent, x0=None, solver=solver)
    for i, target in enumerate(y):

        def residual(p: np.ndarray, target: np.ndarray = target) -> np.ndarray:
            return Bent().forward(torch.from_numpy(p)[None], None)[0].numpy() - target

        better = scipy.optimize.least_squares(residual, 0.999 * solution.x[i], bounds=(-1, 1), **EXACT)
        assert solution.loss[i] <= better.cost * (1 + 1e-9)
    assert (np.abs(solution.x) == 1).sum() > 15


@SOLVERS
def test_minima_on_bounds_agree_with_scipy_also_from_a_bound(solver: str) -> None:
    rng = np.random.default_rng(3)
    true = np.stack([rng.uniform(0.5, 3, 20), rng.uniform(0.2, 5, 20), rng.uniform(-0.6, 0.6, 20)], axis=1)
    y = decay(torch.from_numpy(true)).numpy() + 0.02 * rng.normal(size=(20, 40))
    solution = solve(y, Boxed, x0=None, solver=solver)
    lower, upper = np.array([0, 0.5, -0.3]), np.array([2, 4, 0.3])
    for x, loss, target in zip(solution.x, solution.loss, y, strict=True):
        exact = scipy.optimize.least_squares(
            lambda p, y=target: p[0] * np.exp(-p[1] * T) + p[2] - y, [1, 0.51, 0], bounds=(lower, upper), **EXACT
        )
        assert loss == pytest.approx(exact.cost, rel=1e-8)
        np.testing.assert_allclose(x, exact.x, atol=1e-4)
    assert ((solution.x == lower) | (solution.x == upper)).any(axis=1).sum() > 10


def with_outliers() -> np.ndarray:
    y = measured()
    y[:, ::9] += np.random.default_rng(6).normal(size=(4, 5))
    return y


@SOLVERS
@pytest.mark.parametrize("loss", ["linear", "huber", "soft_l1", "cauchy"])
def test_robust_optima_are_those_of_scipy(loss: str, solver: str) -> None:
    y = with_outliers()
    solution = solve(y, loss=loss, loss_scale=0.1, solver=solver)
    for x, target in zip(solution.x, y, strict=True):
        exact = scipy.optimize.least_squares(
            lambda p, y=target: p[0] * np.exp(-p[1] * T) + p[2] - y, x, loss=loss, f_scale=0.1, **EXACT
        )
        # Where the loss is within 1e-12 of its minimum, x is so to the root of that.
        np.testing.assert_allclose(x, exact.x, atol=2e-5)
    assert (solution.status == Status.CONVERGED).all()


@pytest.mark.parametrize("loss", ["huber", "soft_l1", "cauchy"])
def test_outliers_count_less_in_robust_losses(loss: str) -> None:
    y = with_outliers()
    plain, robust = solve(y), solve(y, loss=loss, loss_scale=0.05)
    assert np.abs(robust.x - TRUE).max() < 0.55 * np.abs(plain.x - TRUE).max()


@SOLVERS
def test_sigma_and_gaps_weigh_as_in_scipy(solver: str) -> None:
    y, sigma = with_outliers(), np.linspace(0.05, 2, 40)[None]
    y[1, 5:20] = np.nan
    solution = solve(y, sigma=sigma, solver=solver)
    for x, target in zip(solution.x, y, strict=True):
        seen = ~np.isnan(target)
        exact = scipy.optimize.least_squares(
            lambda p, y=target[seen], t=T[seen], s=sigma[0, seen]: (p[0] * np.exp(-p[1] * t) + p[2] - y) / s, x, **EXACT
        )
        # A rate of 17 that few targets tell, in a loss that is exact to 1e-12.
        np.testing.assert_allclose(x, exact.x, rtol=1e-5, atol=1e-5)


@SOLVERS
def test_a_prior_counts_as_one_more_residual(solver: str) -> None:
    class Known(ForwardModel):
        parameters = (
            Parameter("a", initial=1.0),
            Parameter("k", lower=0, scale="log", initial=1.0, prior=Normal(1.5, 0.01)),
            Parameter("c", prior=Normal(0.1, 0.02)),
        )

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return decay(x)

    y = measured()
    solution = solve(y, Known, x0=None, prior=True, solver=solver)
    for x, target in zip(solution.x, y, strict=True):
        exact = scipy.optimize.least_squares(
            lambda p, y=target: np.r_[p[0] * np.exp(-p[1] * T) + p[2] - y, (p[1] - 1.5) / 0.01, (p[2] - 0.1) / 0.02],
            x,
            **EXACT,
        )
        np.testing.assert_allclose(x, exact.x, atol=1e-5)


def test_units_do_not_matter() -> None:
    """The region is that of D p, with D the sizes of the Jacobian's columns: one part in 10¹² is rounding."""
    unit = np.array([1e-9, 1e3, 1.0])
    plain = solve(measured(), x0=[1.0, 1.0, 0.1])
    scaled = solve(measured(), lambda x, identifiers: decay(x / torch.from_numpy(unit)), x0=unit * [1.0, 1.0, 0.1])
    np.testing.assert_allclose(scaled.x / unit, plain.x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(scaled.loss, plain.loss, rtol=1e-12)


@SOLVERS
def test_curved_valleys_are_followed_to_their_end(solver: str) -> None:
    starts = np.array([[-1.2, 1.0], [-100.0, 50.0], [1e3, -1e3], [0.0, 0.0]])[: 4 if solver == "dense" else 2]
    data = Dataset(targets=np.zeros((len(starts), 2)), x0=starts)
    model = lambda x, identifiers: torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], dim=1)  # noqa: E731
    solution = invsolve.solve(data, model, "lm", options={"solver": solver})
    np.testing.assert_allclose(solution.x, 1.0, atol=1e-9)
    assert (solution.status == Status.CONVERGED).all()
    if solver == "dense":
        assert solution.evaluations.max() < 40


@SOLVERS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_exact_data_give_the_truth_to_rounding(solver: str, dtype: str) -> None:
    solution = solve(measured(noise=0.0), dtype=dtype, solver=solver)
    np.testing.assert_allclose(solution.x, TRUE, atol=1e-6 if dtype == "float64" else 1e-4)
    assert (solution.status == Status.CONVERGED).all()


@SOLVERS
def test_a_parameter_without_effect_stays_and_harms_none(solver: str) -> None:
    solution = solve(measured(), lambda x, identifiers: decay(x) + 0 * x[:, 3:], x0=[1, 1, 0, 0.7], solver=solver)
    np.testing.assert_allclose(solution.x[:, :3], solve(measured(), solver=solver).x, atol=1e-5)
    assert (solution.x[:, 3] == 0.7).all()


@SOLVERS
def test_only_the_sum_of_two_that_act_alike_is_found(solver: str) -> None:
    def alike(x: Tensor, identifiers: Identifiers) -> Tensor:
        return decay(torch.stack([x[:, 0] + x[:, 3], x[:, 1], x[:, 2]], dim=1))

    found, expected = solve(measured(), alike, x0=[0.5, 1, 0, 0.5], solver=solver), solve(measured())
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-9)
    np.testing.assert_allclose(found.x[:, 0] + found.x[:, 3], expected.x[:, 0], rtol=1e-5)
    assert (found.status == Status.CONVERGED).all()


@SOLVERS
def test_more_unknowns_than_targets_are_fitted_exactly(solver: str) -> None:
    def two(x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.stack([x[:, 0] * x[:, 1] + x[:, 2] - x[:, 3] ** 2, x.square().sum(1)], dim=1)

    solution = solve(np.array([[1.0, 4.0], [0.0, 9.0]]), two, x0=[1, 0.5, 0.2, 0.3], solver=solver)
    assert solution.loss.max() < 1e-15
    assert (solution.status == Status.CONVERGED).all()


def failing(x: Tensor, identifiers: Tensor) -> Tensor:
    return torch.where(identifiers[:, None] == 1, torch.nan, decay(x))


def raising(x: Tensor, identifiers: Tensor) -> Tensor:
    if bool((identifiers == 1).any()):
        raise ValueError("not this one")
    return decay(x)


@SOLVERS
@pytest.mark.parametrize("model", [failing, raising])
def test_a_failing_row_harms_no_other(model: Any, solver: str) -> None:
    """Alone or in a batch: the same to the last bit, but for what a wider batch rounds otherwise."""
    y, marked = measured(12), np.where(np.arange(12) == 4, 1, 0)
    together = solve(y, model, identifiers=marked, solver=solver)
    assert together.status[4] == Status.NONFINITE
    for i in [0, 3, 5, 11]:
        alone = solve(y[i : i + 1], solver=solver)
        np.testing.assert_allclose(together.x[i], alone.x[0], rtol=1e-6, atol=1e-7)
        assert together.loss[i] == pytest.approx(alone.loss[0], rel=1e-12)


@SOLVERS
@pytest.mark.parametrize("model", [backward_only, older_form])
def test_a_model_without_forward_derivatives_is_solved_as_well(model: Any, solver: str) -> None:
    true = np.array([[2.0, 0.7], [1.0, 2.0]])
    y = true[:, :1] * np.exp(-true[:, 1:] * np.linspace(0, 2, 7))
    np.testing.assert_allclose(solve(y, model, x0=[1.0, 1.0], solver=solver).x, true, atol=1e-8)


@SOLVERS
def test_a_model_that_vmap_cannot_take_is_solved_as_well(solver: str) -> None:
    def branching(x: Tensor, identifiers: Identifiers) -> Tensor:
        return decay(x) if bool((x.detach()[:, 1] > -1e9).all()) else x.new_zeros(len(x), 40) * x[:, :1]

    y = measured()
    np.testing.assert_allclose(solve(y, branching, solver=solver).x, solve(y, solver=solver).x, atol=1e-9)


class Called:
    """`decay`, or a model of ten unknowns, that counts the rows it is called for."""

    def __init__(self, d: int = 3) -> None:
        self.rows, self.d = 0, d

    def __call__(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        self.rows += len(x)
        y = decay(x)
        waves = torch.cos(torch.arange(7.0)[:, None] * torch.arange(40)).to(x)
        return y if self.d == 3 else y + 0.1 * (x[:, 3:] @ waves).sin()


@pytest.mark.parametrize(("d", "solver"), [(3, "dense"), (10, "dense"), (3, "cg")])
def test_evaluations_are_the_rows_that_the_model_was_called_for(d: int, solver: str) -> None:
    """Up to what is tried out once: the kind of model, and of its derivatives."""
    model = Called(d)
    y, x0 = measured(), [1.0, 1.0, 0.0] + [0.1] * (d - 3)
    solution = solve(y, model, x0=x0, solver=solver, compile="off", batch_size=4)
    assert 0 <= model.rows - solution.evaluations.sum() <= 8 + d


def test_of_many_unknowns_derivatives_are_had_only_where_the_loss_fell() -> None:
    solution = solve(measured(), Called(10), x0=[1.0, 1.0, 0.0] + [0.1] * 7, compile="off")
    # A Jacobian at the start and at each accepted step, the scoring, and now and then a loss that fell too little.
    spared = solution.gradients - 1 - 10 * (solution.iterations + 1)
    assert set(spared) <= {0, 10}
    assert (solution.evaluations > solution.gradients / 10 + solution.iterations).all()


@SOLVERS
@pytest.mark.parametrize("d", [3, 10])
@pytest.mark.parametrize("most", [4, 9, 20])
def test_max_evaluations_are_kept_and_nothing_ends_worse_than_it_began(d: int, most: int, solver: str) -> None:
    x0 = [1.0, 1.0, 0.0] + [0.1] * (d - 3)
    solution = solve(measured(), Called(d), x0=x0, max_evaluations=most, solver=solver)
    assert solution.evaluations.max() <= most
    assert (solution.loss <= solution.loss_initial).all()


def test_max_iterations_ends_in_budget() -> None:
    solution = solve(measured(), max_iterations=2)
    assert (solution.status == Status.BUDGET).all()
    assert (solution.iterations == 2).all()
