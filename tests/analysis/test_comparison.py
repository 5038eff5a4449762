"""Several methods and seeds: which files are seeds of one method, what is summed over runs, and what is corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invsolve.analysis.comparison import Contender, Source, by_seed, common_seeds, compared
from invsolve.analysis.rank_test import holm
from invsolve.data.solution import HISTORY_EVALUATIONS, Solution
from invsolve.errors import DataError

N = 30


def solution(scale: float = 1.0, seed: int = 0, method: str = "bfgs", spread: float = 0.3, **more: Any) -> Solution:
    """Losses about `scale`, and counts, that are drawn from the seed."""
    rng = np.random.default_rng(seed + sum(map(ord, method)))
    counts = rng.integers(3, 90, N)
    return Solution(
        x=np.zeros((N, 1)),
        loss=scale * 10.0 ** rng.normal(0, spread, N),
        loss_initial=np.full(N, 100.0),
        status=np.zeros(N, np.int8),
        iterations=counts,
        evaluations=counts,
        gradients=counts - 1,
        grad_norm=np.zeros(N),
        x_initial=np.ones((N, 1)),
        example=np.arange(N),
        attributes={"method": method, "seed": seed, "seconds": 2.0 + seed, "refine": "none"} | more,
    )


def test_files_of_one_method_that_differ_in_the_seed_alone_are_its_seeds() -> None:
    a, b, c = solution(seed=3, method="jpo"), solution(seed=1, method="jpo"), solution()
    assert by_seed({Path("a.h5"): a, Path("b.h5"): b, Path("c.h5"): c}) == {"jpo": [b, a], "bfgs": [c]}


@pytest.mark.parametrize("more", [{"seed": 3}, {"seed": 4, "method_options": "{}"}, {"seed": 4, "refine": "lm"}])
def test_files_that_differ_in_more_or_in_nothing_go_by_their_names(more: dict[str, Any]) -> None:
    a, b = solution(seed=3, method="jpo"), solution(method="jpo", **more)
    assert by_seed({Path("x/a.h5"): a, Path("b.h5"): b}) == {"a": [a], "b": [b]}
    with pytest.raises(DataError, match="the same name"):
        by_seed({Path("x/a.h5"): a, Path("a.h5"): b})


def test_methods_that_draw_need_the_same_seeds() -> None:
    two = Contender((solution(seed=1, method="jpo"), solution(seed=2, method="jpo")), True)
    one, still = Contender((solution(),), False), Contender((solution(),), False, uses_seed=False)
    assert common_seeds({"jpo": two, "bfgs": still}) == (1, 2)
    assert common_seeds({"multistart": one, "bfgs": still}) == (0,)
    with pytest.raises(DataError, match="'jpo' is given with seeds 1, 2, 'multistart' with 0"):
        common_seeds({"multistart": one, "jpo": two})
    strange = Contender((solution(method="m"),), False)
    strange.runs[0].attributes["seed"] = "a lot"
    assert common_seeds({"m": strange}) == (0,)


def test_costs_are_those_of_all_runs_and_p_values_are_corrected() -> None:
    runs = (solution(0.8, seed=0, method="multistart"), solution(0.8, seed=1, method="multistart"))
    contenders = {
        "bfgs": Contender((solution(),), False, uses_seed=False),
        "multistart": Contender(runs, False),
        "lm": Contender((solution(0.9, method="lm"),), False, uses_seed=False),
        "jpo": Contender(tuple(solution(0.1, seed=s, method="jpo") for s in (0, 1)), True),
    }
    found = compared(contenders, "bfgs", (0, 1), Source())
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    m = document["methods"]["multistart"]
    assert m["evaluations"]["total"] == sum(int(run.evaluations.sum()) for run in runs)
    assert m["gradients"]["mean"] == np.mean([run.gradients for run in runs])
    assert (m["seconds"], m["n"], m["seeds"]) == (5.0, N, [0, 1])
    assert m["loss"]["median"] == np.median(np.concatenate([run.loss for run in runs]))
    assert all(m["better"] + m["tied"] + m["worse"] == 2 * N for m in document["methods"].values())
    raw = {name: document["methods"][name]["p_value"] for name in ("multistart", "lm")}
    assert {name: document["methods"][name]["p_holm"] for name in raw} == holm(raw)
    assert document["methods"]["jpo"]["p_holm"] is None
    assert document["methods"]["bfgs"]["note"] == "baseline"
    joint = compared(contenders, "jpo", (0, 1), Source()).methods
    assert all(m["p_value"] is None and m["p_holm"] is None for m in joint.values())


def test_profiles_count_what_is_solved_and_by_whom_that_is_told() -> None:
    a, b = solution(), solution(method="lm")
    contenders = {"bfgs": Contender((a,), False), "lm": Contender((b,), False)}
    by_truth = compared(contenders, "bfgs", (0,), Source(loss_true=np.full(N, 1.0)))
    assert by_truth.profiles["solved_by"] == "x_true"
    for name, run in (("bfgs", a), ("lm", b)):
        assert by_truth.profiles["data"]["solved"][name][-1] == by_truth.methods[name]["solved"]
        assert by_truth.methods[name]["solved"] == (run.loss <= 1.05 + 0.1).mean()
    spent = np.concatenate([run.evaluations[run.loss <= 1.05 + 0.1] for run in (a, b)])
    budgets = by_truth.profiles["data"]["evaluations"]
    assert (budgets[0], budgets[-1]) == (spent.min(), spent.max())
    by_best = compared(contenders, "bfgs", (0,), Source())
    best = np.minimum(a.loss, b.loss)
    assert by_best.profiles["solved_by"] == "the best of all methods"
    assert by_best.profiles["data"]["solved"]["lm"][-1] == (b.loss <= best + 1e-3 * (100 - best)).mean()
    assert "solved" not in by_best.methods["lm"]


def with_history(run: Solution, half: int, end: int) -> Solution:
    """That was at half of its first loss after `half` evaluations, and at its last one after `end`."""
    grid, n = np.array(HISTORY_EVALUATIONS), len(run)
    history = np.repeat(run.loss_initial[:, None], len(grid), axis=1).astype(np.float32)
    history[:, grid >= half] *= 0.5
    history[:, grid >= end] = run.loss[:, None]
    run.history = history
    run.evaluations = np.full(n, 90)
    return run


def test_profiles_and_curves_go_by_histories_where_all_have_them() -> None:
    runs = [with_history(solution(seed=s, method="jpo"), 2, 24) for s in (0, 1)]
    one = with_history(solution(), 4, 12)
    contenders = {"bfgs": Contender((one,), False, uses_seed=False), "jpo": Contender(tuple(runs), True)}
    for source in (Source(), Source(loss_true=np.full(N, 1.0))):
        found = compared(contenders, "bfgs", (0, 1), source)
        document = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert document["profiles"]["cost"] == "until first solved"
        budgets = document["profiles"]["data"]["evaluations"]
        assert (budgets[0], budgets[-1]) == (12, pytest.approx(24))
        # 2 s, or 2 s and 3 s, for 90 evaluations of N examples.
        seconds = document["profiles"]["data_by_seconds"]["seconds"]
        assert seconds[0] == pytest.approx(2 * 12 / 90 / N)
        assert seconds[-1] == pytest.approx(3 * 24 / 90 / N)
        for name in contenders:
            by_count, by_time = (document["profiles"][kind]["solved"][name] for kind in ("data", "data_by_seconds"))
            assert by_count[-1] == by_time[-1] > 0
    curve = document["curves"]["jpo"]
    assert curve["evaluations"] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert curve["median"][:3] == [1.0, 0.5, 0.5]
    last = np.concatenate([run.loss / run.loss_initial for run in runs])
    assert curve["high"][-1] == pytest.approx(np.quantile(last, 0.9), rel=1e-6)

    runs[1].history = None
    del one.attributes["seconds"]
    found = compared(contenders, "bfgs", (0, 1), Source())
    assert found.profiles["cost"] == "until ended"
    assert found.profiles["data"]["evaluations"][0] == pytest.approx(90)
    assert "data_by_seconds" not in found.profiles
    assert list(found.curves) == ["bfgs"]


def test_with_a_prior_x_true_tells_nothing_of_histories() -> None:
    a, b = with_history(solution(), 4, 12), with_history(solution(method="lm"), 4, 12)
    a.loss_prior = b.loss_prior = np.ones(N)
    contenders = {"bfgs": Contender((a,), False), "lm": Contender((b,), False)}
    assert compared(contenders, "bfgs", (0,), Source(loss_true=np.ones(N))).profiles["cost"] == "until ended"
    assert compared(contenders, "bfgs", (0,), Source()).profiles["cost"] == "until first solved"


def test_a_failed_example_is_kept_everywhere() -> None:
    a, b = solution(), solution(method="lm")
    b.loss[:20] = [np.nan, np.inf] * 10
    found = compared({"bfgs": Contender((a,), False), "lm": Contender((b,), False)}, "bfgs", (0,), Source())
    assert found.methods["lm"]["worse"] >= 20
    assert found.profiles["data"]["solved"]["lm"][-1] <= 1 / 3
    rows = list(found.rows())
    assert len(rows) == 1 + 2 * N
    assert [row[-1] for row in rows[1 + N : 21 + N]] == ["worse"] * 20
    assert {row[-2] for row in rows[1:]} == {""}  # solved: x_true is not known
