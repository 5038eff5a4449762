"""What is recorded of the way to a solution: the least objective by so many evaluations, of every method alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import range_solver
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import HISTORY_EVALUATIONS, HISTORY_EXAMPLES, Status
from invsolve.engine import run_rows
from invsolve.histories import History
from invsolve.problem import Problem
from invsolve.registry import registered
from tests.test_engine import Walker, problem

GRID = np.array(HISTORY_EVALUATIONS)
CPU = torch.device("cpu")
INF = np.inf


def by_hand(objectives: list[float]) -> np.ndarray:
    """The history of a row whose evaluations gave these, one after another."""
    return np.array([min(objectives[:count]) for count in GRID], dtype=np.float32)


def test_the_grid_has_two_counts_an_octave() -> None:
    assert HISTORY_EVALUATIONS[:10] == (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    assert HISTORY_EVALUATIONS[-3:] == (2**19, 3 * 2**18, 2**20)
    assert len(HISTORY_EVALUATIONS) == 40


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_every_round_is_recorded_whoever_had_the_place_before(slots: int) -> None:
    targets = [3.0, 60.0, 0.0, 9.0, 21.0]
    p, _ = problem(targets)
    p.history = History.empty(5, CPU)
    p.count(torch.arange(5), evaluations=2, gradients=0)
    limit = torch.tensor([100, 40, 100, 100, 100])
    run_rows(Walker(), p, p.x0, limit=limit, slots=slots, control=Control())
    for i, target in enumerate(targets):
        walked = [INF, INF, *(0.5 * (z - target) ** 2 for z in range(int(p.evaluations[i]) - 2))]
        expected = by_hand(walked)
        np.testing.assert_array_equal(p.history.column()[i], np.where(np.isinf(expected), np.nan, expected))


def test_parts_follow_one_another() -> None:
    """Two starts of one example, of 3 evaluations and of 2, after 4 that were made before, and one of another."""
    whole, part = History.empty(2, CPU), History.empty(3, CPU)
    of = torch.tensor([1, 0, 1])
    for row, objectives in enumerate([[9.0, 8.0, 7.0], [5.0], [6.0, 1.0]]):
        for count, value in enumerate(objectives, start=1):
            part.note(torch.tensor([row]), torch.tensor([count]), torch.tensor([value]))
    whole.absorb(of, part, torch.tensor([4, 0, 4]), torch.tensor([3, 1, 2]))
    expected = np.array([by_hand([5.0]), by_hand([INF] * 4 + [9.0, 8.0, 7.0, 6.0, 1.0])])
    np.testing.assert_array_equal(whole.column(), np.where(np.isinf(expected), np.nan, expected))


def test_more_evaluations_than_the_grid_has_are_in_its_last_entry() -> None:
    history = History.empty(1, CPU)
    for count, value in ((1, 8.0), (2**20, 4.0), (10**9, 2.0)):
        history.note(torch.tensor([0]), torch.tensor([count]), torch.tensor([value]))
    assert history.column()[0, [0, -2, -1]].tolist() == [8.0, 8.0, 2.0]


OPTIONS: dict[str, dict[str, Any]] = {
    "jpo": {"steps": 10, "proposals": "none"},
    "neural-adjoint": {"simulations": 10, "width": 32, "starts": 4, "iterations": 10},
    "supervised": {"simulations": 5},
    "auto": {"simulations": 5, "restarts": 8},
}


def assert_sound(solution: invsolve.Solution, rtol: float = 1e-6) -> None:
    history = solution.history
    assert history is not None
    assert history.dtype == np.float32
    assert history.shape == (len(solution), len(GRID))
    known = ~np.isnan(solution.loss) & np.isfinite(solution.loss_initial)
    np.testing.assert_allclose(history[known, -1], solution.objective[known], rtol=rtol)
    assert (np.diff(history[known], axis=1) <= 0).all()
    # By as many evaluations as were made all is known.
    ended = np.searchsorted(GRID, solution.evaluations)
    np.testing.assert_array_equal(history[np.arange(len(history)), ended], history[:, -1])


@pytest.mark.parametrize(
    ("name", "dtype"), [("bfgs", "float32"), *((name, "float64") for name in sorted(registered("methods")))]
)
def test_histories_lead_from_the_start_to_the_solution(name: str, dtype: str) -> None:
    data = invsolve.generate("wave-packet", 6, seed=7)
    solution = invsolve.solve(data, method=name, options=OPTIONS.get(name, {}), dtype=dtype, max_evaluations=60)
    assert_sound(solution, 1e-6 if dtype == "float64" else 1e-4)
    assert solution.history is not None
    np.testing.assert_allclose(solution.history[:, 0], solution.loss_initial, rtol=1e-6)
    fell = solution.loss < 0.5 * solution.loss_initial
    assert fell.any()
    half = solution.history[fell] <= 0.5 * solution.loss_initial[fell, None]
    assert (GRID[half.argmax(1)] > 1).all()  # not known from the beginning


def test_a_refinement_goes_on_where_the_method_ended() -> None:
    data = invsolve.generate("wave-packet", 20, seed=7)
    alone = invsolve.solve(data, method="gd", options={"max_iterations": 3})
    refined = invsolve.solve(data, method="gd", options={"max_iterations": 3}, refine="bfgs")
    assert_sound(refined)
    assert alone.history is not None
    assert refined.history is not None
    before = alone.evaluations.min() > GRID
    np.testing.assert_array_equal(refined.history[:, before], alone.history[:, before])
    assert (refined.history[:, -1] < 0.9 * alone.history[:, -1]).sum() > 2


def test_a_prior_is_part_of_what_was_minimized() -> None:
    data = invsolve.generate("kuramoto-sivashinsky", 3, seed=7)
    solution = invsolve.solve(data, prior=True, max_evaluations=12)
    assert solution.loss_prior is not None
    assert_sound(solution)


def test_of_what_failed_or_was_not_run_nothing_is_known() -> None:
    targets = np.ones((3, 2))
    targets[1] = np.nan
    solution = invsolve.solve(Dataset(targets=targets, x0=np.zeros(2)), lambda x, identifiers: x)
    assert solution.status[1] == Status.NONFINITE
    assert solution.history is not None
    assert np.isnan(solution.history[1]).all()
    assert np.isfinite(solution.history[[0, 2]]).all()

    control = Control()
    control.interrupted = True
    stopped = invsolve.solve(Dataset(targets=np.ones((3, 2)), x0=np.zeros(2)), lambda x, _: x, control=control)
    assert (stopped.status == Status.NOT_RUN).all()
    assert stopped.history is not None
    assert np.isnan(stopped.history).all()


def test_they_are_bounded_and_never_of_robust_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    data = invsolve.generate("wave-packet", 5, seed=7)
    assert invsolve.solve(data, method="lm", options={"loss": "huber"}).history is None
    assert HISTORY_EXAMPLES == 10_000
    monkeypatch.setattr(range_solver, "HISTORY_EXAMPLES", 4)
    few = Dataset(targets=np.asarray(data.targets)[:4], model="wave-packet")
    for method, options in (("bfgs", {}), ("jpo", {"proposals": "none", "steps": 1})):
        assert invsolve.solve(data, method=method, options=options).history is None
        assert invsolve.solve(few, method=method, options=options).history is not None


def test_processes_that_share_the_rows_record_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = invsolve.generate("wave-packet", 64, seed=7)
    alone = invsolve.solve(data, threads=1)
    monkeypatch.setattr("invsolve.run.WORTH_FORKING", 0.0)
    shared = invsolve.solve(data, threads=2, out=tmp_path / "out.h5")
    assert_sound(shared)
    assert alone.history is not None
    np.testing.assert_allclose(shared.history, alone.history, rtol=1e-5)


def test_examples_that_come_in_windows_have_the_same_start_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = invsolve.generate("wave-packet", 20, seed=7)
    monkeypatch.setattr("invsolve.examples.WINDOW", data.row_bytes * 8)
    solution = invsolve.solve(data, method="jpo", options=OPTIONS["jpo"])
    assert_sound(solution)
    assert solution.history is not None
    np.testing.assert_allclose(solution.history[:, 0], solution.loss_initial, rtol=1e-6)


def noted(p: Problem) -> Tensor:
    assert p.history is not None
    return p.history.least


def test_slices_share_the_history_and_selections_begin_one() -> None:
    p, _ = problem([1.0, 2.0, 3.0])
    p.history = History.empty(3, CPU)
    p.slice(1, 3).evaluate(torch.tensor([0]), torch.zeros(1, 1, dtype=torch.float64))
    p.slice(1, 3).note(torch.tensor([0]), torch.tensor([2.0]))
    assert noted(p)[1, 0] == 2.0
    part = p.select(torch.tensor([1, 1]))
    assert torch.isinf(noted(part)).all()
    part.count(torch.arange(2), evaluations=1, gradients=1)
    part.note(torch.arange(2), torch.tensor([1.5, 0.5]))
    p.absorb(torch.tensor([1, 1]), part)
    assert noted(p)[1, :3].tolist() == [2.0, 1.5, 0.5]
    assert p.evaluations.tolist() == [0, 3, 0]


def test_nothing_waits_for_a_device() -> None:
    """Tensors without values, of which none can be asked for, stand for those of a GPU that is still computing."""
    meta = torch.device("meta")
    whole, part = History.empty(4, meta), History.empty(3, meta)
    rows, counts = torch.empty(3, dtype=torch.int64, device=meta), torch.empty(3, dtype=torch.int64, device=meta)
    whole.note(rows, counts, torch.empty(3, dtype=torch.float64, device=meta))
    whole.absorb(rows, part, counts, counts)
    assert whole.least.shape == (4, len(GRID))
