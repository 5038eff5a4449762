"""The round loop of the row methods: the one place that knows budgets, best-so-far, guards, counts and progress.

A row method is a flat state machine. Each round it proposes one trial point per active row; the engine evaluates all
trials in one batched call; the method advances every row by one transition. A line search is a state of its row, so
no row waits for another's. Finished rows leave the batch at once and waiting ones take their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from invsolve.control import Control, Progress
from invsolve.data.solution import Status
from invsolve.histories import History
from invsolve.problem import Batch, Problem
from invsolve.tracing import is_traced

RUNNING = -1
"""Outcome of a row that goes on; the others are those of `Status`."""


@dataclass
class RowState:
    """Base of a method's state: a dataclass of tensors, or of such states, each with one row per active example."""

    def combine(self, change: Callable[..., Tensor], *others: Self) -> Self:
        """`change` applied to every tensor, together with those of the other states at its place."""
        parts = []
        names: tuple[str, ...] = type(self).__match_args__  # the fields: quicker than to ask for them in every round
        for name in names:
            mine, theirs = getattr(self, name), [getattr(other, name) for other in others]
            parts.append(mine.combine(change, *theirs) if isinstance(mine, RowState) else change(mine, *theirs))
        return type(self)(*parts)

    def select(self, keep: Tensor) -> Self:
        """The state of the rows at the indices `keep`."""
        return self.combine(lambda t: t[keep])

    def put(self, places: Tensor, other: Self) -> Self:
        """This state with the other's rows at the indices `places`."""
        return self.combine(lambda mine, theirs: mine.index_copy(0, places, theirs), other)

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        found: list[Tensor] = []
        self.combine(lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
        return found

    def rebuilt(self, tensors: Sequence[Tensor]) -> Self:
        """A state of the same make from what `tensors` would give."""
        parts = iter(tensors)
        return self.combine(lambda _: next(parts))

    def where(self, condition: Tensor, other: Self) -> Self:
        """This state in the rows of `condition` (b,), the other one elsewhere."""

        return self.combine(lambda mine, theirs: choose(condition, mine, theirs), other)


def choose(condition: Tensor, this: Tensor, other: Tensor) -> Tensor:
    """Rows of `this` (b, ...) where the condition (b,) holds, of `other` elsewhere.

    Of a single row, which may be very long, nothing is copied: the result is the one or the other tensor.
    """
    if len(condition) == 1 and this.shape == other.shape and not is_traced():
        return this if bool(condition) else other
    return torch.where(condition.reshape(-1, *(1,) * (this.ndim - 1)), this, other)


S = TypeVar("S", bound=RowState)


def worth(mask: Tensor) -> bool:
    """Whether work for the rows of a mask (b,) is to be done, or may be left because there are none.

    Always, where to ask would wait for a GPU, or would become a part of a compiled kernel.
    """
    return mask.device.type != "cpu" or is_traced() or bool(mask.any())


class Evaluation(NamedTuple):
    """What was computed at the trials of b rows."""

    loss: Tensor  # (b,) what the method minimizes, +inf where F fails
    derivatives: tuple[Tensor, ...]  # each (b, ...): what `advance` takes beside it
    evaluations: Tensor  # (b,) int64 rows of F computed
    gradients: Tensor  # (b,) int64 rows of F differentiated


class RowStepper(Protocol, Generic[S]):
    """The mathematics of a row method, for b rows of d unknowns each. Rows do not know of each other."""

    cost: int
    """Evaluations of F that a round may take, of each row."""

    def start(self, z: Tensor) -> S:
        """State of fresh rows; their first trial must be z (b, d) itself."""
        ...

    def propose(self, state: S) -> Tensor:
        """Trial points (b, d), inside the bounds."""
        ...

    def evaluate(self, problem: Problem, batch: Batch, state: S, trial: Tensor) -> Evaluation:
        """What is to be known at the trials (b, d); a row for which the model raises harms no other."""
        ...

    def advance(self, *args: Any, **kwargs: Any) -> tuple[S, Tensor]:
        """(state, loss, *derivatives): state and outcome (b,) int8 (RUNNING or a Status) after the trials gave these.

        The first loss of a row is finite; later ones may be +inf, with derivatives 0.
        """
        ...

    def iterations(self, state: S) -> Tensor:
        """Iterations (b,) int64 done so far."""
        ...


class CompilableStepper(RowStepper[S], Protocol[S]):
    """One whose rounds can be compiled: nothing in them branches on values while `is_traced`, or writes in place."""

    def compute(self, problem: Problem, batch: Batch, state: S, trial: Tensor) -> Evaluation:
        """What `evaluate` gives, as a function of its tensors alone."""
        ...


@dataclass
class RowResults:
    """What a solver hands back, in z: its best points and how each row ended. It carries no losses to be believed."""

    z: Tensor  # (n, d)
    status: Tensor  # (n,) int8
    iterations: Tensor  # (n,) int64
    best: Tensor  # (n,) the solver's own losses, for comparing stages of one solve
    found_by: Tensor | None = None  # (n,) int8, see FoundBy: which stage found it, where there are several
    starts: Tensor | None = None  # (n,) int64 points started from, where there may be several
    minima: Tensor | None = None  # (n,) int64 distinct minima found from them
    first: Tensor | None = None  # (n,) loss at the start, where a search is to hold its own against it
    candidates: Tensor | None = None  # (n, c, d) points that local solves may start from, in this order
    origins: Tensor | None = None  # (n, c) int8, see FoundBy: of the candidates

    def to_columns(self) -> dict[str, np.ndarray]:
        """The results as arrays, to be kept in a file; those that there are."""
        return {name: tensor.cpu().numpy() for name, tensor in self.present().items()}

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray], device: torch.device) -> RowResults:
        """What `to_columns` gave, on a device; other columns are left."""
        known = (f.name for f in fields(cls) if f.name in columns)
        return cls(**{name: torch.from_numpy(columns[name]).to(device) for name in known})

    def slice(self, start: int, stop: int) -> RowResults:
        """Rows start ≤ i < stop."""
        return RowResults(**{name: tensor[start:stop] for name, tensor in self.present().items()})

    @classmethod
    def joined(cls, parts: Sequence[RowResults]) -> RowResults:
        """The rows of all parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        present = parts[0].present()
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in present})

    def present(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

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


@dataclass
class Slots(RowState, Generic[S]):
    """The rows that are being solved, one in each of b places."""

    rows: Tensor  # (b,) int64
    outcome: Tensor  # (b,) int8: RUNNING, or how the row has ended that still has the place
    trial: Tensor  # (b, d)
    best: Tensor  # (b,) lowest loss so far
    best_z: Tensor  # (b, d)
    iterations: Tensor  # (b,) int64
    evaluations: Tensor  # (b,) int64, those made earlier included
    gradients: Tensor  # (b,) int64
    limit: Tensor  # (b,) int64 of evaluations
    state: S


def advance_slots(stepper: RowStepper[S], slots: Slots[S], found: Evaluation) -> Slots[S]:
    """One transition of all rows; those that have ended stay as they are, whatever was computed in their places."""
    active = slots.outcome == RUNNING
    better = active & (found.loss < slots.best)
    unborn = torch.isinf(found.loss) & torch.isinf(slots.best)
    best_z = choose(better, slots.trial, slots.best_z)
    state, outcome = stepper.advance(slots.state, found.loss, *found.derivatives)
    evaluations = slots.evaluations + torch.where(active, found.evaluations, 0)
    spent = (evaluations + stepper.cost > slots.limit) & (outcome == RUNNING)
    outcome = outcome.masked_fill(spent, int(Status.BUDGET)).masked_fill(unborn, int(Status.NONFINITE))
    outcome = torch.where(active, outcome, slots.outcome)
    return Slots(
        rows=slots.rows,
        outcome=outcome,
        trial=choose(outcome == RUNNING, stepper.propose(state), best_z),
        best=torch.where(better, found.loss, slots.best),
        best_z=best_z,
        iterations=torch.where(active, stepper.iterations(state), slots.iterations),
        evaluations=evaluations,
        gradients=slots.gradients + torch.where(active, found.gradients, 0),
        limit=slots.limit,
        state=state,
    )


class Kernels:
    """The two computations of a round, as they are written."""

    width: int | None = None
    """The number of places that they are made for, None where it does not matter."""

    def evaluate(self, stepper: RowStepper[S], problem: Problem, batch: Batch, slots: Slots[S]) -> Evaluation:
        """What is to be known at the trials."""
        return stepper.evaluate(problem, batch, slots.state, slots.trial)

    def advance(self, stepper: RowStepper[S], slots: Slots[S], found: Evaluation) -> Slots[S]:
        """One transition of all rows."""
        return advance_slots(stepper, slots, found)


class Rounds(Generic[S]):
    """The rounds that solve all rows of a problem, at most `width` of them at a time.

    A row that has ended leaves its place to a waiting one. That is looked after once a sixteenth of the rows in the
    places have ended, and where none wait any more the batch shrinks instead: to copy data costs less than to evaluate
    F for nothing, but not always less than to do so once. Kernels that are made for one width keep it to the end.
    """

    def __init__(
        self, stepper: RowStepper[S], problem: Problem, z0: Tensor, limit: Tensor, width: int, kernels: Kernels
    ) -> None:
        self.stepper, self.problem, self.z0, self.limit, self.kernels = stepper, problem, z0, limit, kernels
        self.results = RowResults.unstarted(z0)
        # A row without an evaluation left cannot even be begun.
        hopeless = problem.evaluations + stepper.cost > limit
        self.results.status[hopeless] = int(Status.BUDGET)
        self.waiting = (~hopeless).nonzero().squeeze(1)
        width = kernels.width or width
        fresh, self.waiting = self.waiting[:width], self.waiting[width:]
        self.running = len(fresh)
        if kernels.width and self.running:
            fresh = torch.cat([fresh, fresh[:1].expand(width - self.running)])
        self.slots, self.batch = self._begun(fresh), problem.batch(fresh)
        if kernels.width:  # made for tensors that share no memory
            self.slots = self.slots.combine(lambda t: t.clone(memory_format=torch.contiguous_format))
        self._vacate(torch.arange(len(fresh), device=z0.device) >= self.running)
        self._every = 1 if z0.device.type == "cpu" else ROUNDS_BETWEEN_LOOKS
        self._round = 0
        self._trail: list[tuple[Tensor, Tensor, Tensor]] = []  # of the last rounds: rows, evaluations, best so far

    def _begun(self, rows: Tensor) -> Slots[S]:
        z, zeros = self.z0[rows], torch.zeros_like(rows)
        state = self.stepper.start(z)
        return Slots(
            rows=rows,
            outcome=torch.full_like(rows, RUNNING, dtype=torch.int8),
            trial=z,
            best=z.new_full((len(rows),), torch.inf),
            best_z=z,
            iterations=zeros,
            evaluations=self.problem.evaluations[rows],
            gradients=self.problem.gradients[rows],
            limit=self.limit[rows],
            state=state,
        )

    def step(self) -> None:
        """One evaluation of all rows in their places, one transition, and new rows for those that have ended."""
        found = self.kernels.evaluate(self.stepper, self.problem, self.batch, self.slots)
        self.slots = self.kernels.advance(self.stepper, self.slots, found)
        self._round += 1
        if self.problem.history is not None:
            self._trail.append((self.slots.rows, self.slots.evaluations, self.slots.best))
            if len(self._trail) == ROUNDS_NOTED_TOGETHER:
                self._note(self.problem.history)
        if self._round % self._every == 0:
            self._look()

    def _note(self, history: History) -> None:
        """Tell the history of the rounds since the last time."""
        if self._trail:
            history.note(*(torch.cat(parts) for parts in zip(*self._trail, strict=True)))
            self._trail.clear()

    def _look(self) -> None:
        ended = self.slots.outcome != RUNNING
        count = int(ended.sum())
        self.running = len(ended) - count
        if not count or (self.running and 16 * count < len(ended)):
            return
        self._store(ended)
        fresh, self.waiting = self.waiting[:count], self.waiting[count:]
        if len(fresh):
            self._fill(ended.nonzero().squeeze(1)[: len(fresh)], fresh)
        if len(fresh) < count and not self.kernels.width:
            keep = (self.slots.outcome == RUNNING).nonzero().squeeze(1)
            self.slots, self.batch = self.slots.select(keep), self.batch.select(keep)

    def _fill(self, places: Tensor, rows: Tensor) -> None:
        self.slots = self.slots.put(places, self._begun(rows))
        new = self.problem.batch(rows)
        self.batch = self.batch.combine(lambda mine, theirs: mine.index_copy_(0, places, theirs), new)
        self.running += len(rows)

    def _vacate(self, which: Tensor) -> None:
        """Mark the places of the mask `which` (b,) as without a row of their own."""
        slots = self.slots
        self.slots = replace(
            slots,
            rows=slots.rows.masked_fill(which, NOBODY),
            outcome=slots.outcome.masked_fill(which, int(Status.NOT_RUN)),
            best=slots.best.masked_fill(which, torch.inf),  # to be noted of nobody
        )

    def _store(self, which: Tensor) -> None:
        """Keep what was found for the rows in the places of the mask `which` (b,), and vacate them."""
        slots, results = self.slots, self.results
        self._vacate(which)
        which = which & (slots.rows != NOBODY)
        rows = slots.rows[which]
        results.z[rows], results.best[rows] = slots.best_z[which], slots.best[which]
        results.status[rows], results.iterations[rows] = slots.outcome[which], slots.iterations[which]
        self.problem.evaluations[rows], self.problem.gradients[rows] = slots.evaluations[which], slots.gradients[which]

    def finish(self) -> RowResults:
        """What was found; rows that have not ended are out of budget."""
        if self.problem.history is not None:
            self._note(self.problem.history)
        going = self.slots.outcome == RUNNING
        self.slots = replace(self.slots, outcome=self.slots.outcome.masked_fill(going, int(Status.BUDGET)))
        self._store(torch.ones_like(going))
        return self.results

    def progress(self, stage: str) -> Progress:
        """What a display is told."""
        problem, slots = self.problem, self.slots
        done = problem.n - len(self.waiting) - self.running
        begun = slots.rows != NOBODY
        best = torch.cat([self.results.best, slots.best[begun]])
        more = (slots.evaluations[begun] - problem.evaluations[slots.rows[begun]]).sum()
        return Progress(
            stage=stage,
            total=problem.n,
            done=done,
            fraction=done / problem.n,
            evaluations=int(problem.evaluations.sum() + more),
            losses=best[torch.isfinite(best)],
        )


NOBODY = -1  # in the place of a row's number
ROUNDS_BETWEEN_LOOKS = 8  # on a GPU, where to ask how many rows have ended waits for all that is under way

ROUNDS_NOTED_TOGETHER = 16  # what a history is told costs by the call


def run_rows(
    stepper: RowStepper[S],
    problem: Problem,
    z0: Tensor,
    *,
    limit: Tensor,
    slots: int,
    control: Control,
    stage: str = "solve",
    kernels: Kernels | None = None,
) -> RowResults:
    """Solve every row of `problem` from z0 (n, d), at most `slots` of them at a time.

    `limit` (n,) int64 bounds `problem.evaluations` of each row, those made earlier included.
    """
    rounds = Rounds(stepper, problem, z0, limit, slots, kernels or Kernels())
    while rounds.running and not control.stopped:
        rounds.step()
        control.report(partial(rounds.progress, stage))
    return rounds.finish()
