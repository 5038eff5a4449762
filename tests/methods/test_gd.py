"""Gradient descent in both forms."""

from __future__ import annotations

import numpy as np
import pytest

import invsolve
from invsolve.checks.method import product
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status


def test_adam_solves_convex_problems(quadratics: Dataset) -> None:
    solution = invsolve.solve(quadratics, product, "gd", options={"optimizer": "adam", "max_iterations": 3000})
    # Adam's steps do not shrink with the gradient: it ends near the minimum, not on it.
    assert (solution.loss < 1e-4 * solution.loss_initial).all()
    assert not (solution.status == Status.NONFINITE).any()


def test_every_row_has_a_step_of_its_own() -> None:
    """Rows whose curvatures differ by 10⁸ all converge; one step size for all would diverge or crawl."""
    stiffness = np.array([[1e-2], [1.0], [1e2]])
    data = Dataset(targets=stiffness * 3, identifiers=stiffness, x0=np.zeros(1))
    solution = invsolve.solve(data, product, "gd", options={"grad_tolerance": 1e-7})
    np.testing.assert_allclose(solution.x, 3.0, rtol=1e-2)
    assert solution.evaluations.max() < 100


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_learning_rate_is_the_length_of_the_first_step(optimizer: str) -> None:
    data = Dataset(targets=np.full((1, 1), 100.0), identifiers=np.ones((1, 1)), x0=np.zeros(1))
    options = {"optimizer": optimizer, "learning_rate": 0.25}
    # Scored at the start, evaluated at the start and after one step, scored at the end.
    solution = invsolve.solve(data, product, "gd", options=options, max_evaluations=4)
    assert solution.x[0, 0] == pytest.approx(0.25)


def test_adam_tires_where_the_loss_stops_falling() -> None:
    data = invsolve.generate("wave-packet", 6, seed=2)
    solution = invsolve.solve(data, method="gd", options={"optimizer": "adam", "patience": 5, "grad_tolerance": 0})
    assert (solution.status == Status.STALLED).all()
