"""Training by a crew of workers on the cluster, that Ray Train starts, and starts again where some are lost."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from invsolve.checkpoints import State
from invsolve.cluster.board import Board, News
from invsolve.cluster.session import Session, beside_driver
from invsolve.cluster.team import connected, ended
from invsolve.cluster.worker import MOST_BEGUN, Line, RemoteControl, Watched
from invsolve.control import Control
from invsolve.crew import Crew, ProcessGroup
from invsolve.errors import InvsolveError, OutputError, WorkerError, first_line
from invsolve.memory import ran_out
from invsolve.settings import Cluster
from invsolve.shared_progress import show

_RAY_TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the code that was brought along is where a worker begins, and is found there
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # nothing of ours costs it more
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a checkpoint is what there is to be saved
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # in which it waits for a machine that is gone
}
"""The environment from which Ray Train takes its settings, where the driver's does not say otherwise."""
_LOOK = 0.5  # seconds from one look at the board to the next
_LEAVE, _LEAVE_STOPPED = 60.0, 3.0  # seconds that Ray Train may take to end, and where a signal waits
_WAIT = 0.2  # seconds, that bound how late a signal is seen
_FIRST = (0, -1)  # the key of the first member's progress; the others' begin with their numbers


class Trainee(Watched, Protocol):
    """Trains, as a member of a crew."""

    def __call__(
        self, crew: Crew, control: Control, keep: Callable[[State], int], earlier: Callable[[], State | None]
    ) -> Any:
        """Train, from what `earlier` gives where something was kept; the first member's answer travels to the driver.

        `keep` is that of `Checkpoints`, for all members.
        """
        ...


@dataclass
class Course:
    """A training as the driver asks for it. `make` is called once in each worker.

    Checkpoints are put where all workers see them, by `put` and `get`; else the board has them, for the driver to keep.
    """

    make: Callable[[], Trainee]
    put: Callable[[State], int] | None = None
    get: Callable[[], State | None] = lambda: None  # what an earlier run has kept


class TrainingBoard(Board):
    """Where the members of a crew, and those that come after them, find what is known of the training."""

    def __init__(self) -> None:
        super().__init__()
        self._state: State | None = None
        self._entered = 0
        self._kept = 0
        self._answer: list[Any] = []
        self._error: BaseException | None = None
        self._over = False

    def enter(self) -> int:
        """A crew begins; how many have done so since the last checkpoint."""
        self._entered += 1
        return self._entered - 1

    def has_begun(self) -> bool:
        """Whether a crew has begun."""
        return self._entered > 0

    def keep(self, state: State | None) -> None:
        """A checkpoint was made, which is on the disk or this."""
        self._entered, self._state, self._kept = 1, state, self._kept + 1

    def kept(self, known: int = 0) -> tuple[int, State | None]:
        """How many checkpoints were made, and the last one, unless it is on the disk or so many are known."""
        return self._kept, self._state if self._kept > known else None

    def fail(self, error: BaseException) -> None:
        """A member has raised this, and would again."""
        self._error = self._error or error
        self.abandon()

    def abandon(self) -> None:
        """Nobody is to train any more."""
        self._over = self._stopped = True

    def is_over(self) -> bool:
        """Whether members are to end, in the middle of what they do."""
        return self._over

    def end(self, answer: Any) -> None:
        """The training is over."""
        self._answer = [answer]

    def outcome(self) -> tuple[list[Any], BaseException | None]:
        """The answer, if there is one, and what was raised."""
        return self._answer, self._error


def train_on_cluster(
    session: Session, course: Course, control: Control, most: int, keep: Callable[[State], int] | None, total: int
) -> tuple[Any, str | None]:
    """Let a crew of at most `most` workers train: the answer, or in which evaluation it hung, in words.

    `keep` takes the checkpoints that workers cannot put down themselves.

    Raises:
        WorkerError: workers died again and again. Whatever the training raises is raised here too.
    """
    with connected(), contextlib.closing(_Classroom(session, course, control, most, keep, total)) as classroom:
        try:
            while classroom.goes_on():
                classroom.look()
            return classroom.outcome()
        except (KeyboardInterrupt, SystemExit):  # a second signal, that waits for nobody
            control.interrupted = True
            raise


class _Classroom:
    def __init__(
        self, session: Session, course: Course, control: Control, most: int,
        keep: Callable[[State], int] | None, total: int,
    ) -> None:  # fmt: skip
        import ray

        self.control, self.total, self._keep, self._kept = control, total, keep, 0
        self._stopping, self._looked = False, time.monotonic()
        self._answer: list[Any] = []
        self._hung: str | None = None
        self._board = ray.remote(TrainingBoard).options(num_cpus=0, scheduling_strategy=beside_driver()).remote()
        # In a process of its own, for all that Ray Train has begun ends with the one that asked for it.
        fit = ray.remote(num_cpus=0, max_retries=0, max_calls=1, scheduling_strategy=beside_driver())(_fit)
        workers = min(session.count_workers(), most)
        environment = _RAY_TRAIN | {k: v for k, v in os.environ.items() if k.startswith("RAY_TRAIN_")}
        config = {"course": [ray.put(course)], "board": self._board, "most_begun": MOST_BEGUN}
        self._fit = fit.remote(config, session, workers, environment)

    def goes_on(self) -> bool:
        """Whether the training does, after a short wait."""
        import ray

        ended, _ = ray.wait([self._fit], timeout=_WAIT)
        return not ended and not self._answer and self._hung is None

    def look(self) -> None:
        """Read the board, and let it know of a stop."""
        import ray

        try:
            if self.control.stopped and not self._stopping:
                self._stopping = True
                self._board.stop.remote()
                if not ray.get(self._board.has_begun.remote()):
                    self._answer = [None]  # rather than to wait for Ray Train
            if time.monotonic() - self._looked >= _LOOK:
                self._looked = time.monotonic()
                self._read()
        except ray.exceptions.RayError as error:
            raise ended(error) from None

    def _read(self) -> None:
        import ray

        news: News = ray.get(self._board.collect.remote([]))
        for event in news.events:
            self.control.tell(event.kind, **event.told)
        if _FIRST in news.lost:
            self.control.tell("lost", start=0, stop=self.total, text="the training is begun again")
        told = news.told.get(_FIRST)
        show(self.control, [] if told is None else [told], done=0, total=self.total, evaluations=0)
        self._hung = self._hung or next(iter(news.hung.values()), None)
        self._take_checkpoint()
        answer, error = ray.get(self._board.outcome.remote())
        self._answer = self._answer or answer
        if self._hung is not None:
            self._board.abandon.remote()
        if error is not None:
            raise error

    def _take_checkpoint(self) -> None:
        import ray

        if self._keep is None:
            return
        self._kept, state = ray.get(self._board.kept.remote(self._kept))
        if state is not None:
            try:
                self._keep(state)
            except OutputError as error:  # the training is worth more; perhaps the next one can be kept
                self.control.tell("checkpoint", failed=first_line(error.__cause__ or error))

    def outcome(self) -> tuple[Any, str | None]:
        """What the training came to; nothing where it was stopped before it could begin."""
        import ray

        try:
            if self._hung is None and not self._answer:  # Ray Train has ended before the last look
                self._read()
            if self._hung is None and not self._answer:
                ray.get(self._fit)
        except ray.exceptions.RayTaskError as error:
            raise WorkerError(
                f"the training could not be done on the cluster: {first_line(error.cause)}. What was kept of it stays, "
                f"and --resume goes on"
            ) from None
        except ray.exceptions.RayError as error:
            raise ended(error) from None
        if self._hung is None and not self._answer:
            raise WorkerError("the training ended on the cluster without an answer; --resume goes on")
        return (None if self._hung is not None else self._answer[0]), self._hung

    def close(self) -> None:
        """Let nobody work on; Ray Train is given some seconds to end, for then it leaves no room taken."""
        import ray

        patience = _LEAVE_STOPPED if self.control.stopped else _LEAVE
        if not ray.is_initialized():  # the connection was lost
            return
        with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
            if self._answer in ([], [None]):
                self._board.abandon.remote()
            if not ray.wait([self._fit], timeout=patience)[0]:
                ray.cancel(self._fit, force=True)
            ray.kill(self._board)


def _fit(config: dict[str, Any], session: Session, workers: int, environment: dict[str, str]) -> None:
    """The task that lets Ray Train do its work, with fewer workers once there is no room for so many."""
    os.environ.update(environment)
    while True:
        try:
            _fit_with(config, session.cluster, workers)
        except Exception:
            room = session.room()
            if not 0 < room < workers:
                raise
            workers = room
        else:
            return


def _fit_with(config: dict[str, Any], asked: Cluster, workers: int) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    each: dict[str, float] = {"CPU": asked.cpus_per_worker}
    if asked.gpus_per_worker:
        each["GPU"] = asked.gpus_per_worker
    # Before version 2 of Ray Train the trainer itself would take a core, for which there is no room.
    more = {} if importlib.util.find_spec("ray.train.v2") else {"trainer_resources": {"CPU": 0}}
    with tempfile.TemporaryDirectory(prefix="invsolve-train-") as folder:  # of Ray's own notes: checkpoints are ours
        TorchTrainer(
            _train,
            train_loop_config=config,
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if "GPU" in each else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu="GPU" in each, resources_per_worker=each, **more),
            run_config=RunConfig(storage_path=folder, failure_config=_failures()),
        ).fit()


def _failures() -> Any:
    """How often a training is begun again, the board knows; where workers find no room, it is not by Ray Train."""
    from ray.train import FailureConfig

    try:
        return FailureConfig(max_failures=-1, controller_failure_limit=0)
    except TypeError:  # of an earlier Ray
        return FailureConfig(max_failures=-1)


def _train(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray

    course, board, crew = ray.get(config["course"][0]), config["board"], ProcessGroup()
    try:
        if crew.any(ray.get(board.is_over.remote())):
            return
        before = crew.first(ray.get(board.enter.remote()) if crew.rank == 0 else 0)
        if before >= config["most_begun"]:
            raise WorkerError(
                f"workers died {before} times while they trained; perhaps memory ran out: give each more by "
                f"--cpus-per-worker, or use fewer --workers. What was kept of the training stays, and --resume goes on"
            )
        answer = _taught(course, board, crew)
        if crew.rank == 0:
            ray.get(board.end.remote(answer))
    except Exception as error:
        if not _lost_another(error):
            ray.get(board.fail.remote(_portable(error)))
        raise  # so that Ray Train ends the others, and begins them again


def _taught(course: Course, board: Any, crew: Crew) -> Any:
    import ray

    key = (crew.rank, -1)
    ray.get(board.begin.remote(key, ray.get_runtime_context().get_node_id()))
    trainee = course.make()

    def keep(state: State) -> int:
        if crew.rank > 0:
            return 0
        size = 0 if course.put is None else course.put(state)
        ray.get(board.keep.remote(state if course.put is None else None))
        return size

    def earlier() -> State | None:
        state: State | None = ray.get(board.kept.remote())[1]
        return course.get() if state is None else state

    with _MemberLine(board, key, trainee, _LOOK) as line:
        return trainee(crew, RemoteControl(line), keep, earlier)


class _MemberLine(Line):
    """A line that ends the process where the training is over, also out of an evaluation that nothing else would."""

    _heard_of_it = False

    def _speak(self) -> None:
        import ray

        super()._speak()
        with contextlib.suppress(ray.exceptions.RayError):
            over = ray.get(self._board.is_over.remote())
            if over and self._heard_of_it:  # the second time: a member that is to end by itself has had time to
                os._exit(1)
            self._heard_of_it = over


def _lost_another(error: BaseException) -> bool:
    """Whether a member of the crew could not reach another one, rather than fail by itself."""
    import torch.distributed as dist

    words = str(error).lower()
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(name in words for name in ("gloo", "nccl", "connection closed"))
    )


def _portable(error: Exception) -> Exception:
    """The error as it can travel."""
    if isinstance(error, InvsolveError):
        return error
    if ran_out(error):
        return MemoryError(first_line(error))
    return WorkerError(f"the training failed: {type(error).__name__}: {first_line(error)}")
