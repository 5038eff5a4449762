"""The Jacobian of the weighted residuals: by columns and by rows the same, and true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invsolve.data.dataset import Dataset
from invsolve.jacobian import weighted_jacobian
from invsolve.problem import Problem
from invsolve.registry import load_model

T = torch.linspace(0, 2, 7, dtype=torch.float64)


def decay(x: Tensor, identifiers: None) -> Tensor:
    return x[:, :1] * torch.exp(-x[:, 1:] * T)


class BackwardOnly(torch.autograd.Function):
    """exp, of which only the backward pass is known."""

    @staticmethod
    def forward(v: Tensor) -> Tensor:
        return v.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * ctx.saved_tensors[0]


def backward_only(x: Tensor, identifiers: None) -> Tensor:
    return x[:, :1] * BackwardOnly.apply(-x[:, 1:] * T)  # type: ignore[no-untyped-call]


class OlderForm(torch.autograd.Function):
    """The same without `setup_context`, which torch.func does not take."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v.exp())
        return v.exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * ctx.saved_tensors[0]


def older_form(x: Tensor, identifiers: None) -> Tensor:
    return x[:, :1] * OlderForm.apply(-x[:, 1:] * T)  # type: ignore[no-untyped-call]


def raising(x: Tensor, identifiers: None) -> Tensor:
    if bool((x[:, 0] < 0).any()):
        raise ValueError("negative")
    return decay(x, identifiers)


def problem_of(model: Any, n: int = 4) -> Problem:
    targets = np.zeros((n, 7))
    targets[1, 2:4] = np.nan
    sigma = np.linspace(0.5, 2, n)
    data = Dataset(targets=targets, sigma=sigma, x0=np.ones(2))
    return Problem(load_model(model), data.rows(0, n), (2,), torch.device("cpu"), torch.float64)


@pytest.mark.parametrize(("model", "cost"), [(decay, (1, 2)), (backward_only, (1, 7)), (older_form, (1, 7))])
def test_is_that_of_the_formula(model: Any, cost: tuple[int, int]) -> None:
    problem = problem_of(model)
    x = torch.tensor([[1.0, 0.5], [2.0, 0.1], [0.3, 3.0], [1.0, 0.0]], dtype=torch.float64)
    found = weighted_jacobian(problem, torch.arange(4), x)
    e = torch.exp(-x[:, 1:] * T)
    expected = torch.stack([e, -x[:, :1] * T * e], dim=2) / torch.linspace(0.5, 2, 4)[:, None, None]
    expected[1, 2:4] = 0
    torch.testing.assert_close(found, expected)
    assert (problem.evaluations == cost[0]).all()
    assert (problem.gradients == cost[1]).all()


def test_more_unknowns_than_targets_go_by_rows() -> None:
    data = Dataset(targets=np.zeros((3, 1)), x0=np.ones(2))
    model = load_model(lambda x, identifiers: x[:, :1] * x[:, 1:] ** 2)
    problem = Problem(model, data.rows(0, 3), (2,), torch.device("cpu"), torch.float64)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    found = weighted_jacobian(problem, torch.arange(3), x)
    torch.testing.assert_close(found[:, 0], torch.stack([x[:, 1] ** 2, 2 * x[:, 0] * x[:, 1]], dim=1))
    assert (problem.gradients == 1).all()


def test_a_row_that_raises_harms_no_other() -> None:
    problem = problem_of(raising)
    x = torch.tensor([[1.0, 0.5], [2.0, 0.1], [-1.0, 3.0], [1.0, 0.0]], dtype=torch.float64)
    found = weighted_jacobian(problem, torch.arange(4), x)
    assert torch.isnan(found[2]).all()
    keep = torch.tensor([0, 1, 3])
    torch.testing.assert_close(found[keep], weighted_jacobian(problem_of(decay), torch.arange(4), x)[keep])
