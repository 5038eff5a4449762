"""Wins, ties and losses by the contract's definition, and statistics that drop nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from invsolve.analysis.compare import compare_losses
from invsolve.analysis.summary import quantiles

INITIAL = np.full(8, 100.0)
BASE = np.array([1.0, 1.0, 1.0, 0.0, 0.0, np.inf, 1.0, np.nan])


def test_better_tied_worse() -> None:
    loss = np.array([0.5, 0.995, 2.0, 0.0, 1e-6, 1.0, np.nan, np.inf])
    #                better tied  worse tied worse better worse tied
    found = compare_losses(loss, BASE, INITIAL)
    assert (found["better"], found["tied"], found["worse"]) == (2, 3, 3)


def test_differences_below_the_floor_are_ties() -> None:
    found = compare_losses(np.full(8, 1e-8), np.full(8, 9e-8), INITIAL)  # the floor is 1e-7
    assert found["tied"] == 8


def test_the_ratio_is_of_the_median_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(0)
    base = 10.0 ** rng.normal(0, 1, 400)
    found = compare_losses(base * 10.0 ** rng.normal(-0.5, 0.3, 400), base, np.full(400, 1.0))["log10_ratio"]
    assert found["low"] < -0.5 < found["high"]
    assert found["median"] == pytest.approx(-0.5, abs=0.05)
    assert found["high"] - found["low"] < 0.15


def test_infinite_ratios_are_null_in_json() -> None:
    found = compare_losses(np.full(8, np.inf), np.ones(8), INITIAL)
    assert found["log10_ratio"] == {"median": None, "low": None, "high": None}
    json.dumps(found, allow_nan=False)


def test_quantiles_count_nan_as_infinite() -> None:
    assert quantiles(np.array([1.0, 2.0, 4.0])) == {"mean": 7 / 3, "median": 2.0, "p90": pytest.approx(3.6), "max": 4.0}
    assert quantiles(np.array([1.0, 2.0, np.nan])) == {"mean": None, "median": 2.0, "p90": None, "max": None}
