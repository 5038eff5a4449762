"""The driver: ranges are handed out as tasks, answers taken in, the screen kept, and all of it ended in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from invsolve.cluster.board import Board, News
from invsolve.cluster.session import Session, beside_driver
from invsolve.cluster.worker import MOST_BEGUN, Job, Raised, solve_range
from invsolve.control import Control
from invsolve.errors import InvsolveError, WorkerError, first_line
from invsolve.ranges import WORTHWHILE, Range, Ranges
from invsolve.shared_progress import show

EACH = 0.03  # seconds from one range to the next, whoever ends it: the driver takes less than half of that for it
_PER_WORKER = 8  # ranges at least, so that those that take long balance
_WAIT = 0.2  # seconds, that bound how late a signal is seen
_LOOK = 0.5  # seconds from one look at the board to the next
_SILENT = 10.0  # seconds that Ray has for a range of a machine which it knows to be lost


def solve_on_cluster(
    session: Session,
    job: Job,
    ranges: Ranges,
    brought: Callable[[Range], Any],
    keep: Callable[[Any], None],
    control: Control,
    total: int,
) -> str | None:
    """Solve all ranges, or as many as `control` allows; as `workers.solve_shared`, on other machines.

    With each range travels what is `brought` for it alone. `keep` is called here with every answer, which tells what it
    `took`, in the order in which they come.

    Raises:
        OptionError: there is no room for the workers.
        WorkerError: workers died of a range again and again. Whatever the work raises is raised here too.
    """
    with connected(), contextlib.closing(_Team(session, job, ranges, brought, control, total)) as team:
        while team.hand_out() or team.pending:
            for answer in team.ended():
                keep(answer)
            team.look()
    return team.hung


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """While the cluster is in use: where Ray's client has lost its connection that is told in one line.

    Raises:
        WorkerError: it has.
    """
    import ray

    try:
        yield
    except Exception as error:  # its own are of many kinds
        if isinstance(error, InvsolveError) or ray.is_initialized():
            raise
        raise ended(error) from None


def ended(error: Exception) -> WorkerError:
    """The board is gone, which is on the machine that this process is connected to, or the connection to it is."""
    return WorkerError(
        f"the part of the cluster that this run is connected to was lost: {first_line(error).rstrip('.')}. "
        "What was written is kept, and --resume goes on"
    )


def _unsolved(given: Range, error: Exception) -> WorkerError:
    return WorkerError(
        f"examples {given[0]} to {given[1] - 1} could not be solved on the cluster: {first_line(error)}. What was "
        f"written is kept, and --resume goes on"
    )


def _alive() -> set[str]:
    """Ray's nodes that it can reach."""
    import ray

    return {one["NodeID"] for one in ray.nodes() if one["Alive"]}


class _Team:
    def __init__(
        self,
        session: Session,
        job: Job,
        ranges: Ranges,
        brought: Callable[[Range], Any],
        control: Control,
        total: int,
    ) -> None:
        import ray

        self.session, self.ranges, self.brought, self.control, self.total = session, ranges, brought, control, total
        self.workers = session.count_workers()
        ranges.share(self.workers, _PER_WORKER, max(WORTHWHILE, EACH * self.workers))
        self.done, self.evaluations = total - ranges.left, 0
        self.hung: str | None = None
        self.pending: dict[Any, Range] = {}
        self._stopping = False
        self._forget: list[Range] = []
        self._moved: set[Range] = set()  # to another machine, for the work raised on one
        self._seen = _alive()  # machines, of which some may be lost by now
        self._silent: set[Range] = set()  # which nobody alive had begun when last looked at
        self._left: dict[Range, int] = {}  # handed out anew for that; how many machines were lost by then
        self._looked = self._counted = time.monotonic()
        self._job = [ray.put(job)]
        # Begun again where it is ended for want of memory: on a machine without other workers Ray has no other to end.
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": beside_driver()}
        self._board = ray.remote(Board).options(**lasting).remote()
        asked = session.cluster
        self._task = ray.remote(
            num_cpus=asked.cpus_per_worker,
            num_gpus=asked.gpus_per_worker,
            max_calls=0,  # any number; a process that used a GPU would end with each task otherwise
            max_retries=MOST_BEGUN,
        )(solve_range)
        self._strategy = "SPREAD"

    def hand_out(self) -> bool:
        """Give ranges to idle workers; whether any is left for them."""
        while not self.control.stopped and self.hung is None and len(self.pending) < self.workers:
            given = self.ranges.take()
            if given is None:
                return False
            self._hand(given, self._strategy)
        return not self.control.stopped and self.hung is None

    def _hand(self, given: Range, strategy: Any) -> None:
        brought, left = self.brought(given), self.control.seconds_left
        task = self._task.options(scheduling_strategy=strategy)
        self.pending[task.remote(self._job, self._board, given, brought, left)] = given

    def _hand_elsewhere(self, given: Range, raised: Raised) -> None:
        """What the work raises on one machine may be the fault of that machine; on two it is that of the work.

        Raises:
            InvsolveError: there is no other machine, or this was the other one.
        """
        import ray

        others = [one for one in self.session.machines() if one["NodeID"] != raised.node]
        if given in self._moved or not others:
            raise raised.error
        self._moved.add(given)
        self.control.tell("lost", start=given[0], stop=given[1], text=str(raised.error))
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(others[0]["NodeID"], soft=True)
        self._hand(given, there)

    def ended(self) -> list[Any]:
        """The answers that have come, after a short wait for one."""
        import ray

        ready, _ = ray.wait(list(self.pending), num_returns=1, timeout=_WAIT)
        if ready:  # others may be there as well
            ready, _ = ray.wait(list(self.pending), num_returns=len(self.pending), timeout=0)
        answers = []
        for reference in ready:
            start, stop = given = self.pending.pop(reference)
            try:
                answer = ray.get(reference)
            except ray.exceptions.TaskCancelledError:
                continue
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ray.exceptions.RayActorError):
                    raise ended(error.cause) from None
                if isinstance(error.cause, ray.exceptions.RayError):
                    raise _unsolved(given, error.cause) from None
                raise error.cause from None
            except ray.exceptions.RayError as error:
                if self.hung is not None:
                    continue
                raise _unsolved(given, error) from None
            if isinstance(answer, Raised):
                self._hand_elsewhere(given, answer)
                continue
            self._forget.append(given)
            self.done += stop - start
            self.evaluations += answer.told["evaluations"]
            self.ranges.took(stop - start, answer.told["took"])
            answers.append(answer)
        return answers

    def look(self) -> None:
        """Read the board, and let it know of a stop."""
        import ray

        stopping = self.control.stopped or self.hung is not None
        if not (stopping and not self._stopping) and time.monotonic() - self._looked < _LOOK:
            return
        self._stopping, self._looked = stopping, time.monotonic()
        if stopping:  # each time: it may have been begun again meanwhile
            self._board.stop.remote()
        try:
            news: News = ray.get(self._board.collect.remote(self._forget))
        except ray.exceptions.RayError as error:
            raise ended(error) from None
        self._forget = []
        for event in news.events:
            self.control.tell(event.kind, **event.told)
        for start, stop in news.lost:
            self.control.tell("lost", start=start, stop=stop)
        self._leave_lost_machines(news.where)
        show(self.control, list(news.told.values()), done=self.done, total=self.total, evaluations=self.evaluations)
        for given, words in news.hung.items():
            self.hung = self.hung or words
            for reference in [r for r, of in self.pending.items() if of == given]:
                ray.cancel(reference, force=True)
                self.ranges.give_back(given)

    def _leave_lost_machines(self, where: dict[Range, str]) -> None:
        """Hand out anew what Ray does not: where a network fell silent, it waits for minutes for what the lost say."""
        import ray

        if time.monotonic() - self._counted < _SILENT:
            return
        self._counted, alive = time.monotonic(), _alive()
        self._seen |= alive
        if not (lost := len(self._seen - alive)):
            return
        # Nobody may have begun them, where it was the lost machine that was asked to; or they wait for their turn.
        silent = {given for given in self.pending.values() if where.get(given) not in alive}
        again = {given for given in silent & self._silent if self._left.get(given, 0) < lost}
        if again:  # tasks of one strategy are placed one after another, and the lost machine was asked to place one
            self._strategy = "DEFAULT" if self._strategy == "SPREAD" else "SPREAD"
        for reference, given in list(self.pending.items()):
            if given in again:
                ray.cancel(reference, force=True)
                del self.pending[reference]
                self._left[given] = lost
                if given not in where:  # of those that were begun the board tells
                    self.control.tell("lost", start=given[0], stop=given[1], text="not begun since a machine was lost")
                self._hand(given, self._strategy)
        self._silent = silent

    def close(self) -> None:
        """Let nobody work on: what they finished has been handed over."""
        import ray

        if not ray.is_initialized():  # the connection was lost
            return
        with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
            for reference in self.pending:
                ray.cancel(reference, force=True)
            ray.kill(self._board)
