"""What is recommended for which numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from invsolve.diagnosis.result import Alignment, Flatness, Minima
from invsolve.diagnosis.verdict import judge

SLOPES = Flatness(at_x0=0.0, at_drawn=0.0, failing_drawn=0.0)
ONE_BASIN = Minima("bfgs", 64, 8, 0.0, 0.0, 1.0, 0.0, 1.0, None, None, 0.0)
MANY = replace(ONE_BASIN, several=1.0, mean=4.0, x0_worse=0.6, found_again=0.5)
LOST = Alignment("best found", 64, 8, [1, 64], [0.1, 0.12], [0.1, 0.0], 0.1, None)
ALIGNED = replace(LOST, joint=[0.1, 0.7])


@pytest.mark.parametrize(
    ("alignment", "flatness", "minima", "method", "why"),
    [
        (LOST, SLOPES, ONE_BASIN, "bfgs", "in 0% of the examples"),
        (ALIGNED, SLOPES, ONE_BASIN, "bfgs", "is enough"),
        (LOST, SLOPES, replace(MANY, found_again=0.9), "multistart", "find the best minimum of 90%"),
        (LOST, SLOPES, replace(MANY, found_again=0.9, solved_best=0.3), "auto", "many starts would be"),
        (ALIGNED, SLOPES, MANY, "jpo", "cosine of 0.70, each one's own gradient with 0.10"),
        (LOST, SLOPES, MANY, "auto", "many starts would be needed; auto begins with local solves"),
        (LOST, replace(SLOPES, at_x0=0.4), ONE_BASIN, "multistart", "gradient vanishes at x0 in 40%"),
        (replace(LOST, joint_flat=0.5), replace(SLOPES, at_x0=0.4), MANY, "jpo", "those without a gradient"),
        (None, SLOPES, replace(ONE_BASIN, solved_x0=0.2, solved_best=0.2), "auto", "x0 bfgs solves 20%"),
        (ALIGNED, SLOPES, replace(MANY, unfinished=0.9), "bfgs", "90% of the starts were cut off"),
        (None, SLOPES, replace(ONE_BASIN, x0_worse=None, found_again=None), "bfgs", "give it more time"),
    ],
)
def test_the_recommendation_and_its_reason(
    alignment: Alignment | None, flatness: Flatness, minima: Minima, method: str, why: str
) -> None:
    chosen, summary, verdicts = judge(alignment, flatness, minima)
    assert chosen == method
    assert why in summary
    assert not summary[0].islower()
    assert summary.endswith(".")
    assert [v.method for v in verdicts] == ["bfgs", "multistart", "jpo", "auto"]
    assert all(v.reason for v in verdicts)
