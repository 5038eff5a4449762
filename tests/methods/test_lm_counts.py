"""What lm says it evaluated is what it evaluated, and stays within what it may."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from tests.test_jacobian import BackwardOnly

_MATRIX = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3)))
_SOLUTIONS = torch.from_numpy(np.random.default_rng(2).normal(size=(5, 3)))


class Counted:
    """A model that counts its rows; with `forward`, one that has forward derivatives."""

    def __init__(self, *, forward: bool = True) -> None:
        self.rows, self.forward = 0, forward

    def __call__(self, x: Tensor, identifiers: None) -> Tensor:
        y = x @ _MATRIX.T
        y = torch.exp(0.3 * y) if self.forward else BackwardOnly.apply(0.3 * y)  # type: ignore[no-untyped-call]
        self.rows += len(x)
        return y


def solved(model: Counted, method: str = "lm", **how: Any) -> invsolve.Solution:
    data = invsolve.Dataset(targets=torch.exp(0.3 * _SOLUTIONS @ _MATRIX.T), x0=np.full(3, 0.1))
    return invsolve.solve(data, model, method, threads=1, batch_size=2, **how)


@pytest.mark.parametrize("loss", ["linear", "cauchy"])
def test_a_product_of_conjugate_gradients_is_one_evaluation(loss: str) -> None:
    model = Counted()
    solution = solved(model, options={"solver": "cg", "loss": loss})
    assert solution.evaluations.sum() == model.rows
    assert solution.loss.max() < 1e-12


def test_forward_derivatives_that_are_not_there_are_tried_once_only() -> None:
    model = Counted(forward=False)
    solution = solved(model, options={"solver": "cg"})
    assert solution.evaluations.sum() <= model.rows <= solution.evaluations.sum() + 2
    assert solution.loss.max() < 1e-12


@pytest.mark.parametrize("most", [3, 4, 12])
@pytest.mark.parametrize("method", ["gd", "lm"])
def test_finding_out_about_the_jacobian_stays_within_the_budget(method: str, most: int) -> None:
    model = Counted()
    solution = solved(model, method, refine="lm", max_evaluations=most)
    assert solution.evaluations.max() <= most
    assert solution.evaluations.sum() == model.rows
    assert (solution.loss < solution.loss_initial).sum() >= (0 if most == 3 else 4)
