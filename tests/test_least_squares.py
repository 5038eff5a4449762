"""Losses, gradients and Gauss–Newton matrices: true, and the same in each way of computing them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from invsolve.data.dataset import Dataset
from invsolve.least_squares import (
    LossName,
    RobustLoss,
    fused_normal_equations,
    gauss_newton_product,
    normal_equations,
)
from invsolve.least_squares import _least_pivot as least_pivot
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Normal, Parameter
from invsolve.problem import Batch, Problem

LOSSES = pytest.mark.parametrize("name", get_args(LossName))
ALL = torch.arange(5)


class Decay(ForwardModel):
    """With bounds, a log scale and a prior, so that z is not x."""

    parameters = (
        Parameter("a", lower=-4, upper=8, initial=1.0),
        Parameter("k", lower=0, scale="log", initial=1.0),
        Parameter("c", prior=Normal(0.3, 0.2)),
    )

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x[:, :1] * torch.exp(-x[:, 1:2] * torch.linspace(0, 2, 9, dtype=x.dtype)) + x[:, 2:]


def problem_and_z() -> tuple[Problem, Batch, Tensor]:
    """Five rows with gaps, σ and a prior, one of them with nothing observed, one where F is NaN."""
    rng = np.random.default_rng(4)
    y = 3 * rng.normal(size=(5, 9))
    y[1, 2:5], y[3] = np.nan, np.nan
    data = Dataset(targets=y, sigma=rng.uniform(0.5, 2, (1, 9)))
    problem = Problem(Decay(), data.rows(0, 5), (3,), torch.device("cpu"), torch.float64, prior=True)
    z = torch.from_numpy(0.5 * rng.uniform(-1, 1, (5, 3)))  # inside the bounds
    z[4, 2] = torch.nan
    return problem, problem.batch(ALL), z


@LOSSES
def test_losses_are_those_of_scipy(name: LossName) -> None:
    """To what `least_squares` says at its start, where it may make no step."""
    residual = np.array([-30.0, -1.01, -0.7, -0.2, 0.0, 1e-9, 0.1, 0.69999, 0.7, 5.0])
    for scale in (0.1, 0.7, 10.0):
        theirs = scipy.optimize.least_squares(lambda x: residual + 0 * x, [0.0], loss=name, f_scale=scale, max_nfev=1)
        ours, _, _ = RobustLoss(name, scale).weigh(torch.from_numpy(residual)[None])
        assert float(ours) == pytest.approx(theirs.cost, rel=1e-14)


@LOSSES
def test_weights_are_the_derivatives_of_the_loss(name: LossName) -> None:
    loss = RobustLoss(name, 0.7)
    residual = torch.tensor([-3.0, -0.5, 0.0, 0.2, 0.6, 0.8, 9.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss.weigh(residual[None])[0].sum(), residual, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), residual)
    _, first, second = loss.weigh(residual[None].detach())
    first, second = (torch.ones(1, 7).double() if w is None else w for w in (first, second))
    torch.testing.assert_close((first[0] * residual).detach(), slope.detach())
    torch.testing.assert_close(second[0], torch.maximum(bend, 0.1 * first[0]).detach())


@LOSSES
def test_all_ways_to_the_normal_equations_agree(name: LossName) -> None:
    robust = RobustLoss(name, 0.8)
    problem, batch, z = problem_and_z()
    loss, gradient, matrix, _, evaluations, gradients = normal_equations(problem, batch, z, robust)
    fused = fused_normal_equations(problem, batch, z, robust)
    for mine, other in zip((loss, gradient, matrix), fused, strict=False):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        problem.objective(batch, z, differentiate=False, loss_of=robust)[0], loss, rtol=1e-13, atol=0
    )
    for mine, other in zip((loss, gradient), problem.objective(batch, z, loss_of=robust), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    assert (evaluations == 1).all()
    assert (gradients == 3).all()


@LOSSES
def test_products_are_those_of_the_matrix(name: LossName) -> None:
    problem, batch, z = problem_and_z()
    batch, z = batch.select(torch.arange(3)), z[:3]
    direction = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    robust = RobustLoss(name, 0.8)
    matrix = normal_equations(problem, batch, z, robust)[2]
    product, _, _ = gauss_newton_product(problem, batch, z, direction, robust)
    torch.testing.assert_close(product, (matrix @ direction[:, :, None]).squeeze(2), rtol=1e-11, atol=1e-11)


@LOSSES
def test_the_gradient_is_that_of_the_loss(name: LossName) -> None:
    problem, batch, z = problem_and_z()
    gradient = normal_equations(problem, batch, z, RobustLoss(name, 0.8))[1]
    for j in range(3):
        h = torch.zeros(3, dtype=torch.float64)
        h[j] = 1e-6
        above, below = (problem.objective(batch, z + s * h, loss_of=RobustLoss(name, 0.8))[0] for s in (1, -1))
        torch.testing.assert_close(gradient[:3, j], ((above - below) / 2e-6)[:3], rtol=1e-6, atol=1e-6)


@LOSSES
def test_where_nothing_is_known_the_loss_is_infinite_and_all_else_zero(name: LossName) -> None:
    problem, batch, z = problem_and_z()
    loss, gradient, matrix, *_ = normal_equations(problem, batch, z, RobustLoss(name, 0.8))
    assert torch.isinf(loss).tolist() == [False, False, False, True, True]
    assert (gradient[4] == 0).all()
    assert (matrix[4] == 0).all()


class Alike(Decay):
    """Two unknowns that nearly act alike, for examples marked 1."""

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        assert isinstance(identifiers, Tensor)
        t = torch.linspace(0, 2, 9, dtype=x.dtype)
        fast = torch.where(identifiers == 1, 1e-6, 1.0)[:, None]
        return x[:, :1] + x[:, 1:2] * (1 + fast * t) + x[:, 2:] * t.square()


@LOSSES
@pytest.mark.parametrize("prior", [False, True])
def test_ill_conditioned_rows_have_a_factor_of_their_matrix_and_gradient(name: LossName, prior: bool) -> None:
    rng = np.random.default_rng(6)
    data = Dataset(targets=3 * rng.normal(size=(4, 9)), identifiers=np.array([0, 1, 0, 1]))
    problem = Problem(Alike(), data.rows(0, 4), (3,), torch.device("cpu"), torch.float64, prior=prior)
    z = torch.from_numpy(0.5 * rng.uniform(-1, 1, (4, 3)))
    batch = problem.batch(torch.arange(4))
    _, gradient, matrix, factor, *_ = normal_equations(problem, batch, z, RobustLoss(name, 0.8))
    upper, c = factor[:, :, :-1], factor[:, :, -1]
    torch.testing.assert_close((upper.mT @ upper)[1::2], matrix[1::2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((upper.mT @ c[:, :, None]).squeeze(2)[1::2], gradient[1::2], rtol=1e-12, atol=1e-12)
    assert (upper == upper.triu()).all()
    assert (factor[::2] == 0).all()


def test_least_pivots_tell_dependent_columns_whatever_their_scale() -> None:
    columns = torch.randn(5, 30, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    columns[1, :, 8] = columns[1, :, 0] + 1e-3 * columns[1, :, 8]
    columns[2, :, 8] = columns[2, :, 0]
    columns[3, :, 4] = 0.0
    columns = columns * torch.logspace(-8, 8, 9, dtype=torch.float64)
    pivots = least_pivot(columns.mT @ columns)
    assert pivots[[0, 3, 4]].min() > 0.1
    assert 1e-7 < pivots[1] < 1e-5
    assert pivots[2] < 1e-14
