"""Wilcoxon's signed-rank test, and Holm's correction for several of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

MOST_EXACT = 50  # differences, up to which the distribution is computed and not approximated


def signed_rank(differences: np.ndarray) -> float:
    """Two-sided p-value that differences (n,) are symmetric about 0; they may be infinite, but not NaN.

    Only signs and ranks of their sizes count (Wilcoxon 1945), so that infinite ones rank last, equal among each other.
    Zeros take part in the ranking and have no sign (Pratt 1959). The distribution given the ranks, ties included, is
    exact for 50 differences, and normal above.
    """
    from scipy.stats import rankdata  # takes a second to load, which comparisons alone are to wait for

    known = differences != 0
    ranks, positive = rankdata(np.abs(differences))[known], differences[known] > 0
    if not len(ranks):
        return 1.0
    if len(differences) <= MOST_EXACT:
        return _exact(ranks, positive)
    z = (ranks[positive].sum() - ranks[~positive].sum()) / math.sqrt((ranks**2).sum())
    return math.erfc(abs(z) / math.sqrt(2))


def _exact(ranks: np.ndarray, positive: np.ndarray) -> float:
    """The same by the distribution of the sum of the ranks that have a positive sign, each by the toss of a coin."""
    steps = np.round(2 * ranks).astype(int)  # ranks of ties are halves
    chance = np.zeros(steps.sum() + 1)
    chance[0] = 1.0
    for step in steps:
        moved = np.concatenate([np.zeros(step), chance[:-step]])
        chance = (chance + moved) / 2
    found = steps[positive].sum()
    return min(1.0, 2 * float(min(chance[: found + 1].sum(), chance[found:].sum())))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values of several tests, corrected so that the chance of any false alarm is kept (Holm 1979)."""
    corrected, largest = {}, 0.0
    for i, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, (len(p_values) - i) * p_values[name])
        corrected[name] = min(1.0, largest)
    return corrected
