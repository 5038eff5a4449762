"""benchmarks/paper: what is run for which figure, and what is said of it, from made-up results; and one real run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.kept import package_code, write_result
from benchmarks.paper.child import solve
from benchmarks.paper.experiments import BASELINE, CONTESTANTS, JOINT
from benchmarks.paper.figures import draw_all, figures_of
from benchmarks.paper.plan import Plan
from benchmarks.paper.report import Report
from benchmarks.paper.runs import ALIGNMENT, Case, Result, Store, dataset, part
from benchmarks.paper.shown import kept, telling, training_table

import invsolve

PLAN = Plan(("billiards",), seeds=(0, 1), sizes=(2, 8, 32))
LOSS_OF = {"bfgs": 1.0, "gd": 1.001, JOINT: 0.5, "jpo": 0.0}
ALIGNED = {"sizes": [1, 2, 4], "joint": [0.1, 0.2, 0.4], "spread": [0.05] * 3, "plain": 0.1, "networks": 8}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Results of all: jpo is better in every example, on the loss alone in every second one, gd in none."""
    store = Store(tmp_path, Result)
    for case in PLAN.cases():
        write_result(store.path(case), case, made_up(case))
    return store


def made_up(case: Case) -> Result:
    if case.who == ALIGNMENT:
        return Result("done", package_code(), alignment=ALIGNED, seconds=1.0)
    n = case.n * case.groups
    loss = [LOSS_OF[case.who] if case.who != JOINT or i % 2 else 1.0 for i in range(n)]
    return Result(
        "done", package_code(), "0 at abc", loss=list(loss), loss_initial=[2.0] * n,
        solved=[v < 0.75 - 0.5 * case.seed for v in loss], evaluations=9.0, gradients=8.0, seconds=1.5,
    )  # fmt: skip


def test_methods_that_know_single_examples_are_run_once_for_all_n() -> None:
    cases = list(PLAN.cases())
    assert len(cases) == len(set(cases)) == 1 + 2 * (2 + 2 * 3)
    by_who = {who: [(c.n, c.groups) for c in cases if c.who == who and c.seed == 0] for who in CONTESTANTS}
    assert by_who == {
        "bfgs": [(32, 1)],
        "gd": [(32, 1)],
        JOINT: [(2, 4), (8, 1), (32, 1)],
        "jpo": [(2, 4), (8, 1), (32, 1)],
    }
    assert {(c.n, c.seed) for c in cases if c.shown} == {(32, 0)}
    assert Case.from_json(cases[-1].to_json()) == cases[-1]


def test_shares_are_of_the_examples_that_were_solved_with_so_many(store: Store) -> None:
    report = Report(PLAN, store)
    for n in (2, 8, 32):
        point = report.point("billiards", n, JOINT)
        assert point is not None
        assert (point.better.tolist(), point.worse.tolist()) == ([0.5, 0.5], [0.0, 0.0])
        assert point.solved.tolist() == [0.5, 0.0]
        alone = report.point("billiards", n, BASELINE)
        assert alone is not None
        assert alone.solved.tolist() == [0.0, 0.0]
    # Within 1 %: tied.
    gd = report.point("billiards", 32, "gd")
    assert gd is not None
    assert (gd.better.tolist(), gd.worse.tolist()) == ([0.0, 0.0], [0.0, 0.0])
    row = next(line for line in report.table().splitlines() if line.startswith("| billiards | 8 | jpo |"))
    assert row == (
        "| billiards | 8 | jpo | **1.000** (1.000–1.000) | 0.000 | 1.000 (1.000–1.000) | 9 | 8 | 1.5 | 1 | 2 |"
    )


def test_a_seed_is_drawn_once_it_is_complete(store: Store, tmp_path: Path) -> None:
    case = PLAN.case("billiards", 8, "jpo", 1)
    write_result(store.path(case), case, Result("failed", package_code(), line="exit code 1, no reason"))
    report = Report(PLAN, store)
    assert report.whole_seeds("billiards") == [0]
    assert "- failed: jpo on billiards, n = 8, seed 1: exit code 1, no reason" in report.notes()
    store.path(replace(case, seed=0)).unlink()
    report = Report(PLAN, Store(tmp_path, Result))
    assert "- 1 of 17 runs asked for have not been made" in report.notes()
    assert "gain" not in {name for name, _ in figures_of(report, "billiards")}


def test_figures_are_drawn(store: Store, tmp_path: Path) -> None:
    files = list(draw_all(Report(PLAN, store), tmp_path))
    assert {f.name for f in files} == {f"billiards-{n}.{k}" for n in ("gain", "alignment") for k in ("png", "svg")}
    assert all(f.stat().st_size > 1000 for f in files)


def test_groups_are_solved_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "kept.h5"
    found = solve(Case("billiards", 4, "bfgs", 0, groups=2), file)
    alone = invsolve.solve(part(dataset("billiards", 0), 4, 8))
    np.testing.assert_allclose(found.losses[4:], alone.loss, rtol=1e-6, atol=1e-12)
    assert len(found.losses) == len(found.solved) == 8
    assert found.evaluations > 2
    assert not file.exists()
    solve(Case("billiards", 4, "bfgs", 0, shown=True), file)
    assert len(invsolve.read_solution(file)) == 4


def test_kept_solutions_are_shown_at_an_example_that_only_jpo_solves(tmp_path: Path) -> None:
    plan, store = Plan(("billiards",), seeds=(0,), sizes=(8,)), Store(tmp_path, Result)
    report = Report(plan, store)
    # Two real runs; the others have the same solutions.
    for who, like in (("bfgs", "gd"), (JOINT, "jpo")):
        case, other = (plan.case("billiards", 8, name, 0) for name in (who, like))
        file, another = (store.path(c).with_suffix(".h5") for c in (case, other))
        assert not list(figures_of(report, "billiards"))
        result = solve(case, file)
        another.write_bytes(file.read_bytes())
        for c in (case, other):
            write_result(store.path(c), c, result)
    found = kept(report, "billiards")
    assert found is not None
    solutions, source = found
    assert source.loss_true is not None
    (i,) = telling(solutions, source)
    assert solutions["jpo"].loss[i] <= 1e-3 * solutions["jpo"].loss_initial[i] < solutions["bfgs"].loss[i]
    assert [name for name, _ in figures_of(report, "billiards")] == ["example", "landscape", "curves", "gain"]
    cells = training_table(report).splitlines()[-1].split(" | ")
    assert cells[:3] == ["| billiards", "8", "256"]
    assert all(float(cell.strip(" |")) <= 1 for cell in cells[3:])
    assert float(cells[6]) > 0  # better after local solves


def test_parts_of_the_data_are_examples_of_the_whole() -> None:
    data = dataset("billiards", 0)
    some = part(data, 4, 8)
    np.testing.assert_array_equal(some.targets, np.asarray(data.targets)[4:8])
    np.testing.assert_array_equal(some.x_true, np.asarray(data.x_true)[4:8])
    assert (len(data), len(some), some.model) == (256, 4, "billiards")
