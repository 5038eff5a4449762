"""The loss, its gradient and its counts, and what a forward model may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.models.base import ForwardModel, Identifiers, Parameter
from invsolve.problem import Problem, solution_shape
from invsolve.registry import load_model


def make(data: Dataset, model: Any) -> Problem:
    loaded = load_model(model)
    shape = solution_shape(loaded, data)
    return Problem(loaded, data.rows(0, len(data)), shape, torch.device("cpu"), torch.float64)


def square(x: Tensor, identifiers: Identifiers) -> Tensor:
    return x**2


ROWS = torch.arange(3)


def test_loss_counts_observed_entries_in_units_of_sigma() -> None:
    targets = np.array([[1.0, np.nan], [0.0, 0.0], [np.nan, np.nan]])
    sigma = np.array([[0.5, 1.0], [1.0, 2.0], [1.0, 1.0]])
    p = make(Dataset(targets=targets, sigma=sigma, x0=np.full((3, 2), 2.0)), square)
    loss, gradient = p.evaluate_user(ROWS, p.x0)
    assert loss.tolist() == [0.5 * (3 / 0.5) ** 2, 0.5 * (16 + 4), 0.0]
    assert gradient[0].tolist() == [3 / 0.25 * 4, 0.0]


@pytest.mark.parametrize("sigma", [0.5, np.full(3, 0.5), np.full((3, 1), 0.5), np.full((1, 2), 0.5), np.full(2, 0.5)])
def test_sigma_broadcasts(sigma: Any) -> None:
    p = make(Dataset(targets=np.zeros((3, 2)), sigma=sigma, x0=np.ones(2)), square)
    assert p.evaluate_user(ROWS, p.x0)[0].tolist() == [4.0, 4.0, 4.0]


def test_evaluations_and_gradients_are_counted_per_row() -> None:
    p = make(Dataset(targets=np.zeros((3, 2)), x0=np.ones(2)), square)
    p.evaluate_user(ROWS, p.x0)
    p.evaluate_user(ROWS[1:], p.x0[1:], differentiate=False)
    assert p.evaluations.tolist() == [1, 2, 2]
    assert p.gradients.tolist() == [1, 1, 1]
    p.slice(2, 3).evaluate_user(torch.tensor([0]), p.x0[2:])
    assert p.evaluations.tolist() == [1, 2, 3]


def test_failing_rows_are_infinite_and_alone() -> None:
    def fails(x: Tensor, identifiers: Identifiers) -> Tensor:
        if bool((x == 7).any()):
            raise RuntimeError("seven")
        return torch.sqrt(x)

    p = make(Dataset(targets=np.zeros((5, 1)), x0=np.ones(1)), fails)
    x = torch.tensor([[1.0], [7.0], [-1.0], [4.0], [0.0]], dtype=torch.float64)
    loss, gradient = p.evaluate_user(torch.arange(5), x)
    assert loss.tolist() == [0.5, torch.inf, torch.inf, 2.0, torch.inf]  # at 0 the gradient of the root is no number
    assert gradient.ravel().tolist() == [0.5, 0.0, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (lambda x, identifiers: x.numpy(force=True), "returned ndarray"),
        (
            lambda x, identifiers: x[:, :1],
            r"returned shape \(3, 1\) for x \(3, 2\) at example 0; the targets need \(3, 2\)",
        ),
        (lambda x, identifiers: x.sum(), r"returned shape \(\)"),
        (lambda x, identifiers: x.float(), "returned float32 where float64 came in"),
        (lambda x, identifiers: x.detach(), "no gradient to x"),
        (lambda x, identifiers: x + identifiers["a"], r"raises TypeError.*example 0.*x \(2,\), identifiers None"),
        (lambda x: x, "raises TypeError"),
    ],
)
def test_a_faulty_model_is_told_in_one_line(model: Any, line: str) -> None:
    data = Dataset(targets=np.zeros((3, 2)), x0=np.ones(2))
    with pytest.raises(invsolve.ModelError, match=line) as caught:
        invsolve.solve(data, model)
    assert "\n" not in str(caught.value)


def test_nan_for_all_rows_is_told() -> None:
    data = Dataset(targets=np.zeros((3, 2)), x0=np.ones(2))
    with pytest.raises(invsolve.ModelError, match="NaN or Inf for all 3 examples"):
        invsolve.solve(data, lambda x, identifiers: x * torch.nan)


class Named(ForwardModel):
    parameters = (Parameter("a", lower=0, upper=2, initial=1), Parameter("b"))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"x0": np.zeros(3)}, r"x0 has shape \(3,\).*needs \(4, 2\) or \(2,\)"),
        ({"x_true": np.zeros((4, 3))}, r"x_true has shape \(4, 3\)"),
        ({"x0": np.array([3.0, 0.0])}, r"x0 of example 0 has a = 3, outside the bounds \[0, 2\]"),
    ],
)
def test_shapes_and_starts_that_do_not_fit_the_model(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(invsolve.DataError, match=line):
        invsolve.solve(Dataset(targets=np.zeros((4, 2)), **fields), Named)


def test_identifiers_that_do_not_fit_the_model() -> None:
    with pytest.raises(invsolve.DataError, match=r"needs identifiers of shape \(3, 4\), found none"):
        invsolve.solve(Dataset(targets=np.zeros((3, 2))), "billiards")
    with pytest.raises(invsolve.DataError, match=r"identifiers has shape \(3, 5\)"):
        invsolve.solve(Dataset(targets=np.zeros((3, 2)), identifiers=np.zeros((3, 5))), "billiards")


def test_a_function_needs_a_start_and_takes_its_shape_from_it() -> None:
    with pytest.raises(invsolve.ModelError, match="store an initial guess as dataset 'x0'"):
        invsolve.solve(Dataset(targets=np.zeros((3, 2))), square)
    field = invsolve.solve(Dataset(targets=np.ones((3, 2, 2)), x0=np.full((2, 2), 2.0)), square)
    assert field.x.shape == (3, 2, 2)
    np.testing.assert_allclose(field.x, 1, atol=1e-4)


def test_integer_identifiers_stay_integers() -> None:
    def lookup(x: Tensor, identifiers: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0, 4.0], dtype=x.dtype)[identifiers][:, None]

    data = Dataset(targets=np.full((3, 1), 8.0), identifiers=np.array([0, 1, 2]), x0=np.ones((3, 1)))
    np.testing.assert_allclose(invsolve.solve(data, lookup).x.ravel(), [8, 4, 2], atol=1e-4)
