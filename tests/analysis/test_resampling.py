"""Intervals of the median: the exact one is what resampling tends to, and seeds that differ widen it."""

from __future__ import annotations

import numpy as np
import pytest

from invsolve.analysis import resampling
from invsolve.analysis.resampling import median_interval, middle
from invsolve.analysis.summary import median


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 100])
def test_the_middle_is_that_of_median(n: int) -> None:
    assert middle(n) == median(np.arange(n, dtype=float))


@pytest.mark.parametrize("n", [2, 5, 30, 101])
def test_the_exact_interval_is_that_of_many_resamples(n: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=n)
    medians = np.sort(np.sort(values[rng.integers(0, n, (40_000, n))], axis=1)[:, middle(n)])
    found = median_interval(values[None])
    assert found is not None
    # Its ends are order statistics: about the 2.5 and 97.5 % quantiles, there is one that 40,000 resamples cannot miss.
    for end, q in zip(found, (0.025, 0.975), strict=True):
        below, up_to = (medians < end).mean(), (medians <= end).mean()
        assert below - 0.003 <= q <= up_to + 0.003


def test_intervals_by_hand() -> None:
    # Of two values, the median of a resample is the smaller one with probability 3/4.
    assert median_interval(np.array([[1.0, 2.0]])) == (1.0, 2.0)
    assert median_interval(np.array([[7.0, 7.0, 7.0]])) == (7.0, 7.0)
    assert median_interval(np.array([[7.0]])) is None
    assert median_interval(np.array([[7.0], [8.0]]), over_seeds=True) is None
    assert median_interval(np.array([[np.inf] * 3 + [1.0] * 97])) == (1.0, 1.0)
    assert median_interval(np.array([[np.inf] * 9 + [-np.inf] * 9])) == (-np.inf, np.inf)


def test_resampled_medians_are_those_of_resampled_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 50)
    values = np.random.default_rng(2).normal(size=(3, 8))
    values = values[:, np.lexsort(values)]
    for over_seeds in (False, True):
        rng, expected = np.random.default_rng(5), []
        for _ in range(50):
            drawn = values[:, rng.integers(0, 8, 8)]
            if over_seeds:
                drawn = drawn[rng.integers(0, 3, 3)]
            expected.append(median(drawn.ravel()))
        found = resampling._resampled(values, over_seeds, np.random.default_rng(5))
        np.testing.assert_array_equal(found, np.sort(expected))


def test_the_order_of_examples_does_not_matter_and_a_seed_repeats() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(3, 50))
    found = median_interval(values, over_seeds=True, seed=7)
    assert found == median_interval(values[:, rng.permutation(50)], over_seeds=True, seed=7)
    assert found != median_interval(values, over_seeds=True, seed=8)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    for spread, wider in ((0.5, 3.0), (0.0, 1.0)):
        values = rng.normal(0, 1, (5, 400)) + spread * np.arange(-2, 3)[:, None]
        one, both = (median_interval(values, over_seeds=over) for over in (False, True))
        assert one is not None
        assert both is not None
        assert both[1] - both[0] >= wider * (one[1] - one[0])


def test_the_interval_covers_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of a seed and of an example, each of which moves all of its pairs; the median is 0."""
    monkeypatch.setattr(resampling, "RESAMPLES", 200)
    covered = np.zeros(3)
    for trial in range(200):
        rng = np.random.default_rng(trial)
        one = rng.normal(size=(1, 41))
        values = 0.3 * (rng.normal(size=(8, 1)) + one + rng.normal(size=(8, 41)))
        found = (
            median_interval(one),
            median_interval(values, over_seeds=True, seed=trial),
            median_interval(values, seed=trial),
        )
        covered += [low <= 0 <= high for low, high in filter(None, found)]
    exact, both, examples_alone = covered / 200
    assert 0.92 <= exact <= 0.99
    assert both >= 0.86  # a bootstrap over eight seeds is somewhat too narrow
    assert examples_alone < 0.7  # what seeds differ by is not seen in it
