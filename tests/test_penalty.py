"""Priors as a penalty: solutions are those of the penalized problem, and data and prior are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Normal, Parameter, Uniform


class Line(ForwardModel):
    """y = a + b t, with a Gaussian prior on b alone."""

    parameters = (Parameter("a"), Parameter("b", prior=Normal(1.0, 0.5)))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x[:, :1] + x[:, 1:] * torch.linspace(-1, 1, 5, dtype=x.dtype)


class Boxed(ForwardModel):
    """y = x on a log scale, known to lie in [1, 2]."""

    parameters = (Parameter("a", scale="log", lower=0, initial=1.5, prior=Uniform(1.0, 2.0)),)

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return 1.0 * x


T = np.linspace(-1, 1, 5)
TARGETS = np.array([[0.0, 0.3, 1.0, 1.2, 2.0], [1.0, 0.5, 0.2, -0.3, -1.0]])


@pytest.mark.parametrize("method", ["bfgs", "gd", "jpo"])
def test_the_posterior_mode_of_a_line_is_the_closed_form(method: str) -> None:
    data = Dataset(targets=TARGETS, sigma=np.array(0.4))
    options = {"steps": 50} if method == "jpo" else {}
    solution = invsolve.solve(data, Line, method, prior=True, covariance=True, options=options)
    design = np.stack([np.ones(5), T], axis=1) / 0.4
    normal = design.T @ design + np.diag([0, 4.0])
    mode = np.linalg.solve(normal, design.T @ (TARGETS / 0.4).T + np.array([[0.0], [4.0]])).T
    np.testing.assert_allclose(solution.x, mode, atol=1e-5)
    np.testing.assert_allclose(solution.loss_prior, 0.5 * ((mode[:, 1] - 1) / 0.5) ** 2, rtol=1e-3)
    residual = (mode @ np.stack([np.ones(5), T]) - TARGETS) / 0.4
    np.testing.assert_allclose(solution.loss, 0.5 * (residual**2).sum(1), rtol=1e-3)
    np.testing.assert_allclose(solution.covariance, np.broadcast_to(np.linalg.inv(normal), (2, 2, 2)), rtol=1e-6)
    assert (solution.grad_norm < 1e-4).all()


def test_a_uniform_prior_narrows_the_bounds() -> None:
    data = Dataset(targets=np.array([[0.5], [1.5], [3.0]]))
    free, held = (invsolve.solve(data, Boxed, prior=prior) for prior in (False, True))
    np.testing.assert_allclose(free.x[:, 0], [0.5, 1.5, 3.0], rtol=1e-4)
    np.testing.assert_allclose(held.x[:, 0], [1.0, 1.5, 2.0], rtol=1e-4)
    assert held.x[0, 0] == 1.0  # to the last bit, though exp(log(x)) is not
    assert held.x[2, 0] == 2.0
    assert (held.grad_norm < 1e-4).all()
    assert (held.loss_prior == 0).all()
    assert free.loss_prior is None


def test_what_makes_no_sense_is_refused() -> None:
    data = Dataset(targets=np.array([[0.5]]), x0=np.array([0.5]))
    with pytest.raises(invsolve.DataError, match=r"outside the bounds and prior \[1, 2\]"):
        invsolve.solve(data, Boxed, prior=True)
    with pytest.raises(invsolve.OptionError, match="prior: model 'billiards' has none"):
        invsolve.solve(invsolve.generate("billiards", 2), prior=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_units_of_any_size(dtype: str) -> None:
    class Charge(ForwardModel):
        parameters = (Parameter("q", unit="C", initial=1.6e-19, prior=Normal(1.6e-19, 3e-20)),)

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return x / 1e-19

    data = Dataset(targets=np.array([[1.0], [2.0]]), sigma=np.array(0.3))
    solution = invsolve.solve(data, Charge, prior=True, covariance=True, dtype=dtype)
    np.testing.assert_allclose(solution.x[:, 0], [1.3e-19, 1.8e-19], rtol=1e-4)  # half way, by equal weights
    np.testing.assert_allclose(solution.std_error[:, 0], 0.3e-19 / np.sqrt(2), rtol=1e-6)


def test_guesses_are_moved_into_a_uniform_prior() -> None:
    class Guessing(Boxed):
        def initial_guess(self, targets: Tensor, identifiers: Identifiers) -> Tensor:
            return targets.clone()

    solution = invsolve.solve(Dataset(targets=np.array([[0.5], [1.2]])), Guessing, prior=True)
    np.testing.assert_array_equal(solution.x_initial[:, 0], [1.0, 1.2])


def test_draws_stay_within_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    x = Parameter("a", lower=0, initial=1, prior=Normal(0.0, 1.0)).draw(10_000, generator)
    assert x.min() >= 0
    assert x.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.03)  # of a half-normal
    y = Parameter("b", lower=0, upper=1, prior=Uniform(-1, 0.5)).draw(10_000, generator)
    assert y.min() >= 0
    assert y.max() <= 0.5
    with pytest.raises(ValueError, match="its prior lies outside its bounds"):
        Parameter("a", lower=0, prior=Normal(-10, 1))
    with pytest.raises(ValueError, match="its prior lies outside its bounds"):
        Parameter("a", lower=0, upper=1, prior=Uniform(2, 3))
