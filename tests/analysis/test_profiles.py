"""Profiles by hand and by counting."""

from __future__ import annotations

import numpy as np
import pytest

from invsolve.analysis.profiles import data_profile, performance_profile, profiles, solved_enough

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
    told = profiles(["a", "b"], np.full((2, 5), INF), "x_true")
    assert set(told["data"]["solved"]["a"]) == set(told["performance"]["solved"]["b"]) == {0.0}
    assert len(told["data"]["evaluations"]) == len(told["performance"]["ratio"]) == 40


def test_solved_is_near_the_best_of_all() -> None:
    losses = np.array([[1.0, 5.0, INF, INF, 0.0], [1.09, 5.2, 3.0, INF, 1e-9]])
    initial = np.array([101.0, 101.0, 101.0, 101.0, INF])  # a thousandth of the way is 0.1
    expected = [[True, True, False, False, True], [True, False, True, False, False]]
    np.testing.assert_array_equal(solved_enough(losses, initial), expected)
