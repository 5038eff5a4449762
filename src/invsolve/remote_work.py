"""The ranges of a run on the machines of a cluster: what travels there, and how it is put together again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invsolve.cluster.session import connect
from invsolve.cluster.survey import survey
from invsolve.cluster.team import solve_on_cluster
from invsolve.cluster.worker import Job
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.run_folder import Columns, Pieces, RunFolder, range_name
from invsolve.methods.joint import JointMethod
from invsolve.preparation import prepare
from invsolve.range_work import RangeWork
from invsolve.ranges import Ranges
from invsolve.reached import Answer, Reached
from invsolve.settings import Cluster, Settings, deterministic_algorithms, threads_set
from invsolve.watchdog import Watch


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
        asked, cluster = self.asked, self.session.cluster
        settings = replace(asked.settings, cluster=None, threads=cluster.cpus_per_worker)
        there = replace(asked, model=self.session.name_there(asked.model), settings=settings)

        def take(answer: Answer) -> None:
            if self.folder is not None and answer.finished and answer.columns is not None:
                self.folder.put(range_name(*answer.given), answer.columns)
                answer.columns = None
            keep(answer)

        # A board hears some thousand words a second.
        job = Job(partial(Remade, there, fit, self.pieces), beat=max(0.5, self.session.count_workers() / 1000))
        return solve_on_cluster(self.session, job, ranges, take, control, len(asked.dataset))


class Remade:
    """The work of a run, in a process of a worker's."""

    def __init__(self, asked: Asked, fit: Columns | None, pieces: Path | None) -> None:
        ready = prepare(asked.dataset, asked.model, asked.model_options, asked.settings)
        self._solver, self._threads, self._deterministic = ready.solver, ready.threads, asked.settings.deterministic
        method = ready.solver.method
        if fit is not None and isinstance(method, JointMethod):
            # What Ray hands over cannot be written to.
            ready.solver.use_fit(method, {name: np.array(values) for name, values in fit.items()})
        self._work = RangeWork(ready.solver, None if pieces is None else Pieces(pieces))
        self.watch: Watch = ready.solver.conduct.watch
        self.model = ready.model.name

    def __call__(self, start: int, stop: int, control: Control) -> Answer:
        """Solve the examples start ≤ i < stop."""
        with threads_set(self._threads), deterministic_algorithms(self._deterministic):
            return self._work(start, stop, control)

    @property
    def batch_size(self) -> int:
        """Examples that are solved together, at most."""
        return self._solver.tuning.batch_size

    def limit(self, rows: int) -> None:
        """Solve at most so many together from now on."""
        self._solver.tuning.limit(rows)
