"""Profiles by hand and by counting."""

from __future__ import annotations

import numpy as np
import pytest

from invsolve.analysis.profiles import (
    curves,
    data_profile,
    first_solved,
    mark_by_best,
    performance_profile,
    profiles,
    solved_enough,
)
from invsolve.data.solution import HISTORY_EVALUATIONS

INF = np.inf
COSTS = np.array([[1.0, 10.0, INF, 100.0], [2.0, 1.0, INF, INF]])


def test_a_data_profile_by_hand() -> None:
    budgets, shares = data_profile(COSTS, 3)
    np.testing.assert_allclose(budgets, [1, 10, 100])
    np.testing.assert_array_equal(shares, [[0.25, 0.5, 0.75], [0.25, 0.5, 0.5]])


def test_a_performance_profile_by_hand() -> None:
    factors, shares = performance_profile(COSTS, 2)  # ratios 1, 10, ∞, 1 and 2, 1, ∞, ∞
    np.testing.assert_allclose(factors, [1, 10])
    np.testing.assert_array_equal(shares, [[0.5, 0.75], [0.25, 0.5]])


@pytest.mark.parametrize("profile", [data_profile, performance_profile])
def test_profiles_by_counting(profile: type) -> None:
    rng = np.random.default_rng(0)
    costs = np.where(rng.random((3, 200)) < 0.3, INF, rng.integers(3, 5000, (3, 200)))
    at, shares = profile(costs)
    held = costs if profile is data_profile else costs / costs.min(0, where=np.isfinite(costs), initial=1e99)
    for budget, share in zip(at[::7], shares.T[::7], strict=True):
        np.testing.assert_allclose(share, (held <= budget).mean(1))
    np.testing.assert_allclose(shares[:, -1], np.isfinite(costs).mean(1))
    assert (np.diff(shares, axis=1) >= 0).all()


def test_nothing_solved_is_a_profile_of_zeros() -> None:
    told = profiles(["a", "b"], np.full((2, 5), INF), "x_true", cost="until ended")
    assert set(told["data"]["solved"]["a"]) == set(told["performance"]["solved"]["b"]) == {0.0}
    assert len(told["data"]["evaluations"]) == len(told["performance"]["ratio"]) == 40


def test_solved_is_near_the_best_of_all() -> None:
    losses = np.array([[1.0, 5.0, INF, INF, 0.0], [1.09, 5.2, 3.0, INF, 1e-9]])
    initial = np.array([101.0, 101.0, 101.0, 101.0, INF])  # a thousandth of the way is 0.1
    expected = [[True, True, False, False, True], [True, False, True, False, False]]
    np.testing.assert_array_equal(solved_enough(losses, initial), expected)


GRID = np.array(HISTORY_EVALUATIONS)


def falling(*steps: tuple[int, float]) -> np.ndarray:
    """A history that is at each of these losses from so many evaluations on; NaN before."""
    row = np.full(len(GRID), np.nan, dtype=np.float32)
    for count, loss in steps:
        row[count <= GRID] = loss
    return row


def test_an_example_costs_what_it_took_to_its_mark() -> None:
    third = np.array([1 / 3])  # float32 rounds it up
    history = np.stack(
        [falling((1, 9), (6, 1)), falling((1, 9), (6, 1)), falling((3, 9), (5, 1 / 3)), falling((1, 9)), falling()]
    )
    mark = np.array([1.0, 0.9, third[0], 1.0, 1.0])
    spent = np.array([50, 50, 50, 50, 50])
    assert first_solved(history, mark, spent).tolist() == [6, 50, 6, 50, 50]
    assert np.float32(third[0]) > third[0]
    # Never more than was spent; and the last entry does not say by how many.
    late = np.stack([falling((1, 9), (12, 1)), falling((1, 9), (2**20, 1))])
    assert first_solved(late, np.ones(2), np.array([9, 10**7])).tolist() == [9, 10**7]


def test_the_mark_by_the_best_is_what_solved_goes_by() -> None:
    losses = np.array([[1.0, 5.0, 3.0], [1.09, 5.2, INF]])
    initial = np.array([101.0, 101.0, INF])
    np.testing.assert_allclose(mark_by_best(losses.min(0), initial), [1.1, 5.096, 3.0])
    np.testing.assert_array_equal(losses <= mark_by_best(losses.min(0), initial), solved_enough(losses, initial))


def test_curves_are_quantiles_of_what_is_left() -> None:
    scale = np.arange(1, 12)  # other units of the loss are no other curve
    history = np.stack([k * falling((1, 1.0), (4, 0.1 * j), (12, 0.01 * j)) for j, k in enumerate(scale)])
    found = curves({"bfgs": history})["bfgs"]
    assert found["evaluations"].tolist() == [1, 2, 3, 4, 6, 8, 12]  # nothing changes any more
    np.testing.assert_allclose(found["median"], [1, 1, 1, 0.5, 0.5, 0.5, 0.05], rtol=1e-6)
    np.testing.assert_allclose(found["low"], [1, 1, 1, 0.1, 0.1, 0.1, 0.01], rtol=1e-6)
    np.testing.assert_allclose(found["high"], [1, 1, 1, 0.9, 0.9, 0.9, 0.09], rtol=1e-6)


def test_what_is_not_known_counts_as_infinite() -> None:
    rows = [falling(), falling((1, 2.0), (3, 0.0)), falling((1, 0.0)), falling((1, 4.0), (2, 2.0))]
    found = curves({"gd": np.stack(rows)})["gd"]
    np.testing.assert_array_equal(found["high"], INF)
    np.testing.assert_array_equal(found["median"], [1.0, 1.0, 0.5])
    np.testing.assert_array_equal(found["low"], [1.0, 0.5, 0.0])  # the next higher one: nothing is interpolated
    assert curves({"gd": np.stack(rows[:1])})["gd"]["median"].tolist() == [INF]
