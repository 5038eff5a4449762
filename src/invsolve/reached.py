"""How far a run has come: what came of its ranges, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invsolve.analysis.summary import finite_or_none, median_of
from invsolve.data.run_folder import Columns
from invsolve.data.solution import Status
from invsolve.ranges import Range


@dataclass
class Answer:
    """What came of one range."""

    given: Range
    finished: bool  # it did not end early
    any_finite: bool
    columns: Columns | None = None  # None where they are in the run's folder
    first_error: tuple[int, str] | None = None
    fits: tuple[int, int] | None = None  # rows that did not fit into memory, and those that did
    growth: str = ""  # of memory, in words where there is much
    batch_size: int = 0  # that it was solved with
    compiled: bool = False
    told: dict[str, Any] = field(default_factory=dict)  # of its examples, for those who watch


@dataclass
class Reached:
    """How far a run has come."""

    kept: list[Range] = field(default_factory=list)  # in the run's folder
    held: dict[Range, Columns] = field(default_factory=dict)  # in memory: the unfinished, or all if there is no folder
    any_finite: bool = False
    ended_early: bool = False
    fault_told: bool = False  # that F raised for an example
    batch_size: int = 0  # that the last one was solved with
    compiled: bool = False

    def add(self, answer: Answer) -> None:
        """Take in what came of a range."""
        self.any_finite |= answer.any_finite
        self.ended_early |= not answer.finished
        self.batch_size, self.compiled = answer.batch_size, answer.compiled
        if answer.columns is None:
            self.kept.append(answer.given)
        else:
            self.held[answer.given] = answer.columns


def counts(column: Callable[[str], Iterable[np.ndarray]]) -> dict[str, Any]:
    """Of some examples, whose columns come in parts: how many ended how, their median loss (None where it is infinite),
    and what they took."""

    def losses() -> Iterator[np.ndarray]:
        for loss, status in zip(column("loss"), column("status"), strict=True):
            yield np.where(np.isnan(loss), np.inf, loss)[status != Status.NOT_RUN]

    ends = {s.name.lower(): sum(int((rows == s).sum()) for rows in column("status")) for s in Status}
    return {
        "status": {name: count for name, count in ends.items() if count},
        "loss_median": finite_or_none(median_of(losses)),
        "evaluations": sum(int(rows.sum()) for rows in column("evaluations")),
    }


def any_finite(columns: Columns) -> bool:
    """Whether some of the examples could be evaluated at their start."""
    return bool((columns["status"] != Status.NONFINITE).any())
