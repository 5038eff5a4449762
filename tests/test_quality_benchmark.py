"""benchmarks/quality: which runs follow from which, and what the report says of them, from made-up results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.kept import package_code, write_result
from benchmarks.quality.figures import draw_all
from benchmarks.quality.plan import Plan, rival_of, stages
from benchmarks.quality.report import Report
from benchmarks.quality.runs import Case, Result, Store

PLAN = Plan(("wave-packet",), ("bfgs", "jpo", "auto", "multistart"), seeds=(0, 1), budgets=(25, 200), sizes=(256, 1024))
LOSS_OF = {"bfgs": 1.0, "jpo": 0.5, "auto": 0.5, "multistart": 1.001}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Results of all that goes to its own end, but one that refuses and one that fails."""
    store = Store(tmp_path, Result)
    for case in PLAN.unlimited():
        evaluations, solved = {"bfgs": (9, 0.4), "multistart": (160, 0.9)}.get(case.method, (306, 0.98))
        loss = [LOSS_OF[case.method]] * case.n
        result = Result(
            "done", package_code(), "0 at abc", solved=solved + 0.01 * case.seed, evaluations=evaluations,
            most_evaluations=evaluations, gradients=evaluations, seconds=1.5, starts=16.0, loss=loss,
            loss_initial=[2.0] * case.n,
        )  # fmt: skip
        if case.method == "auto" and case.seed == 1:
            result = Result("failed" if case.n == 256 else "refused", package_code(), line="no reason")
        write_result(store.path(case), case, result)
    return store


def test_the_stages_follow_from_each_other(store: Store) -> None:
    asked = dict(stages(PLAN, store))
    assert len(asked["unlimited"]) == 2 * 2 * 4
    budgets = {(c.method, c.budget) for c in asked["budgets"]}
    # bfgs takes 9 evaluations, and feels no budget.
    assert budgets == {("jpo", 25), ("jpo", 200), ("auto", 25), ("auto", 200), ("multistart", 25)}
    # 3 × 306 evaluations at 10 a start; of the seed that refuses nothing is known.
    assert [(c.n, c.seed, dict(c.options)) for c in asked["rivals"]] == [(1024, 0, {"starts": 92, "agree": 92})]


def test_the_table_judges_the_goals(store: Store) -> None:
    auto = Case("wave-packet", 1024, "auto", 0)
    rival = rival_of(auto, store)
    assert rival is not None
    write_result(store.path(rival), rival, Result("done", package_code(), solved=1.0, evaluations=920.0))
    report = Report(PLAN, store)
    rows = {tuple(row.split(" | ")[1:3]): row for row in report.table().splitlines()[2:]}
    assert "**0.985** (0.980–0.990) | 306" in rows["256", "jpo"]
    assert rows["256", "jpo"].endswith("≥ 0.97 at ≤ 400: reached |")
    assert rows["1024", "auto"].endswith("≥ 0.99 and ≥ multistart with 3 × evaluations: **missed** |")
    assert "| 920 |" in rows["1024", "multistart, 3 × auto"]
    assert "1.000 / 0.000" in rows["256", "jpo"]
    assert "0.000 / 0.000" in rows["256", "multistart"]  # within 1 %: tied


def test_what_is_missing_is_told(store: Store) -> None:
    notes = Report(PLAN, store).notes()
    assert "- refused: auto on wave-packet: no reason (1 run)" in notes
    assert "- failed: auto on wave-packet: no reason (1 run)" in notes
    assert "runs asked for have not been made" in notes


def test_a_curve_goes_on_where_a_budget_is_not_felt(store: Store) -> None:
    report = Report(PLAN, store)
    np.testing.assert_allclose(report.curve("wave-packet", 256, "bfgs"), [(9, 0.405, 0.4, 0.41)])
    for seed in PLAN.seeds:
        case = Case("wave-packet", 256, "jpo", seed, budget=25)
        write_result(store.path(case), case, Result("done", package_code(), solved=0.5, evaluations=25.0))
    np.testing.assert_allclose(report.curve("wave-packet", 256, "jpo"), [(25, 0.5, 0.5, 0.5), (306, 0.985, 0.98, 0.99)])


def test_figures_are_drawn(store: Store, tmp_path: Path) -> None:
    files = list(draw_all(Report(PLAN, store), tmp_path))
    assert {f.name for f in files} == {f"{n}.{k}" for n in ("solved-wave-packet", "improved") for k in ("png", "svg")}
    assert all(f.stat().st_size > 1000 for f in files)


def test_a_case_survives_the_command_line() -> None:
    case = Case("billiards", 16, "multistart", 2, options=(("starts", 92), ("agree", 92)))
    assert Case.from_json(case.to_json()) == case
