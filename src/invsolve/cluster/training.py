"""Training by a crew of workers on the cluster, that Ray Train starts, and starts again where some are lost."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from invsolve.checkpoints import State
from invsolve.cluster.board import Board, News
from invsolve.cluster.session import Session
from invsolve.cluster.worker import MOST_BEGUN, Line, RemoteControl, Watched
from invsolve.control import Control
from invsolve.crew import Crew, ProcessGroup
from invsolve.errors import InvsolveError, WorkerError, first_line
from invsolve.memory import ran_out
from invsolve.shared_progress import show

_RAY_TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the code that was brought along is where a worker begins, and is found there
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # nothing of ours costs it more
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a checkpoint is what there is to be saved
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Environment of the driver, from which Ray Train takes its settings, where the user has not set them."""
_LOOK = 0.5  # seconds from one look at the board to the next
_LEAVE = 30.0  # seconds that workers may take to end
_NOBODY = (0, -1)  # the key of the first member's progress; the others' begin with their numbers


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

    def enter(self) -> int:
        """A crew begins; how many have done so since the last checkpoint."""
        self._entered += 1
        return self._entered - 1

    def keep(self, state: State | None) -> None:
        """A checkpoint was made, which is on the disk or this."""
        self._entered, self._state, self._kept = 1, state, self._kept + 1

    def kept(self) -> tuple[int, State | None]:
        """How many checkpoints were made, and the last one, unless it is on the disk."""
        return self._kept, self._state

    def fail(self, error: BaseException) -> None:
        """A member has raised this, and would again."""
        self._error = self._error or error

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
    classroom = _Classroom(session, course, control, most, keep, total)
    try:
        while classroom.goes_on():
            classroom.look()
        return classroom.outcome()
    finally:
        classroom.close()


class _Classroom:
    def __init__(
        self, session: Session, course: Course, control: Control, most: int,
        keep: Callable[[State], int] | None, total: int,
    ) -> None:  # fmt: skip
        import ray

        self.control, self.total, self._keep, self._kept = control, total, keep, 0
        here = ray.get_runtime_context().get_node_id()
        affine = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        # Its checkpoint may be large, and must not stand in the way of who asks whether to stop.
        self._board = ray.remote(TrainingBoard).options(num_cpus=0, scheduling_strategy=affine).remote()
        self._stopping, self._lost = False, 0
        self._looked = -1.0
        self._hung: str | None = None
        self._fault: BaseException | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="invsolve-train-")
        trainer = _trainer(session, [ray.put(course)], self._board, most, self._folder.name)
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()

    def _fit(self, trainer: Any) -> None:
        try:
            trainer.fit()
        except Exception as error:  # of Ray's own, of which there are many kinds
            self._fault = error

    def goes_on(self) -> bool:
        """Whether the training does, after a short wait."""
        self._thread.join(0.1)
        return self._thread.is_alive() and self._hung is None

    def look(self) -> None:
        """Read the board, and let it know of a stop."""
        import ray

        if self.control.stopped and not self._stopping:
            self._stopping = True
            self._board.stop.remote()
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        news: News = ray.get(self._board.collect.remote([]))
        for event in news.events:
            self.control.tell(event.kind, **event.told)
        if lost := [given for given in news.lost if given == _NOBODY]:
            self.control.tell("lost", start=0, stop=self.total, times=len(lost))
        told = news.told.get(_NOBODY)
        show(self.control, [] if told is None else [told], done=0, total=self.total, evaluations=0)
        self._hung = next(iter(news.hung.values()), None)
        self._take_checkpoint()
        error = ray.get(self._board.outcome.remote())[1]
        if error is not None:
            raise error

    def _take_checkpoint(self) -> None:
        import ray

        if self._keep is None:
            return
        count, state = ray.get(self._board.kept.remote())
        if count > self._kept and state is not None:
            self._keep(state)
        self._kept = count

    def outcome(self) -> tuple[Any, str | None]:
        """What the training came to."""
        import ray

        if self._hung is not None:
            return None, self._hung
        self.look()
        answer, error = ray.get(self._board.outcome.remote())
        if error is not None:
            raise error
        if not answer:
            fault = "Ray Train ended without an answer" if self._fault is None else first_line(self._fault)
            raise WorkerError(
                f"the training could not be done on the cluster: {fault}. What was kept of it stays, and --resume "
                f"goes on"
            )
        return answer[0], None

    def close(self) -> None:
        """Let nobody work on: workers that find no board end, and those that Ray begins after them."""
        import ray

        ray.kill(self._board)
        self._thread.join(_LEAVE)
        self._folder.cleanup()


def _trainer(session: Session, course: list[Any], board: Any, most: int, folder: str) -> Any:
    os.environ |= _RAY_TRAIN | os.environ
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    asked = session.cluster
    workers = min(session.count_workers(), most)
    each: dict[str, float] = {"CPU": asked.cpus_per_worker}
    if asked.gpus_per_worker:
        each["GPU"] = asked.gpus_per_worker
    return TorchTrainer(
        _train,
        train_loop_config={"course": course, "board": board},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if asked.gpus_per_worker else "gloo"),
        scaling_config=_scaling(ScalingConfig, workers, use_gpu="GPU" in each, resources_per_worker=each),
        # How often a training is begun again, the board knows.
        run_config=RunConfig(name=uuid.uuid4().hex, storage_path=folder, failure_config=FailureConfig(max_failures=-1)),
    )


def _scaling(kind: Any, workers: int, **more: Any) -> Any:
    """So many workers, or fewer after some were lost for good, as far as this version of Ray can do that."""
    try:
        return kind(num_workers=(1, workers), elastic_resize_monitor_interval_s=1e9, **more)
    except (TypeError, ValueError):
        return kind(num_workers=workers, **more)


def _train(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray

    course, board, crew = ray.get(config["course"][0]), config["board"], ProcessGroup()
    try:
        before = crew.first(ray.get(board.enter.remote()) if crew.rank == 0 else 0)
        answer, error = ray.get(board.outcome.remote())
        if answer or error is not None:
            return
        if before >= MOST_BEGUN:
            raise WorkerError(
                f"workers died {before} times while they trained; perhaps memory ran out: give each more by "
                f"--cpus-per-worker, or use fewer --workers. What was kept of the training stays, and --resume goes on"
            )
        answer = _taught(course, board, crew)
        if crew.rank == 0:
            ray.get(board.end.remote(answer))
    except ray.exceptions.RayActorError:  # the driver has gone, or wants no more
        return
    except Exception as error:
        if not _lost_another(error):
            ray.get(board.fail.remote(_portable(error)))
        raise  # so that Ray ends the others, too; whoever it begins anew ends at once


def _taught(course: Course, board: Any, crew: Crew) -> Any:
    import ray

    key = (crew.rank, -1)
    ray.get(board.begin.remote(key))
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

    with Line(board, key, trainee, _LOOK, gone=_end_process) as line:
        return trainee(crew, RemoteControl(line), keep, earlier)


def _end_process() -> None:
    """Also out of an evaluation that nothing else would end."""
    os._exit(1)


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
