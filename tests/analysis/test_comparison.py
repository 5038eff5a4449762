"""Several methods and seeds: which files are seeds of one method, what is summed over runs, and what is corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invsolve.analysis.comparison import Contender, Source, by_seed, common_seeds, compared
from invsolve.analysis.rank_test import holm
from invsolve.data.solution import Solution
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
