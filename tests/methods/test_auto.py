"""The method for who does not want to choose: what each stage leaves to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import invsolve
from invsolve.data.solution import FoundBy
from invsolve.methods import search
from invsolve.pipeline import compare


@pytest.mark.parametrize(("model", "options"), [("wave-packet", {"duration": 50, "width": 5}), ("billiards", {})])
def test_it_solves_what_bfgs_leaves_behind(model: str, options: dict[str, float]) -> None:
    data = invsolve.generate(model, 64, seed=5, model_options=options)
    result = compare(data, methods=["bfgs", "auto"]).methods
    assert result["auto"]["solved"] >= 0.98 > result["bfgs"]["solved"] + 0.1
    assert result["auto"]["worse"] == 0
    assert result["auto"]["evaluations"]["mean"] < 200


def test_where_the_first_solve_fits_perfectly_nothing_more_is_done() -> None:
    data = invsolve.generate("billiards", 48, seed=2)
    solution = invsolve.solve(data, method="auto")
    assert solution.found_by is not None
    local = solution.found_by == FoundBy.LOCAL
    assert 0.5 < local.mean() < 1
    assert solution.evaluations[local].mean() < 0.5 * solution.evaluations[~local].mean()


def test_the_budget_holds_for_all_stages_together() -> None:
    data = invsolve.generate("wave-packet", 20, seed=2)
    for most in (3, 10, 40):
        solution = invsolve.solve(data, method="auto", max_evaluations=most)
        assert solution.evaluations.max() <= most
        assert (solution.loss <= solution.loss_initial).all()


def test_examples_that_do_not_fit_into_memory_together_are_refined_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = invsolve.generate("billiards", 12, seed=2)
    whole = invsolve.solve(data, method="auto", options={"simulations": 8})
    monkeypatch.setattr(search, "_MEMORY", 5 * 67 * 14)  # five examples, 67 starts of each, 14 numbers a start
    sizes: list[int] = []
    monkeypatch.setattr(search.Search, "__init__", recording_size(search.Search.__init__, sizes))
    parts = invsolve.solve(data, method="auto", options={"simulations": 8})
    assert sizes == [5, 5, 2]
    np.testing.assert_array_equal(parts.found_by, whole.found_by)
    np.testing.assert_array_equal(parts.starts, whole.starts)
    np.testing.assert_allclose(parts.x, whole.x, rtol=1e-6, atol=1e-9)


def recording_size(begin: Any, sizes: list[int]) -> Any:
    def init(self: Any, local: Any, problem: Any, *more: Any) -> None:
        sizes.append(problem.n)
        begin(self, local, problem, *more)

    return init


def test_unrefined_it_tells_the_best_that_was_seen() -> None:
    data = invsolve.generate("wave-packet", 20, seed=2)
    rough = invsolve.solve(data, method="auto", refine="none")
    fine = invsolve.solve(data, method="auto")
    assert (fine.loss <= rough.loss * (1 + 1e-9) + 1e-12).all()
    assert rough.starts is not None
    assert not rough.starts.any()


def test_the_seed_decides() -> None:
    data = invsolve.generate("wave-packet", 20, seed=2)
    one, again = (invsolve.solve(data, method="auto", seed=4, threads=1, batch_size=32) for _ in range(2))
    assert np.array_equal(one.x, again.x)
    assert np.array_equal(one.evaluations, again.evaluations)
