"""Wins, ties and losses by the contract's definition, and statistics that drop nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import wilcoxon

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
    null = {"median": None, "low": None, "high": None}
    assert found["log10_ratio"] == null | {"infinite": {"median": 1, "low": 1, "high": 1}}
    found = compare_losses(np.ones(8), np.full(8, np.nan), INITIAL)
    assert found["log10_ratio"] == null | {"infinite": {"median": -1, "low": -1, "high": -1}}
    assert found["better"] == 8
    json.dumps(found, allow_nan=False)


def test_quantiles_count_nan_as_infinite() -> None:
    assert quantiles(lambda: [np.array([1.0, 2.0, 4.0])]) == {
        "mean": 7 / 3,
        "median": 2.0,
        "p90": pytest.approx(3.6),
        "max": 4.0,
    }
    assert quantiles(lambda: [np.array([1.0, 2.0, np.nan])]) == {"mean": None, "median": 2.0, "p90": None, "max": None}


def test_p_value_and_note_by_what_the_examples_share() -> None:
    rng = np.random.default_rng(1)
    base = 10.0 ** rng.normal(0, 1, 60)
    loss = base * 10.0 ** rng.normal(-0.3, 0.3, 60)
    alone = compare_losses(loss, base, np.ones(60))
    assert alone["p_value"] == pytest.approx(
        wilcoxon(
            np.where(
                (loss < 0.99 * base - 1e-9) | (base < 0.99 * loss - 1e-9), np.log10((loss + 1e-9) / (base + 1e-9)), 0
            ),
            zero_method="pratt",
            method="approx",
        ).pvalue
    )
    assert "note" not in alone
    shared = compare_losses(loss, base, np.ones(60), shared=True)
    assert (shared["p_value"], shared["note"]) == (None, "one seed")
    assert shared["interval"] == alone["interval"] == "bootstrap over examples"
    drawn = compare_losses(np.stack([loss, 2 * loss]), base, np.ones(60))
    assert drawn["interval"] == "bootstrap over examples"
    assert "note" not in drawn
    several = compare_losses(np.stack([loss, 2 * loss]), base, np.ones(60), shared=True)
    assert (several["p_value"], several["note"]) == (None, "2 seeds")
    assert several["interval"] == "hierarchical bootstrap over seeds and examples"
    assert several["better"] + several["tied"] + several["worse"] == 120


def test_ties_are_no_evidence() -> None:
    base = np.ones(100)
    assert compare_losses(base * 0.995, base, base)["p_value"] == 1.0
    assert compare_losses(base * 0.985, base, base)["p_value"] < 1e-9


def test_seeds_are_no_replicates_of_the_examples() -> None:
    """As many seeds as one likes say no more of other examples than one, where they agree."""
    rng = np.random.default_rng(2)
    base = np.ones(30)
    loss = 10.0 ** rng.normal(-0.1, 0.3, 30)
    one, many = (compare_losses(np.tile(loss, (k, 1)), base, base) for k in (1, 20))
    assert one["p_value"] == many["p_value"]
    assert one["log10_ratio"] == many["log10_ratio"]
    assert many["better"] == 20 * one["better"]


def test_the_p_value_is_of_each_examples_median_over_its_seeds() -> None:
    base = np.ones(6)
    loss = np.full((3, 6), 0.1)
    loss[[0, 1, 2], [0, 1, 2]] = 1e9  # one seed of each of three examples
    assert compare_losses(loss, base, base)["p_value"] == pytest.approx(2 / 2**6)
    loss = np.array([[0.0] * 6, [np.inf] * 6])
    assert compare_losses(loss, np.full(6, np.inf), base)["p_value"] == pytest.approx(2 / 2**6)  # −∞ and a tie


@pytest.mark.parametrize("bad", [np.inf, np.nan, -np.inf])
def test_where_both_fail_is_a_tie(bad: float) -> None:
    found = compare_losses(np.full(9, bad), np.full(9, np.inf), np.ones(9))
    assert (found["tied"], found["p_value"]) == (9, 1.0)
    assert found["log10_ratio"] == {"median": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("bad", [np.inf, np.nan, -np.inf])
def test_nothing_nonfinite_is_dropped(bad: float) -> None:
    loss, base = np.full(40, 0.5), np.ones(40)
    before = compare_losses(loss, base, base)
    loss[:15] = bad
    found = compare_losses(loss, base, base)
    assert (found["better"], found["tied"], found["worse"]) == (25, 0, 15)
    assert found["p_value"] > before["p_value"]
    loss[15:25] = bad
    assert compare_losses(loss, base, base)["log10_ratio"]["infinite"]["median"] == 1


def test_one_example_has_no_interval() -> None:
    found = compare_losses(np.array([0.5]), np.array([1.0]), np.array([2.0]))
    assert found["log10_ratio"]["low"] is None
    assert found["log10_ratio"]["median"] == pytest.approx(np.log10(0.5))
    assert (found["interval"], found["p_value"], found["note"], found["better"]) == (None, None, "one example", 1)


def test_the_order_of_the_examples_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    loss, base, order = 10.0 ** rng.normal(size=(3, 50)), 10.0 ** rng.normal(size=50), rng.permutation(50)
    one = compare_losses(loss, base, np.ones(50), shared=True)
    assert one == compare_losses(loss[:, order], base[order], np.ones(50), shared=True)
