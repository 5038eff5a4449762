"""Processes that share the ranges of a run: handed out one by one, watched, and ended with it.

They are forked: whatever the model is, it needs no pickling, and what the parent has loaded is shared. A fork copies
only the thread that calls it, so a child must not wait for what the parent's other threads hold. It computes with one
thread, hence enters no parallel region of OpenMP, whose threads it lacks; it writes to streams of its own, not to those
of a progress display; and it ends by `os._exit`, which runs nobody's clean-up.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

import torch

from invsolve.control import Control
from invsolve.errors import InvsolveError, WorkerError
from invsolve.events import Event
from invsolve.ranges import Range, Ranges
from invsolve.shared_progress import Told, show, told
from invsolve.watchdog import Watch, shared_memory

_PR_SET_PDEATHSIG = 1  # of Linux's prctl

Answer = TypeVar("Answer")
"""What the work on one range gives; it is pickled on its way to the parent."""

Work = Callable[[int, int, Control], Answer]
"""Solves the examples start ≤ i < stop, under a control; called in a worker."""


def can_fork() -> bool:
    """Whether this process may be forked and its children can differentiate.

    Where torch sees an accelerator it starts threads at the first backward pass, even on the CPU, and refuses to
    differentiate in children of that process. A thread other than the main one says that the caller shares out its work
    itself; a daemon of multiprocessing may have no children; and macOS's own libraries do not survive a fork.
    """
    return (
        sys.platform == "linux"
        and threading.current_thread() is threading.main_thread()
        and not multiprocessing.current_process().daemon
        and not torch.accelerator.is_available()
    )


def solve_shared(
    workers: int,
    ranges: Ranges,
    work: Work[Answer],
    keep: Callable[[Answer], None],
    control: Control,
    total: int,
    watch: Watch | None = None,
    model: str = "",
) -> str | None:
    """Solve all ranges, or as many as `control` allows, in so many processes of one thread each.

    `keep` is called here with every answer, in the order in which they come. When `control` stops the run, work in
    flight ends with its best so far and no further range is begun.

    Args:
        total: examples of the run, for the display.
        watch: how long an evaluation of F may take: a worker in which one takes longer is killed, and the others end as
            if the run were stopped.
        model: its name.

    Returns:
        Which evaluation took too long, in words; its range is not solved. None where none did.

    Raises:
        WorkerError: a worker died. Whatever `work` raises is raised here too.
    """
    ranges.share(workers)
    team = _Team(workers, work, control, total - ranges.left, total, watch or Watch())
    hung: str | None = None
    try:
        for worker in team.workers:
            worker.assign(ranges.take())
        while busy := [worker for worker in team.workers if worker.assigned is not None]:
            if control.stopped:
                team.stop()
            for worker in team.that_spoke(busy):
                answer = worker.answer()
                if answer is None:
                    while worker.events:
                        event = worker.events.pop(0)
                        control.tell(event.kind, **event.told)
                    team.show(control)
                    continue
                assert worker.assigned is not None
                start, stop = worker.assigned
                keep(answer)
                ranges.took(stop - start, worker.seconds)
                team.done += stop - start
                worker.assign(None if control.stopped or hung else ranges.take())
            for worker in team.workers:
                words = worker.overdue(model)
                if words is not None and worker.assigned is not None:
                    hung = hung or words
                    worker.process.kill()
                    ranges.give_back(worker.assigned)
                    worker.assigned = None
                    team.stop()
    finally:
        team.end()
    return hung


@dataclass
class _Failure:
    """What a worker could not do, as it travels."""

    error: BaseException | None  # None where it cannot be pickled
    text: str


class _WorkerControl(Control):
    """The run's control as a worker has it: the same deadline, the parent's word to stop, progress told to it."""

    def __init__(self, whole: Control, stop: mmap.mmap, tell: Callable[[Told | Event], None]) -> None:
        vars(self).update(vars(whole))
        self._parent, self._stop = os.getppid(), stop
        self._total, self._run = None, ""  # these words are the parent's
        if self._display is not None or self.listeners:
            self._display = lambda p: tell(told(p))
        # Of how far all are, the parent tells.
        self._heard = math.inf
        self.listeners = (tell,) if self.listeners else ()

    @property
    def stopped(self) -> bool:
        if os.getppid() != self._parent:  # killed: nobody is left to hear the answer
            os._exit(1)
        return bool(self._stop[0]) or super().stopped


class _Worker(Generic[Answer]):
    """The parent's side of one process."""

    def __init__(self, work: Work[Answer], control: Control, stop: mmap.mmap, watch: Watch) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._watch, self._seen = watch, shared_memory()

        def serve() -> None:
            watch.share(self._seen)
            _serve(theirs, work, control, stop, parent)

        parent = os.getpid()
        self.process = context.Process(target=serve)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of every fork while there are threads, torch's idle ones too; why a child of
            # ours does not depend on them is told above.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.assigned: Range | None = None
        self.told, self.earlier = Told(), 0
        self.events: list[Event] = []
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """Since the last range was assigned."""
        return time.monotonic() - self._since

    def overdue(self, model: str) -> str | None:
        """Which evaluation takes too long in it, in words; None where none does."""
        return self._watch.overdue(self._seen, model)

    def assign(self, given: Range | None) -> None:
        """Let it solve a range; None lets it wait."""
        self.earlier += self.told.evaluations
        self.told = Told()
        self.assigned, self._since = given, time.monotonic()
        if given is not None:
            with contextlib.suppress(OSError):  # it died: that is seen where its answer is read
                self.pipe.send(given)

    def answer(self) -> Answer | None:
        """What its range gave, or None where it only told of its progress."""
        try:
            message = self.pipe.recv() if self.pipe.poll() else None
        except Exception:  # killed before the message was complete
            message = None
        if message is None:
            self._died()
        if isinstance(message, _Failure):
            raise message.error or RuntimeError(message.text)
        if isinstance(message, Told):
            self.told = message
            return None
        if isinstance(message, Event):
            self.events.append(message)
            return None
        return message

    def _died(self) -> None:
        self.process.join()
        code, (start, stop) = self.process.exitcode or 0, self.assigned or (0, 0)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = "; perhaps memory ran out: fewer --threads need less" if code == -signal.SIGKILL else ""
        raise WorkerError(
            f"a worker process was {how} while it solved examples {start} to {stop - 1}{memory}. What was written "
            f"is kept, and --resume goes on"
        )


class _Team(Generic[Answer]):
    """All workers of a run."""

    def __init__(self, count: int, work: Work[Answer], control: Control, done: int, total: int, watch: Watch) -> None:
        self.done, self.total = done, total
        self._stop = mmap.mmap(-1, 1)  # memory shared with the children
        self.workers: list[_Worker[Answer]] = []
        try:
            for _ in range(count):
                self.workers.append(_Worker(work, control, self._stop, watch))
        except BaseException:
            self.end()
            raise

    def stop(self) -> None:
        """Let all end with their best so far."""
        self._stop[0] = 1

    def that_spoke(self, busy: list[_Worker[Answer]]) -> list[_Worker[Answer]]:
        """Those that have a message, or died; waits for one, though not for long."""
        # The time bounds how late a signal or the deadline is seen.
        heard = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=0.1)
        return [w for w in busy if w.pipe in heard or w.process.sentinel in heard]

    def show(self, control: Control) -> None:
        """Tell the display of all that the workers told."""
        parts = [w.told for w in self.workers]
        evaluations = sum(w.earlier for w in self.workers)
        show(control, parts, done=self.done, total=self.total, evaluations=evaluations)

    def end(self) -> None:
        """End all processes, whatever they do: what they finished has been handed over."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()
            worker.process.close()
            worker._seen.close()
        self._stop.close()


def _serve(pipe: Connection, work: Work[Answer], control: Control, stop: mmap.mmap, parent: int) -> None:
    """The life of a worker: solve what is assigned, answer, and wait for more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all; the parent says what to do
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # where there is no prctl, `stopped` sees it later
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # The streams of the parent may be locked by a thread that does not exist here.
    sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    own = _WorkerControl(control, stop, pipe.send)
    while True:
        start, end = pipe.recv()
        try:
            answer: object = work(start, end, own)
        except BaseException as error:
            answer = _failure(error)
        pipe.send(answer)


def _failure(error: BaseException) -> _Failure:
    """An exception such that the parent can raise it; where it is a fault, it tells of the worker's stack."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, InvsolveError):
        error.add_note(f"in a worker process:\n{text}")
    error.__cause__ = error.__context__ = None
    try:
        multiprocessing.reduction.ForkingPickler.loads(multiprocessing.reduction.ForkingPickler.dumps(error))
    except Exception:
        return _Failure(None, text)
    return _Failure(error, text)
