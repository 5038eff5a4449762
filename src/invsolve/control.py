"""How a run is watched and ended from outside, while it computes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invsolve.events import Event, Listener

if TYPE_CHECKING:
    from torch import Tensor

GRACE = 10.0  # seconds for scoring what was reached, once a run is stopped: schedulers give 30 in all
BETWEEN_EVENTS = 30.0  # seconds from one event of progress to the next


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
    """How a run is watched and ended from outside: deadline, interruption, progress, events.

    `interrupted` is set by a signal handler; rows in flight then end with their best so far. Every event is told to all
    `listeners`, how far the run is about every half minute.
    """

    def __init__(
        self,
        display: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._display, self.clock, self.listeners = display, clock, tuple(listeners)
        self._heard = clock()
        self._deadline = self._before = 0.0
        self._limited = False
        self._last_word: float | None = None  # when nothing is scored any more
        self._told = -math.inf
        self._total: int | None = None
        self._run = ""
        self.interrupted = False
        self.aside: Callable[[], AbstractContextManager[None]] = nullcontext
        """Within it results may be told while all else stands still: without a display, on standard output."""

    def start(self, time_limit: float | None) -> None:
        """Start the clock of a run that may take `time_limit` seconds."""
        self._limited = time_limit is not None
        self._deadline = self.clock() + (time_limit or 0.0)
        if not self.interrupted:
            self._last_word = None

    @property
    def stopped(self) -> bool:
        """Whether to end at the next opportunity."""
        return self.interrupted or (self._limited and self.clock() >= self._deadline)

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; None where there is none."""
        return max(0.0, self._deadline - self.clock()) if self._limited else None

    @property
    def may_score(self) -> bool:
        """Whether there is time to score what was reached: always, until the run is stopped, then for `GRACE` seconds
        from the first time that this is asked."""
        if not self.stopped:
            return True
        now = self.clock()
        self._last_word = now + GRACE if self._last_word is None else self._last_word
        return now < self._last_word

    def begin_run(self, name: str) -> None:
        """From now on, what is reported is of this one of several runs."""
        self._run, self._total = name, None

    def begin_range(self, before: int, total: int) -> None:
        """From now on, what is reported is of a range of rows with `before` finished examples before it."""
        self._before, self._total = before, total

    def report(self, progress: Callable[[], Progress]) -> None:
        """Tell the display, if there is one, at most ten times a second, and the listeners twice a minute."""
        now = self.clock()
        shown = self._display is not None and now - self._told >= 0.1
        heard = bool(self.listeners) and now - self._heard >= BETWEEN_EVENTS
        if not shown and not heard:
            return
        told = progress()
        if self._total is not None:
            told.fraction = (self._before + told.fraction * told.total) / self._total
            told.done, told.total = int(self._before) + told.done, self._total
        if self._run:
            told.stage = self._run if told.stage in self._run.split() else f"{self._run}: {told.stage}"
        if heard:
            self._heard = now
            self.tell("progress", stage=told.stage, examples=told.total, done=told.done,
                fraction=round(told.fraction, 4), evaluations=told.evaluations)  # fmt: skip
        if shown and self._display is not None:
            self._display(told)
            self._told = self.clock()

    def tell(self, kind: str, **told: Any) -> None:
        """Let all listeners know of an event; `told` are JSON values."""
        for listener in self.listeners:
            listener(Event(kind, told))

    def seen_as(self, change: Callable[[Progress], Progress]) -> Control:
        """This control for a part of a solve, what it reports of which is changed before it is shown."""
        return _Part(self, change)


class _Part(Control):
    """The control of a part: the whole one decides."""

    def __init__(self, whole: Control, change: Callable[[Progress], Progress]) -> None:
        super().__init__()
        self._whole, self._change = whole, change

    @property
    def stopped(self) -> bool:
        return self._whole.stopped

    @property
    def may_score(self) -> bool:
        return self._whole.may_score

    def report(self, progress: Callable[[], Progress]) -> None:
        self._whole.report(lambda: self._change(progress()))

    def tell(self, kind: str, **told: Any) -> None:
        self._whole.tell(kind, **told)
