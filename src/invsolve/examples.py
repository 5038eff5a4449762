"""All examples of a run, for what learns from them together: their data come in windows of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invsolve.analysis.evaluate import evaluate
from invsolve.checkpoints import State
from invsolve.control import Control
from invsolve.crew import ALONE, Crew
from invsolve.data.dataset import Dataset, Rows
from invsolve.histories import History
from invsolve.problem import Problem
from invsolve.ranges import Range, split

WINDOW = 2**26  # bytes of data that are in memory at a time
_BLOCKS = 8  # runs of contiguous rows that make up a window: few, to be read quickly; several, to be mixed
_LEAST_SHARES = 4  # that a block makes, so that each member of a crew has one of the last window too


@dataclass(frozen=True)
class Window:
    """Some of the examples, or this member's share of them.

    Row i of `problem`, and of the data it was made from, is example `examples[i]`.
    """

    rows: Rows
    problem: Problem
    examples: Tensor  # (w,) int64
    everyone: Tensor  # (v,) int64: the examples of all members
    first: int  # of these is this member's

    def mine(self, places: Tensor) -> tuple[Tensor | slice, Tensor]:
        """Of places (b,) among everyone those of this member's examples: where they are in `places`, and the rows."""
        if len(self.everyone) == len(self.examples):
            return slice(None), places
        rows = places - self.first
        own = ((rows >= 0) & (rows < len(self.examples))).nonzero().squeeze(1)
        return own, rows[own]


class Examples:
    """n examples, of which the small things are in memory: start, counts. The data come in windows.

    Where all data fit in `WINDOW`, there is one window, and it stays in memory. Of every window a member of a crew
    loads its share, and what is known of the examples in memory is only right for its own until it is merged.

    Args:
        dataset: the data.
        x_shape: shape of one solution.
        problem: makes a problem of rows of the data.
        keep_history: whether `history` is kept of what is minimized.
        crew: those who train together, no more than `most_members` of the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        x_shape: tuple[int, ...],
        problem: Callable[[Rows], Problem],
        *,
        keep_history: bool = False,
        crew: Crew = ALONE,
    ) -> None:
        self.crew = crew
        self._dataset, self._x_shape, self._problem = dataset, x_shape, problem
        self.n, self.y_shape = len(dataset), dataset.y_shape
        self._most = most_in_window(dataset)
        self._whole = self._load([(0, self.n)]) if self.n <= self._most else None
        first = self._whole or self._load([(0, 1)], ALONE)
        self.d, self.device, self.coordinates = first.problem.d, first.problem.device, first.problem.coordinates
        self.parameters, self._conduct = first.problem.parameters, first.problem.conduct
        self.x0 = first.problem.x0.new_zeros(self.n, self.d)
        self.evaluations = torch.zeros(self.n, dtype=torch.int64, device=self.device)
        self.gradients = torch.zeros_like(self.evaluations)
        self._merged = self.evaluations.clone(), self.gradients.clone()  # as all members knew them last
        self.history = History.empty(self.n, self.device) if keep_history else None
        self._open: Window | None = None
        self._error = self._conduct.first_error  # as it was when the open window was opened

    @property
    def in_memory(self) -> bool:
        """Whether all data are, as one window."""
        return self._whole is not None

    def score(self, batch_size: int, control: Control | None = None) -> tuple[Tensor, Tensor] | None:
        """Loss (n,) of the data and what is minimized (n,), float64, at the starts, which are kept in `x0`.

        None where `control` stops it.
        """
        loss = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        objective, stopped = torch.zeros_like(loss), False
        for window in self.windows():
            exact = window.problem.in_float64(window.rows)
            score = evaluate(exact, exact.x0, batch_size, differentiate=False, control=control)
            stopped = control is not None and control.stopped
            if stopped:
                break
            loss[window.examples], objective[window.examples] = score.loss, score.objective
            self.x0[window.examples] = window.problem.x0
            del window, exact  # before the next one is loaded
        if self.crew.any(stopped):
            return None
        self.crew.sum_(self.x0)
        self.merge()
        return self.crew.sum_(loss), self.crew.sum_(objective)

    def windows(self, order: torch.Generator | None = None, *, multiple: int = 1, skip: int = 0) -> Generator[Window]:
        """One pass over all examples, each in one window; what a window's problem counts is kept, its history too.

        Blocks of `multiple` rows, or of a multiple of them, stay together; with `order` they are shuffled, unless all
        are in one window. The first `skip` windows are left out.
        """
        if self._whole is not None:
            groups = [[(0, self.n)]]
        else:
            rows = max(multiple, self._most // _BLOCKS // multiple * multiple)
            blocks = list(split(self.n, rows))
            if order is not None:
                blocks = [blocks[i] for i in torch.randperm(len(blocks), generator=order).tolist()]
            together = max(1, self._most // rows)
            groups = [blocks[i : i + together] for i in range(0, len(blocks), together)]
            if sum(stop - start for start, stop in groups[-1]) < rows / _LEAST_SHARES:  # too few to be shared out
                last = groups.pop()
                groups[-1] += last
        for group in groups[skip:]:
            window = self._whole or self._load(group)
            self._hand_over(window)
            self._open, self._error = window, window.problem.conduct.first_error
            try:
                yield window
            finally:
                self._take_back(window)
                self._open = None
            del window

    def _hand_over(self, window: Window) -> None:
        """What is counted so far, for the problem of the window to count on from."""
        problem, examples = window.problem, window.examples
        problem.evaluations.copy_(self.evaluations[examples])
        problem.gradients.copy_(self.gradients[examples])
        problem.history = None if self.history is None else History(self.history.least[examples])

    def _take_back(self, window: Window) -> None:
        """What the problem of the open window has counted so far."""
        problem, examples = window.problem, window.examples
        self.evaluations[examples], self.gradients[examples] = problem.evaluations, problem.gradients
        if self.history is not None and problem.history is not None:
            self.history.least[examples] = problem.history.least
        if self._error is None and problem.conduct.first_error is not None:  # it was told by its row
            i, text = problem.conduct.first_error
            problem.conduct.first_error = self._error = int(examples[i]), text

    def merge(self) -> None:
        """Let all members know what each has counted so far."""
        if self._open is not None:
            self._take_back(self._open)
        if self.crew.size == 1:
            return
        for counts, before in zip((self.evaluations, self.gradients), self._merged, strict=True):
            counts.copy_(before + self.crew.sum_(counts - before))
            before.copy_(counts)
        if self.history is not None:
            self.crew.least_(self.history.least)
        if self._open is not None:  # some of its examples may have been counted by another member before
            self._hand_over(self._open)
        told = [error for error in self.crew.gather(self._conduct.first_error) if error is not None]
        self._conduct.first_error = min(told, default=None)

    def state(self) -> State:
        """What is counted of every example, the open window included."""
        self.merge()
        counts: State = {"evaluations": self.evaluations, "gradients": self.gradients}
        error = self._conduct.first_error
        history = {} if self.history is None else {"history": self.history.least}
        return counts | history | {"first_error": None if error is None else list(error)}

    def restore(self, state: State) -> None:
        """While no window is open."""
        for counts, before, name in zip(
            (self.evaluations, self.gradients), self._merged, ("evaluations", "gradients"), strict=True
        ):
            counts.copy_(state[name])
            before.copy_(counts)
        if self.history is not None and "history" in state:
            self.history.least.copy_(state["history"])
        if state["first_error"] is not None:
            example, text = state["first_error"]
            self._conduct.first_error = example, text

    def _load(self, blocks: list[Range], crew: Crew | None = None) -> Window:
        everyone = torch.cat([torch.arange(start, stop) for start, stop in blocks])
        first, end = (crew or self.crew).share(len(everyone))
        rows = [self._dataset.rows(*part, self._x_shape) for part in _between(blocks, first, end)]
        joined = rows[0] if len(rows) == 1 else _joined(rows, self._dataset.x0_per_row)
        problem = self._problem(joined)
        problem.start = 0  # rows of several blocks have no common start
        everyone = everyone.to(problem.device)
        return Window(joined, problem, everyone[first:end], everyone, first)


def most_in_window(dataset: Dataset) -> int:
    """Examples whose data are in memory at a time."""
    return max(1, WINDOW // dataset.row_bytes)


def most_members(dataset: Dataset) -> int:
    """Of a crew, for each to have a share of every window."""
    most = most_in_window(dataset)
    return len(dataset) if len(dataset) <= most else max(1, most // _BLOCKS // _LEAST_SHARES)


def _between(blocks: list[Range], first: int, end: int) -> list[Range]:
    """The parts of blocks that hold their rows first ≤ i < end."""
    parts, before = [], 0
    for start, stop in blocks:
        low, high = max(start, start + first - before), min(stop, start + end - before)
        if low < high:
            parts.append((low, high))
        before += stop - start
    return parts


class Tour:
    """One pass over all examples, or those of a mask (n,), some rows of a window at a time; what is done is known.

    So it can be left, and another one, restored to its state, goes on with the rows that it was at: they count as done
    when the next ones are asked for. Of a crew each member goes over its own examples, and nobody is to go on from the
    middle of it.
    """

    def __init__(self, examples: Examples, together: int, which: Tensor | None = None) -> None:
        self._examples, self._together, self._which = examples, together, which
        self._windows = self._parts = 0  # done, and of the window after them

    def __iter__(self) -> Generator[tuple[Window, Tensor]]:
        for window in self._examples.windows(skip=self._windows):
            every = torch.arange(len(window.everyone), device=window.everyone.device)
            places = every if self._which is None else every[self._which[window.everyone]]
            _, rows = window.mine(places[self._parts * self._together :])
            for part in torch.split(rows, self._together) if len(rows) else ():
                yield window, part
                self._parts += 1
            self._windows, self._parts = self._windows + 1, 0
            del window

    def state(self) -> State:
        return {"windows": self._windows, "parts": self._parts}

    def restore(self, state: State) -> None:
        self._windows, self._parts = state["windows"], state["parts"]


def _joined(parts: list[Rows], x0_per_row: bool) -> Rows:
    """The rows of all parts, one after another."""

    def join(arrays: list[np.ndarray], per_row: bool = True) -> np.ndarray:
        return np.concatenate(arrays) if per_row else arrays[0]

    first = parts[0]
    identifiers: np.ndarray | dict[str, np.ndarray] | None = None
    if isinstance(first.identifiers, dict):
        identifiers = {k: join([p.identifiers[k] for p in parts]) for k in first.identifiers}  # type: ignore[index]
    elif first.identifiers is not None:
        identifiers = join([p.identifiers for p in parts])  # type: ignore[misc]
    x0 = None if first.x0 is None else join([p.x0 for p in parts if p.x0 is not None], x0_per_row)
    sigma = None
    if first.sigma is not None:
        sigma = np.concatenate([np.broadcast_to(p.sigma, p.targets.shape) for p in parts if p.sigma is not None])
    return Rows(0, join([p.targets for p in parts]), identifiers, x0, sigma)
