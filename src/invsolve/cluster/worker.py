"""What a task on the cluster does: solve one range, and tell the board how far it is."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from invsolve.control import Control, Progress
from invsolve.errors import InvsolveError, WorkerError
from invsolve.events import Event
from invsolve.ranges import Range
from invsolve.shared_progress import Told, told
from invsolve.watchdog import Watch, shared_memory

MOST_BEGUN = 4  # times that a range is begun, of which a worker dies each time
_GENTLER = 2  # deaths, from which on a quarter is solved together, then a sixteenth


class Watched(Protocol):
    """Something in which an evaluation of F may take too long."""

    watch: Watch
    model: str  # its name


class Work(Watched, Protocol):
    """Solves ranges, in a process of its own."""

    @property
    def batch_size(self) -> int:
        """Examples that it solves together, at most."""
        ...

    def __call__(self, start: int, stop: int, brought: Any, control: Control, /) -> Any:
        """Solve the examples start ≤ i < stop, of which something was brought; the answer travels to the driver."""
        ...

    def limit(self, rows: int) -> None:
        """Solve at most so many together from now on."""
        ...


@dataclass
class Job:
    """What all tasks of a run need. `make` is called once in each process."""

    make: Callable[[], Work]
    beat: float = 0.5  # seconds from one word with the board to the next


@dataclass
class Raised:
    """Instead of an answer, what the work raised."""

    node: str  # of Ray's, on which it did
    error: InvsolveError


_made: dict[str, tuple[Work, float]] = {}
"""The work of the run that this process belongs to, with its beat, by the number of the job's reference."""


def solve_range(job: list[Any], board: Any, given: Range, brought: Any, seconds_left: float | None) -> Any:
    """The task. `job` holds the reference of a `Job`, which is followed where it is new; `brought` is what this range
    alone needs.

    Returns:
        The answer of the work, or what it `Raised`.

    Raises:
        WorkerError: whoever solved this range before has died of it, too often to try again.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    before = ray.get(board.begin.remote(given, node))
    if before >= MOST_BEGUN:
        raise WorkerError(
            f"{before} workers died while they solved examples {given[0]} to {given[1] - 1}; perhaps memory ran out: "
            f"give each more by --cpus-per-worker, or a smaller --batch-size. What was written is kept, and --resume "
            f"goes on"
        )
    try:
        work, beat = _work(job)
        if before >= _GENTLER:
            work.limit(min(work.batch_size, given[1] - given[0]) // 4 ** (before - _GENTLER + 1))
        with Line(board, given, work, beat) as line:
            return work(*given, brought, RemoteControl(line, seconds_left))
    except InvsolveError as error:
        ray.get(board.excuse.remote(given))
        return Raised(node, error)


def _work(job: list[Any]) -> tuple[Work, float]:
    import ray

    (reference,) = job
    if (known := reference.hex()) not in _made:
        _made.clear()  # of a run before this one
        made: Job = ray.get(reference)  # which opens the data
        _made[known] = made.make(), made.beat
    return _made[known]


class Line:
    """The line to the board, while `given` is worked on: a thread that tells and asks twice a second."""

    def __init__(self, board: Any, given: Range, work: Watched, beat: float) -> None:
        self._board, self._given, self._work, self._every = board, given, work, beat
        self._seen = shared_memory()
        work.watch.share(self._seen)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self.told: Told | None = None
        self.stopped = False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Line:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._speak()

    def hear(self, event: Event) -> None:
        """An event that is to be told."""
        with self._lock:
            self._events.append(event)

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            self._speak()

    def _speak(self) -> None:
        import ray

        with self._lock:
            events, self._events = self._events, []
        hung = self._work.watch.overdue(self._seen, self._work.model)
        with contextlib.suppress(ray.exceptions.RayError):  # the driver has gone, and this process goes with it
            self.stopped |= ray.get(self._board.tell.remote(self._given, self.told, events, hung))


class RemoteControl(Control):
    """The run's control as a worker has it: the time that was left, the driver's word to stop."""

    def __init__(self, line: Line, seconds_left: float | None = None) -> None:
        super().__init__(display=self._show, listeners=(line.hear,))
        self._line, self._heard = line, math.inf  # of how far all are, the driver tells
        self.start(seconds_left)

    def _show(self, progress: Progress) -> None:
        self._line.told = told(progress)

    @property
    def stopped(self) -> bool:
        return self._line.stopped or super().stopped
