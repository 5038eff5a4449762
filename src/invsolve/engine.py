"""The round loop of the row methods: the one place that knows budgets, best-so-far, guards, counts and progress.

A row method is a flat state machine. Each round it proposes one trial point per active row; the engine evaluates all
trials in one batched call; the method advances every row by one transition. A line search is a state of its row, so
no row waits for another's. Finished rows leave the batch at once and waiting ones take their places.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from invsolve.data.solution import Status
from invsolve.problem import Problem

RUNNING = -1
"""Outcome of a row that goes on; the others are those of `Status`."""


@dataclass
class RowState:
    """Base of a method's state: a dataclass of tensors, or of such states, each with one row per active example."""

    def combine(self, change: Callable[..., Tensor], *others: Self) -> Self:
        """`change` applied to every tensor, together with those of the other states at its place."""
        parts = {}
        for f in fields(self):
            mine, theirs = getattr(self, f.name), [getattr(other, f.name) for other in others]
            parts[f.name] = mine.combine(change, *theirs) if isinstance(mine, RowState) else change(mine, *theirs)
        return type(self)(**parts)

    def select(self, keep: Tensor) -> Self:
        """The state of the rows at the indices `keep`."""
        return self.combine(lambda t: t[keep])

    def append(self, other: Self) -> Self:
        """This state's rows, then the other's."""
        return self.combine(lambda mine, theirs: torch.cat([mine, theirs]), other)

    def where(self, condition: Tensor, other: Self) -> Self:
        """This state in the rows of `condition` (b,), the other one elsewhere."""

        return self.combine(lambda mine, theirs: choose(condition, mine, theirs), other)


def choose(condition: Tensor, this: Tensor, other: Tensor) -> Tensor:
    """Rows of `this` (b, ...) where the condition (b,) holds, of `other` elsewhere.

    Of a single row, which may be very long, nothing is copied: the result is the one or the other tensor.
    """
    if len(condition) == 1 and this.shape == other.shape:
        return this if bool(condition) else other
    return torch.where(condition.reshape(-1, *(1,) * (this.ndim - 1)), this, other)


S = TypeVar("S", bound=RowState)


class RowStepper(Protocol, Generic[S]):
    """The mathematics of a row method, for b active rows of d unknowns each."""

    def start(self, z: Tensor) -> S:
        """State of fresh rows; their first trial must be z (b, d) itself."""
        ...

    def propose(self, state: S) -> Tensor:
        """Trial points (b, d), inside the bounds."""
        ...

    def advance(self, state: S, loss: Tensor, gradient: Tensor) -> tuple[S, Tensor]:
        """State and outcome (b,) int8 (RUNNING or a Status) after the trials gave `loss` (b,) and `gradient` (b, d).

        The first loss of a row is finite; later ones may be +inf, with gradient 0.
        """
        ...

    def iterations(self, state: S) -> Tensor:
        """Iterations (b,) int64 done so far."""
        ...


@dataclass
class Progress:
    """What a progress display is told."""

    stage: str
    total: int  # examples
    done: int  # examples finished
    fraction: float  # of the stage's work
    evaluations: int  # rows of F computed since the stage began
    losses: Tensor  # best so far, of the examples begun


class Control:
    """How a run is watched and ended from outside: deadline, interruption, progress.

    `interrupted` is set by a signal handler; rows in flight then end with their best so far.
    """

    def __init__(
        self, display: Callable[[Progress], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display, self._clock = display, clock
        self._deadline = self._before = 0.0
        self._limited = False
        self._told = -math.inf
        self._total: int | None = None
        self.interrupted = False

    def start(self, time_limit: float | None) -> None:
        """Start the clock of a run that may take `time_limit` seconds."""
        self._limited = time_limit is not None
        self._deadline = self._clock() + (time_limit or 0.0)

    @property
    def stopped(self) -> bool:
        """Whether to end at the next opportunity."""
        return self.interrupted or (self._limited and self._clock() >= self._deadline)

    def begin_range(self, before: int, total: int) -> None:
        """From now on, what is reported is of a range of rows with `before` finished examples before it."""
        self._before, self._total = before, total

    def report(self, progress: Callable[[], Progress]) -> None:
        """Tell the display, if there is one, at most ten times a second."""
        if self._display is None or self._clock() - self._told < 0.1:
            return
        told = progress()
        if self._total is not None:
            told.fraction = (self._before + told.fraction * told.total) / self._total
            told.done, told.total = int(self._before) + told.done, self._total
        self._display(told)
        self._told = self._clock()


@dataclass
class RowResults:
    """What a solver hands back, in z: its best points and how each row ended. It carries no losses to be believed."""

    z: Tensor  # (n, d)
    status: Tensor  # (n,) int8
    iterations: Tensor  # (n,) int64
    best: Tensor  # (n,) the solver's own losses, for comparing stages of one solve

    def to_columns(self) -> dict[str, np.ndarray]:
        """The results as arrays, to be kept in a file."""
        return {f.name: getattr(self, f.name).cpu().numpy() for f in fields(self)}

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray], device: torch.device) -> RowResults:
        """What `to_columns` gave, on a device."""
        return cls(**{f.name: torch.from_numpy(columns[f.name]).to(device) for f in fields(cls)})

    def slice(self, start: int, stop: int) -> RowResults:
        """Rows start ≤ i < stop."""
        return RowResults(*(getattr(self, f.name)[start:stop] for f in fields(self)))

    @classmethod
    def unstarted(cls, z: Tensor, loss: Tensor | None = None) -> RowResults:
        """Rows at their start z (n, d), none of them run; `loss` (n,) where it is known already."""
        n = len(z)
        return cls(
            z=z.clone(),
            status=torch.full((n,), int(Status.NOT_RUN), dtype=torch.int8, device=z.device),
            iterations=torch.zeros(n, dtype=torch.int64, device=z.device),
            best=z.new_full((n,), torch.inf) if loss is None else loss.clone(),
        )


def run_rows(
    stepper: RowStepper[S],
    problem: Problem,
    z0: Tensor,
    *,
    limit: Tensor,
    slots: int,
    control: Control,
    stage: str = "solve",
) -> RowResults:
    """Solve every row of `problem` from z0 (n, d), at most `slots` of them at a time.

    `limit` (n,) int64 bounds `problem.evaluations` of each row, those made earlier included.
    """
    results = RowResults.unstarted(z0)
    device = z0.device
    waiting = torch.arange(problem.n, device=device)
    # A row without an evaluation left cannot even be begun.
    begun_out = problem.evaluations >= limit
    results.status[begun_out] = int(Status.BUDGET)
    waiting = waiting[~begun_out]
    rows = waiting[:0]
    state: S | None = None
    while len(rows) or len(waiting):
        if control.stopped:
            results.status[rows] = int(Status.BUDGET)
            break
        if len(waiting) and len(rows) < slots:
            fresh, waiting = waiting[: slots - len(rows)], waiting[slots - len(rows) :]
            begun = stepper.start(z0[fresh])
            state = begun if state is None or not len(rows) else state.append(begun)
            rows = torch.cat([rows, fresh])
        assert state is not None
        trial = stepper.propose(state)
        loss, gradient = problem.evaluate(rows, trial)
        unborn = torch.isinf(loss) & torch.isinf(results.best[rows])
        _keep_best(results, rows, trial, loss)
        state, outcome = stepper.advance(state, loss, gradient)
        spent = (problem.evaluations[rows] >= limit[rows]) & (outcome == RUNNING)
        outcome = outcome.masked_fill(spent, int(Status.BUDGET)).masked_fill(unborn, int(Status.NONFINITE))
        finished = outcome != RUNNING
        if bool(finished.any()):
            results.status[rows[finished]] = outcome[finished]
            results.iterations[rows] = stepper.iterations(state)
            keep = (~finished).nonzero().squeeze(1)
            rows, state = rows[keep], state.select(keep)
        left = len(rows) + len(waiting)
        control.report(partial(_progress, stage, problem, results, left))
    if state is not None and len(rows):
        results.iterations[rows] = stepper.iterations(state)
    return results


def _keep_best(results: RowResults, rows: Tensor, trial: Tensor, loss: Tensor) -> None:
    best, z = results.best[rows], results.z[rows]
    better = loss < best
    results.best[rows] = torch.where(better, loss, best)
    results.z[rows] = torch.where(better[:, None], trial, z)


def _progress(stage: str, problem: Problem, results: RowResults, left: int) -> Progress:
    done = problem.n - left
    return Progress(
        stage=stage,
        total=problem.n,
        done=done,
        fraction=done / problem.n,
        evaluations=int(problem.evaluations.sum()),
        losses=results.best[torch.isfinite(results.best)],
    )
