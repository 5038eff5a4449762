"""The round loop: compaction, refill, budgets, best-so-far and interruption, seen through a scripted method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.engine import RUNNING, RowResults, RowState, run_rows
from invsolve.methods.base import FirstOrder
from invsolve.models.base import FunctionModel
from invsolve.problem import Problem


@dataclass
class Walk(RowState):
    z: Tensor
    steps: Tensor


class Walker(FirstOrder):
    """Walks right in steps of one; a row ends as converged once its loss starts to rise."""

    def start(self, z: Tensor) -> Walk:
        return Walk(z=z, steps=torch.zeros(len(z), dtype=torch.int64))

    def propose(self, state: Walk) -> Tensor:
        return state.z

    def advance(self, state: Walk, loss: Tensor, gradient: Tensor) -> tuple[Walk, Tensor]:
        done = gradient[:, 0] > 0
        outcome = torch.where(done, int(Status.CONVERGED), RUNNING).to(torch.int8)
        return replace(state, z=state.z + 1, steps=state.steps + 1), outcome

    def iterations(self, state: Walk) -> Tensor:
        return state.steps


class Recorder:
    """y = x, and a record of which examples each call was asked for (their identifiers)."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, x: Tensor, identifiers: Tensor) -> Tensor:
        self.calls.append([int(i) for i in identifiers[:, 0]])
        return x


def problem(targets: list[float], model: Recorder | None = None) -> tuple[Problem, Recorder]:
    recorder = model or Recorder()
    n = len(targets)
    data = Dataset(targets=np.array(targets)[:, None], identifiers=np.arange(float(n))[:, None], x0=np.zeros((n, 1)))
    return Problem(FunctionModel(recorder, "f"), data.rows(0, n), (1,), torch.device("cpu"), torch.float64), recorder


def run(p: Problem, *, limit: int = 10**6, slots: int = 100, control: Control | None = None) -> RowResults:
    limits = torch.full((p.n,), limit)
    return run_rows(Walker(), p, p.x0, limit=limits, slots=slots, control=control or Control())


def test_finished_rows_leave_the_batch_at_once() -> None:
    p, recorder = problem([2.0, 0.0, 1.0])
    results = run(p)
    # Row i takes target + 2 evaluations: it ends when it first steps past its target.
    assert recorder.calls == [[0, 1, 2], [0, 1, 2], [0, 2], [0]]
    assert results.z.ravel().tolist() == [2.0, 0.0, 1.0]
    assert p.evaluations.tolist() == [4, 2, 3]
    assert results.iterations.tolist() == [4, 2, 3]


def test_waiting_rows_take_the_free_places() -> None:
    p, recorder = problem([2.0, 0.0, 1.0, 0.0])
    results = run(p, slots=2)
    assert recorder.calls == [[0, 1], [0, 1], [0, 2], [0, 2], [3, 2], [3]]
    assert (results.status == Status.CONVERGED).all()
    assert results.z.ravel().tolist() == [2.0, 0.0, 1.0, 0.0]


def test_budgets_hold_for_each_row_and_the_best_is_kept() -> None:
    p, _ = problem([1.0, 5.0])
    results = run(p, limit=3)
    assert results.status.tolist() == [Status.CONVERGED, Status.BUDGET]
    assert results.z.ravel().tolist() == [1.0, 2.0]
    assert p.evaluations.tolist() == [3, 3]


def test_a_row_without_budget_is_not_begun() -> None:
    p, recorder = problem([1.0, 1.0])
    results = run_rows(Walker(), p, p.x0, limit=torch.tensor([0, 9]), slots=2, control=Control())
    assert results.status.tolist() == [Status.BUDGET, Status.CONVERGED]
    assert all(0 not in call for call in recorder.calls)


def test_interruption_keeps_the_best_so_far() -> None:
    control = Control()

    class Interrupting(Recorder):
        def __call__(self, x: Tensor, identifiers: Tensor) -> Tensor:
            control.interrupted = len(self.calls) == 3
            return super().__call__(x, identifiers)

    p, _ = problem([9.0, 0.0, 9.0], Interrupting())
    results = run(p, slots=2, control=control)
    assert results.status.tolist() == [Status.BUDGET, Status.CONVERGED, Status.BUDGET]
    assert results.z.ravel().tolist() == [3.0, 0.0, 1.0]


def test_a_row_that_starts_nonfinite_ends_so_and_others_go_on() -> None:
    class NanForOne(Recorder):
        def __call__(self, x: Tensor, identifiers: Tensor) -> Tensor:
            return torch.where(identifiers == 1, torch.nan, super().__call__(x, identifiers))

    p, recorder = problem([1.0, 1.0], NanForOne())
    results = run(p)
    assert results.status.tolist() == [Status.CONVERGED, Status.NONFINITE]
    assert recorder.calls[1:] == [[0], [0]]


def test_a_deadline_stops_the_run_by_the_clock_it_is_given() -> None:
    now = [0.0]
    control = Control(clock=lambda: now[0])
    control.start(10)
    assert not control.stopped
    now[0] = 10.0
    assert control.stopped


def test_progress_is_told_at_most_ten_times_a_second() -> None:
    now, told = [0.0], []
    control = Control(told.append, clock=lambda: now[0])
    p, _ = problem([30.0])

    class Slow(Walker):
        def propose(self, state: Walk) -> Tensor:
            now[0] += 0.03
            return super().propose(state)

    run_rows(Slow(), p, p.x0, limit=torch.tensor([10**6]), slots=1, control=control)
    assert len(told) == 8  # 32 rounds of 30 ms, and one report at each fourth
    assert told[-1].total == 1
    assert told[-1].evaluations > told[0].evaluations
