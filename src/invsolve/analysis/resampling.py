"""Intervals of a median by the bootstrap, over examples and, where there are several, over seeds."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def middle(n: int) -> int:
    """Which of n sorted values is taken as their median: an element always, for infinities cannot be averaged."""
    return round((n - 1) / 2)


def median_interval(values: np.ndarray, *, over_seeds: bool = False, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval (Efron 1979) of the median of values (K, n), of K seeds and n examples; no NaN.

    Examples are resampled, each with the values of all its seeds, and with `over_seeds` the seeds as well: rows and
    columns apart, for every seed has the same examples (the pigeonhole bootstrap, Owen 2007). None where n < 2.
    """
    if values.shape[1] < 2:
        return None
    if len(values) == 1:
        return _exact(values[0])
    medians = _resampled(values, over_seeds, np.random.default_rng(seed))
    low, high = (int(np.ceil(q * RESAMPLES)) - 1 for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(medians[low]), float(medians[high])


def _exact(values: np.ndarray) -> tuple[float, float]:
    """What infinitely many resamples of values (n,) give, without a single one.

    The median of a resample is at most the j-th smallest value where more than k = middle(n) of its n draws are among
    the j smallest: with probability I(j/n; k + 1, n − k), the regularized incomplete beta function.
    """
    from scipy.special import betaincinv  # loaded for comparisons alone, as in `rank_test`

    n, k = len(values), middle(len(values))
    at = [int(np.ceil(n * betaincinv(k + 1, n - k, q))) - 1 for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    low, high = np.partition(values, at)[at]
    return float(low), float(high)


def _resampled(values: np.ndarray, over_seeds: bool, rng: np.random.Generator) -> np.ndarray:
    """Sorted medians (RESAMPLES,) of resamples; all values are sorted once, and each resample is weights of them."""
    values = values[:, np.lexsort(values)]  # the order of the examples does not matter
    k, n = values.shape
    order = np.argsort(values, axis=None, kind="stable")
    seed_of, example_of = order // n, order % n
    place = middle(k * n)
    medians = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        weights = np.bincount(rng.integers(0, n, n), minlength=n)[example_of]
        if over_seeds:
            weights *= np.bincount(rng.integers(0, k, k), minlength=k)[seed_of]
        medians[i] = values.flat[order[np.searchsorted(np.cumsum(weights), place, side="right")]]
    return np.sort(medians)
