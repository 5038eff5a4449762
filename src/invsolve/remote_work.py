"""The ranges of a run on the machines of a cluster: what travels there, and how it is put together again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invsolve.allocator import keep_freed_memory
from invsolve.checkpoints import Checkpoints, State
from invsolve.cluster.code import return_to_code
from invsolve.cluster.session import connect
from invsolve.cluster.survey import survey
from invsolve.cluster.team import solve_on_cluster
from invsolve.cluster.training import Course, train_on_cluster
from invsolve.cluster.worker import Job
from invsolve.control import Control
from invsolve.crew import Crew
from invsolve.data.dataset import Dataset
from invsolve.data.run_folder import Columns, Pieces, RunFolder, range_name
from invsolve.errors import DataError
from invsolve.examples import most_members
from invsolve.methods.joint import JointMethod
from invsolve.methods.solver_network import NetworkMethod, SolverNetwork
from invsolve.preparation import prepare
from invsolve.range_solver import part_of_fit
from invsolve.range_work import RangeWork
from invsolve.ranges import Range, Ranges
from invsolve.reached import Answer, Reached
from invsolve.settings import Cluster, Settings, deterministic_algorithms, threads_set
from invsolve.watchdog import TimedOut, Watch


@dataclass(frozen=True)
class Asked:
    """A run as it was asked for."""

    dataset: Dataset
    model: Any
    model_options: dict[str, Any]
    settings: Settings


class RemoteWork:
    """Solves ranges on a cluster.

    Args:
        cluster: where, and by how many.
        asked: what.
        folder: of the run, if it is to be kept.

    Raises:
        OptionError: there is no such cluster, or its machines cannot do it.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, cluster: Cluster, asked: Asked, folder: RunFolder | None) -> None:
        self.asked, self.folder = asked, folder
        self.session = connect(cluster, asked.model)
        self.session.count_workers()
        source = asked.dataset.source
        files = [] if source is None else [Path(source).resolve()]
        shared, self.machines = survey(files, None if folder is None else folder.path.resolve())
        self.pieces = folder.path.resolve() if folder is not None and shared else None

    def attributes(self, reached: Reached) -> dict[str, Any]:
        """What a solution file tells of it."""
        machines = sorted({one.host for one in self.machines})
        workers, cluster = self.session.count_workers(), self.session.cluster
        return {
            "threads": cluster.cpus_per_worker,
            "batch_size": reached.batch_size or self.asked.settings.batch_size or 1,
            "compiled": reached.compiled,
            "cluster": {"workers": workers, "gpus_per_worker": cluster.gpus_per_worker, "machines": machines},
        }

    def solve(
        self, ranges: Ranges, fit: Columns | None, keep: Callable[[Answer], None], control: Control
    ) -> str | None:
        """Solve all ranges; `fit` is what a joint method has found. In which evaluation one hung, in words, or None."""

        def take(answer: Answer) -> None:
            if self.folder is not None and answer.finished and answer.columns is not None:
                self.folder.put(range_name(*answer.given), answer.columns)
                answer.columns = None
            keep(answer)

        def brought(given: Range) -> Columns | None:
            return None if fit is None else part_of_fit(fit, *given)

        # A board hears some thousand words a second.
        job = Job(partial(RemadeWork, self._there, self.pieces), beat=max(0.5, self.session.count_workers() / 1000))
        return solve_on_cluster(self.session, job, ranges, brought, take, control, len(self.asked.dataset))

    def train(self, earlier: State | None, control: Control) -> Learned:
        """Let a joint method learn from all examples, from an `earlier` checkpoint of the folder, if there is one.

        Raises:
            TimedOut: an evaluation of F took too long.
            InvsolveError: as the training does.
        """
        dataset, folder = self.asked.dataset, self.folder
        course, keep = Course(partial(RemadeTraining, self._there)), None
        if self.pieces is not None:
            shared = Pieces(self.pieces)
            course = replace(course, put=shared.put_checkpoint, get=shared.get_checkpoint)
        elif folder is not None:
            course, keep = replace(course, get=Held(earlier)), folder.put_checkpoint
        # The bits of a sum depend on how many add it up.
        most = 1 if self.asked.settings.deterministic else most_members(dataset)
        learned, hung = train_on_cluster(self.session, course, control, most, keep, len(dataset))
        if hung is not None:
            raise TimedOut(hung)
        if learned is None:
            return Learned(None, None, None, None, whole=False, failed="")
        assert isinstance(learned, Learned)
        if learned.columns is None:
            return learned
        return replace(learned, columns=_writable(learned.columns))

    @property
    def _there(self) -> Asked:
        """What is asked of a worker."""
        settings = replace(self.asked.settings, cluster=None, threads=self.session.cluster.cpus_per_worker)
        return replace(self.asked, model=self.session.name_there(self.asked.model), settings=settings)


def _writable(columns: Columns) -> Columns:
    """Copies: what Ray hands over cannot be written to."""
    return {name: np.array(values) for name, values in columns.items()}


@dataclass(frozen=True)
class Held:
    """A checkpoint that travels with the training."""

    state: State | None

    def __call__(self) -> State | None:
        return self.state


class _Remade:
    """What solves, in a process of a worker's."""

    def __init__(self, asked: Asked) -> None:
        return_to_code()
        keep_freed_memory()
        ready = prepare(asked.dataset, asked.model, asked.model_options, asked.settings)
        self.settings, self.solver, self._threads = asked.settings, ready.solver, ready.threads
        self.watch: Watch = ready.solver.conduct.watch
        self.model = ready.model.name

    @contextlib.contextmanager
    def as_asked(self) -> Iterator[None]:
        """Computes as the run is to meanwhile."""
        with threads_set(self._threads), deterministic_algorithms(self.settings.deterministic):
            yield


class RemadeWork(_Remade):
    """The work of a run on its ranges."""

    def __init__(self, asked: Asked, pieces: Path | None) -> None:
        super().__init__(asked)
        self._work = RangeWork(self.solver, None if pieces is None else Pieces(pieces))

    def __call__(self, start: int, stop: int, fit: Columns | None, control: Control) -> Answer:
        """Solve the examples start ≤ i < stop, by what a joint method has found of them."""
        method = self.solver.method
        if fit is not None:
            assert isinstance(method, JointMethod)
            self.solver.use_fit(method, _writable(fit), start)
        with self.as_asked():
            return self._work(start, stop, control)

    @property
    def batch_size(self) -> int:
        """Examples that are solved together, at most."""
        return self.solver.tuning.batch_size

    def limit(self, rows: int) -> None:
        """Solve at most so many together from now on."""
        self.solver.tuning.limit(rows)


@dataclass
class Learned:
    """What came of a training."""

    columns: Columns | None  # see `RangeSolver.fit`
    network: SolverNetwork | None  # where it is one that can be saved
    first_error: tuple[int, str] | None
    fits: tuple[int, int] | None  # rows that did not fit into memory, and those that did
    whole: bool  # whether it came to its end
    failed: str  # why it could not be kept meanwhile


class RemadeTraining(_Remade):
    """The training of a run's joint method."""

    def __call__(
        self, crew: Crew, control: Control, keep: Callable[[State], int], earlier: Callable[[], State | None]
    ) -> Learned:
        """Train with the others of a crew, from what an earlier one has kept."""
        every, solver, kept = self.settings.checkpoint_every, self.solver, None
        method, conduct = solver.method, solver.conduct
        assert isinstance(method, JointMethod)
        with contextlib.suppress(DataError):  # the driver has told of it
            kept = earlier()
        checkpoints = Checkpoints(None if every is None else keep, kept, every=every or 0.0, crew=crew)
        solver.listen(control)
        with self.as_asked():
            columns = solver.fit(method, control, checkpoints)
        return Learned(
            columns=columns,
            network=method.trained if isinstance(method, NetworkMethod) else None,
            first_error=conduct.first_error,
            fits=conduct.fitting.known,
            whole=not checkpoints.stops(control, over=True),
            failed=checkpoints.failed,
        )
