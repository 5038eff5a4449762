"""The sets are read rightly, and their models are those that NIST certified."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invsolve.problem import Problem as Solvable
from invsolve.registry import load_model
from tests.strd.problems import LOSS_TOLERANCE, NAMES, load, load_all


@pytest.mark.parametrize("name", NAMES)
def test_certified_values_give_the_certified_sum_of_squares(name: str) -> None:
    problem = load(name)
    rss = problem.rss(problem.certified)
    if name == "Lanczos1":  # x has 11 digits, its sum of squares needs 14
        assert rss < 1e-20
    else:
        assert rss == pytest.approx(problem.certified_rss, rel=1e-9)
        assert problem.floor < 0.01 * LOSS_TOLERANCE * problem.certified_rss
    assert problem.reached(problem.certified)


def test_the_sets_are_complete() -> None:
    problems = load_all()
    assert len(problems) == 27
    assert [sum(p.difficulty == level for p in problems) for level in ("Lower", "Average", "Higher")] == [8, 11, 8]


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_half_the_sum_of_squares(name: str) -> None:
    problem = load(name)
    data = problem.dataset()
    model = load_model(problem.function)
    d = problem.starts.shape[1]
    rows = Solvable(model, data.rows(0, 2, (d,)), (d,), torch.device("cpu"), torch.float64)
    loss, gradient = rows.evaluate_user(torch.arange(2), rows.x0)
    np.testing.assert_allclose(2 * loss.numpy(), [problem.rss(x) for x in problem.starts], rtol=1e-12)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_not_taken_for_solutions(name: str) -> None:
    problem = load(name)
    assert not any(problem.reached(x) for x in problem.starts)
    # Off by half a permille, in any one component.
    for j in range(len(problem.certified)):
        x = problem.certified.copy()
        x[j] *= 1.0005
        assert not problem.reached(x)


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).model.terms or load(name).model.flips])
def test_symmetries_leave_the_sum_of_squares(name: str) -> None:
    problem = load(name)
    same = problem._equivalents()
    assert len({tuple(x) for x in same}) == len(same) > 1
    for x in same:
        assert problem.rss(x) == pytest.approx(problem.rss(problem.certified), rel=1e-9, abs=1e-24)
        assert problem.reached(x)
