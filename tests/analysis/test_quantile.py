"""Quantiles of a column in parts are NumPy's of the whole, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from invsolve.analysis.quantile import quantile
from invsolve.analysis.summary import median_of, quantiles, totals

AT = [0.0, 0.1, 0.5, 0.9, 1.0]
COLUMNS = arrays(np.float64, st.integers(2, 60), elements=st.floats(allow_nan=False, width=64))


def cut(values: np.ndarray, at: int) -> list[np.ndarray]:
    return [values[:at], values[at:]]


@settings(max_examples=100, deadline=None)
@given(values=COLUMNS, data=st.data())
@pytest.mark.parametrize("method", ["nearest", "higher"])
def test_elements_are_those_of_the_whole(values: np.ndarray, data: st.DataObject, method: str) -> None:
    at = data.draw(st.integers(1, len(values) - 1))
    found = quantile(lambda: cut(values, at), AT, method)
    np.testing.assert_array_equal(found, np.quantile(values, AT, method=method))  # type: ignore[call-overload]


@pytest.mark.parametrize("n", [2, 3, 10, 1001, 70_000])
def test_interpolated_and_in_many_parts(n: int) -> None:
    values = np.random.default_rng(n).lognormal(sigma=9, size=n) * np.where(np.arange(n) % 7, 1, -1)
    values[n // 2 :] = np.round(values[n // 2 :])  # ties
    found = quantile(lambda: np.array_split(values, 9), AT)
    np.testing.assert_array_equal(found, np.quantile(values, AT))


def test_a_report_of_parts_is_that_of_the_whole() -> None:
    losses = np.abs(np.random.default_rng(1).normal(size=5001))
    whole, in_parts = quantiles(lambda: [losses]), quantiles(lambda: np.array_split(losses, 7))
    assert in_parts.pop("mean") == pytest.approx(whole.pop("mean"), rel=1e-14)
    assert in_parts == whole
    assert whole["median"] == np.median(losses)
    counts = np.arange(100) ** 2
    assert totals(lambda: np.array_split(counts, 3)) == totals(lambda: [counts])
    some = losses.copy()
    some[::5] = np.nan
    assert median_of(lambda: np.array_split(some, 3)) == np.nanquantile(some, 0.5, method="nearest")
    assert quantiles(lambda: np.array_split(some, 3)) == {"mean": None, "median": 1.0, "p90": None, "max": None} | {
        "median": float(np.quantile(np.nan_to_num(some, nan=np.inf), 0.5, method="higher"))
    }
