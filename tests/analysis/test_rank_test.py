"""Wilcoxon's test against SciPy's and against all signs there are; Holm's correction by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from invsolve.analysis.rank_test import MOST_EXACT, holm, signed_rank


@pytest.mark.parametrize("n", [1, 2, 5, 20, MOST_EXACT])
@pytest.mark.parametrize("shift", [0.0, 0.4, -1.0])
def test_few_differences_are_exact(n: int, shift: float) -> None:
    d = np.random.default_rng(n).normal(shift, 1, n)
    assert signed_rank(d) == pytest.approx(wilcoxon(d, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [MOST_EXACT + 1, 200, 5000])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_many_differences_are_normal_with_ties_and_zeros(n: int, shift: float) -> None:
    d = np.round(np.random.default_rng(n).normal(shift, 1, n), 1)
    d[:3] = 0
    expected = wilcoxon(d, zero_method="pratt", correction=False, method="approx").pvalue
    assert signed_rank(d) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "d", [[0.0, 0.0, 1.0, -1.0, 2.0, 2.0, 3.0], [np.inf, np.inf, -np.inf, 1.0, 0.0], [0.0, 5.0, 5.0, 5.0, 5.0]]
)
def test_ties_zeros_and_infinities_against_all_signs(d: list[float]) -> None:
    values = np.array(d)
    ranks = rankdata(np.abs(values))[values != 0]
    sums = [
        sum(r for r, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    found = rankdata(np.abs(values))[values > 0].sum()
    expected = 2 * min(np.mean(np.array(sums) <= found), np.mean(np.array(sums) >= found))
    assert signed_rank(values) == pytest.approx(min(1.0, expected))


def test_infinities_rank_last_and_nothing_says_nothing() -> None:
    d = np.random.default_rng(0).normal(0.5, 1, 80)
    d[:7], d[7:9] = np.inf, -np.inf
    large = np.where(np.isinf(d), np.sign(d) * 1e9, d)
    assert signed_rank(d) == signed_rank(large) != signed_rank(d[9:])
    assert signed_rank(np.zeros(9)) == signed_rank(np.zeros(90)) == signed_rank(np.zeros(1)) == 1.0
    assert signed_rank(np.ones(100_000)) == 0.0


def test_false_alarms_are_as_rare_as_they_say() -> None:
    rng = np.random.default_rng(6)
    for n in (12, 70):
        alarms = np.mean([signed_rank(rng.standard_t(2, n)) < 0.05 for _ in range(800)])
        assert 0.03 <= alarms <= 0.07


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.6: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.6.
    found = holm({"a": 0.03, "b": 0.01, "c": 0.6, "d": 0.02})
    assert found == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.6, "d": 0.06})
    # 3 × 0.01 = 0.03, then 2 × 0.012 = 0.024, which must not be smaller.
    assert holm({"a": 0.01, "b": 0.012, "c": 0.5}) == pytest.approx({"a": 0.03, "b": 0.03, "c": 0.5})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.2}) == {"a": 0.2}
    assert holm({}) == {}
