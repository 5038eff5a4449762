"""A forward model that hangs: seen by a clock, ended where it can be, else left behind by the whole process."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

EXIT = 3  # of a process that had to be left
_REACTION = 2.0  # seconds that the main thread has to leave F by an exception
_WRITING = 120.0  # seconds to write what there is, before the process ends regardless
_SHARED = struct.Struct("dqqq")


class TimedOut(BaseException):
    """An evaluation of F took too long; its text tells which. No Exception, which F or its callers might catch."""


class Evaluated(Protocol):
    """What is to be known of a problem whose rows are evaluated."""

    model: Any
    n: int

    @property
    def examples(self) -> Tensor:
        """The numbers (n,) of all rows' examples, on the CPU."""
        ...


@dataclass(frozen=True)
class Call:
    """An evaluation of F that is under way."""

    since: float  # by the monotonic clock, which all processes share
    problem: Evaluated
    rows: Tensor

    def span(self) -> tuple[int, int, int]:
        """The first and last of the examples that are evaluated, and how many; on a GPU, which must not be asked, those
        of the problem."""
        examples = self.problem.examples if self.rows.is_cuda else self.problem.examples[self.rows]
        return int(examples.min()), int(examples.max()), len(self.rows)


class Watch:
    """Which evaluation of F is under way, where it may take `limit` seconds at most; None: nobody looks."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.current: Call | None = None
        self.left = False  # the main thread is to go nowhere from where it is
        self._shared: mmap.mmap | None = None

    def call(self, compute: Callable[[], T], problem: Evaluated, rows: Tensor) -> T:
        """What `compute` gives of the rows (b,), in one evaluation."""
        if self.limit is None or self.current is not None:
            return compute()
        self.current = Call(time.monotonic(), problem, rows)
        if self._shared is not None:
            _SHARED.pack_into(self._shared, 0, self.current.since, *self.current.span())
        try:
            result = compute()
            if rows.is_cuda:  # it has only been asked for
                torch.cuda.synchronize(rows.device)
            return result
        finally:
            self.current = None
            if self._shared is not None:
                _SHARED.pack_into(self._shared, 0, 0.0, 0, 0, 0)
            while self.left:  # whoever did that ends the process, or sees that it was too early
                time.sleep(0.01)

    def share(self, memory: mmap.mmap) -> None:
        """Let another process see what is under way in this one."""
        self._shared = memory

    def overdue(self, memory: mmap.mmap, name: str) -> str | None:
        """What took too long in a process that shares `memory`, in words; None where nothing did."""
        since, *span = _SHARED.unpack_from(memory, 0)
        seconds = time.monotonic() - since
        return None if self.limit is None or not since or seconds <= self.limit else _in_words(name, seconds, *span)


def shared_memory() -> mmap.mmap:
    """For `Watch.share`, in a process that is forked."""
    return mmap.mmap(-1, _SHARED.size)


def _in_words(name: str, seconds: float, first: int, last: int, count: int) -> str:
    which = f"example {first}" if count == 1 else f"{count} examples, of {first} to {last}"
    return f"model '{name}' had not come back after {seconds:.3g} s from an evaluation of {which}: the run ended there"


class Watchdog:
    """While it is entered, a thread that sees an evaluation of `watch` take too long.

    Then `TimedOut` is raised in the main thread, by a signal that nothing else uses, as soon as Python runs there.
    Where it does not, for F is in code that hangs outside of Python, `leave` is called with the same words, in another
    thread, and the process ends with exit code 3.
    """

    def __init__(self, watch: Watch, leave: Callable[[str], None]) -> None:
        self.watch, self._leave = watch, leave
        self._over = threading.Event()
        self._overdue: Call | None = None
        self._words = ""
        self._before: Any = None

    def __enter__(self) -> Self:
        if self.watch.limit is not None:
            self._in_main = threading.current_thread() is threading.main_thread()
            if self._in_main:
                self._before = signal.signal(signal.SIGURG, self._raise)
            self._thread = threading.Thread(target=self._look, daemon=True, name="watchdog")
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.watch.limit is not None:
            self._over.set()
            self._thread.join()
            if self._in_main:
                signal.signal(signal.SIGURG, self._before)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._overdue is not None and self._overdue is self.watch.current:
            raise TimedOut(self._words)

    def _look(self) -> None:
        limit = self.watch.limit or 0.0
        while not self._over.wait(min(0.25, limit / 4)):
            call = self.watch.current
            seconds = 0.0 if call is None else time.monotonic() - call.since
            if call is None or seconds <= limit:
                continue
            self._words = _in_words(call.problem.model.name, seconds, *call.span())
            self._overdue = call
            if self._in_main:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)
            deadline = time.monotonic() + _REACTION
            while self.watch.current is call and time.monotonic() < deadline:
                time.sleep(0.02)
            self.watch.left = True
            if self.watch.current is call:
                self._end(self._words)
            self.watch.left = False

    def _end(self, words: str) -> None:
        """Write what there is, and end; in a thread of its own, for that may hang too where it asks the model."""
        thread = threading.Thread(target=self._leave, args=(words,), daemon=True)
        thread.start()
        thread.join(_WRITING)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(EXIT)
