"""One run: the road from a dataset through problem, method and evaluator to a solution, range by range."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from invsolve import provenance, reuse
from invsolve._version import __version__
from invsolve.analysis.evaluate import evaluate
from invsolve.analysis.summary import are_solved
from invsolve.checkpoints import Checkpoints, State
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.files import check_writable
from invsolve.data.run_folder import Columns, RunFolder, joined, range_name, refuse_other_run
from invsolve.data.solution import Solution, Solved, Status, parts
from invsolve.data.store import open_solution
from invsolve.errors import DataError, ModelError, OptionError, OutputError, first_line
from invsolve.memory import MORE_MEMORY, ran_out
from invsolve.methods.joint import JointMethod
from invsolve.methods.solver_network import NetworkMethod
from invsolve.preparation import prepare
from invsolve.problem import Conduct
from invsolve.range_work import RangeWork
from invsolve.ranges import Range, Ranges, most_rows, split
from invsolve.reached import Answer, Reached, any_finite, counts
from invsolve.remote_work import Asked, RemoteWork
from invsolve.settings import (
    Settings,
    deterministic_algorithms,
    threads_set,
)
from invsolve.watchdog import TimedOut, Watchdog
from invsolve.workers import can_fork, solve_shared

T = TypeVar("T")
WORTH_FORKING = 1.0  # seconds of work ahead, by one process, from which several pay
_ROUNDS = 30  # that a solve takes at least, in times of the scoring of its starts: a few rounds, each with a gradient
_LEAST_SHARE = 8  # examples: fewer are no work to share


class Run:
    """One solve, all of it checked before the first evaluation.

    Raises:
        InvsolveError: see `solve`.
    """

    def __init__(
        self, dataset: Dataset | str | Path, model: Any, model_options: dict[str, Any], settings: Settings
    ) -> None:
        self.settings = settings
        self.notes: list[str] = []  # of networks, what the user should know
        self.network_written = False
        self.reached = Reached()
        self.solution: Solved | None = None
        self.hung = ""  # which evaluation of F took too long
        self.when_left: Callable[[Solved | None], None] = self._say_notes
        """What is told, in another thread, before the process ends in an evaluation that nothing else can end."""
        self._unsaved = self._replace_network = False
        ready = prepare(dataset, model, model_options, settings)
        self._asked = Asked(ready.dataset, model, model_options, settings)
        self._remote: RemoteWork | None = None
        self._found: Columns | None = None  # by the fit of a joint method
        self.dataset, self.model, self.x_shape = ready.dataset, ready.model, ready.x_shape
        self.solver, self.saved, self.threads = ready.solver, ready.saved, ready.threads
        self.notes += ready.notes

    @property
    def is_joint(self) -> bool:
        """Whether the examples share what was learned of all, so that their solutions are not independent."""
        return isinstance(self.solver.method, JointMethod)

    @property
    def uses_seed(self) -> bool:
        """Whether another seed may give other solutions."""
        return any(m.uses_seed for m in (self.solver.method, self.solver.refiner) if m is not None)

    @property
    def conduct(self) -> Conduct:
        """What the model has been seen to do."""
        return self.solver.conduct

    def solve(self, out: Path | None, overwrite: bool, resume: bool, control: Control | None) -> Solved:
        """Solve all ranges, keep each as soon as it is finished, and put them together.

        Where a file is written the columns of the result stay in it until they are used.
        """
        began = time.monotonic()
        control = control or Control()
        control.start(self.settings.time_limit)
        if out is not None:
            finished = self._check_out(out, overwrite, resume)
            if finished is not None:
                self._look_for_network()
                return finished
        if self.settings.save_network is not None:
            taken = {"the input": self.dataset.source, "the output of the solutions": out}
            reuse.check_target(self.settings.save_network, taken, overwrite or resume)
        self._replace_network = overwrite or resume
        self.reached, replace = Reached(), overwrite or resume
        with threads_set(self.threads), self._folder(out, resume=resume, overwrite=overwrite) as folder:
            self.dataset.check_unchanged()
            self._tell_begin(out, control)
            self.solver.listen(control)

            def leave(words: str) -> None:
                self._hang(words, control)
                self.when_left(None if folder is None else self._put_together(folder, began, replace))

            with Watchdog(self.conduct.watch, leave):
                self._solve_all(folder, control)
                self.solution = solution = self._put_together(folder, began, replace)
            if folder is not None and not self.reached.ended_early:
                folder.remove()
        self._note_memory()
        if self._unsaved:  # the disk was full after the training; the solutions, at least, are kept
            self._save_network()
        for note in (*self.notes, *self.solver.tuning.notes):
            control.tell("note", text=note)
        took = round(time.monotonic() - began, 3)
        control.tell("end", took=took, ended_early=self.reached.ended_early, **counts(partial(parts, solution)))
        return solution

    def _put_together(self, folder: RunFolder | None, began: float, replace: bool) -> Solved:
        """All that was reached, in `folder` as the solution file; what was not is told to be so."""
        blocks = self._blocks(folder)
        attributes = self.attributes() | {"seconds": time.monotonic() - began}
        if folder is not None:
            folder.assemble(blocks, len(self.dataset), attributes, self._parameters(), overwrite=replace)
            folder.ended_early = self.reached.ended_early
            return open_solution(folder.out)
        return Solution(
            **joined([columns for _, columns in blocks]), attributes=attributes, parameters=self._parameters()
        )

    def _hang(self, words: str, control: Control) -> None:
        """Take in that an evaluation of F took too long."""
        self.hung, self.reached.ended_early = words, True
        self.notes.append(words)
        control.tell("timeout", text=words)

    def _note_memory(self) -> None:
        """Tell of the rows that did not fit into memory together, and of memory that grew, once."""
        fitting = self.conduct.fitting
        self.notes += [fitting.growth.words] if fitting.growth.words else []
        if fitting.failed is not None:
            advice = f"--batch-size {self.solver.batch_size} does so from the start"
            if self.settings.deterministic:
                advice = "with more memory the bits would be others"
            self.notes.append(
                f"there was not enough memory for {fitting.failed} examples at a time, from then on at most "
                f"{fitting.least} were evaluated together; {advice}"
            )

    def _tell_begin(self, out: Path | None, control: Control) -> None:
        """Let those who watch know what is begun, where, and by which process."""
        same = ("model", "method", "refine", "seed", "dtype", "max_evaluations", "input_sha256")
        control.tell(
            "begin",
            **{key: self.identity[key] for key in same},
            examples=len(self.dataset),
            input=self.dataset.source,
            out=None if out is None else str(out),
            device=str(self.solver.device),
            threads=self.threads,
            time_limit=self.settings.time_limit,
            host=platform.node(),
            process=os.getpid(),
            invsolve=__version__,
        )

    def _solve_all(self, folder: RunFolder | None, control: Control) -> None:
        """Solve what an earlier run has not finished.

        Raises:
            ModelError: no example can be evaluated.
        """
        method, reached = self.solver.method, self.reached
        if self.settings.cluster is not None:  # before anything is computed that might be for nothing
            self._remote = RemoteWork(self.settings.cluster, self._asked, folder)
        for start, stop, columns in folder.finished() if folder is not None else ():
            reached.add(Answer((start, stop), True, any_finite(columns)))
            control.tell("kept", start=start, stop=stop)
        ranges = Ranges(len(self.dataset), reached.kept, self.solver.row_bytes, self.solver.group or 1)
        workers = self._workers(ranges)
        # Rows that processes may share gain little from a second thread, and lose much by it on a busy machine.
        one = workers > 1 or self.settings.deterministic
        with threads_set(1 if one else self.threads), deterministic_algorithms(self.settings.deterministic):
            try:
                if not isinstance(method, JointMethod) or self._fit(method, folder, control):
                    self._solve_ranges(workers, ranges, folder, control)
            except TimedOut as error:
                self._hang(str(error), control)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                raise OptionError(f"there is not enough memory: {first_line(error)}; {MORE_MEMORY}") from error
        reached.ended_early |= len(self.dataset) > sum(stop - start for start, stop in (*reached.kept, *reached.held))
        if not reached.any_finite and not reached.ended_early:
            raise ModelError(self._nothing_finite())

    def _solve_ranges(self, workers: int, ranges: Ranges, folder: RunFolder | None, control: Control) -> None:
        """Solve range by range, by so many processes as soon as they are seen to pay."""
        n, is_joint, reached = len(self.dataset), isinstance(self.solver.method, JointMethod), self.reached
        work = RangeWork(self.solver, folder)

        def keep(answer: Answer) -> None:
            reached.add(answer)
            control.tell("range", start=answer.given[0], stop=answer.given[1], finished=answer.finished, **answer.told)
            if answer.fits is not None:
                self.conduct.fitting.learn(*answer.fits)
            growth = self.conduct.fitting.growth
            growth.words = growth.words or answer.growth
            growth.held += sum(values.nbytes for values in (answer.columns or {}).values())
            self.dataset.check_unchanged(self.identity["input_sha256"])
            told = [e for e in (answer.first_error, self.conduct.first_error) if e is not None]
            self.conduct.first_error = min(told, default=None)
            if self.conduct.first_error is not None and not reached.fault_told:
                example, text = self.conduct.first_error
                control.tell("fault", example=example, text=text)
                reached.fault_told = True

        if self._remote is not None:
            hung = self._remote.solve(ranges, self._found, keep, control)
            if hung is not None:
                self._hang(hung, control)
            if hung is not None or not control.stopped:
                return
        # What a joint method learned is only to be scored once the run is stopped, as far as there is time.
        while (control.may_score if is_joint else not control.stopped) and (given := ranges.take()) is not None:
            began, rows = time.monotonic(), given[1] - given[0]
            begun = self.solver.begin(*given, control)
            if begun is None:
                break
            rounds = _ROUNDS * self.solver.method.rows_each
            if workers > 1 and rounds * begun.seconds / begun.problem.n * (ranges.left + rows) > WORTH_FORKING:
                ranges.give_back(given)
            else:
                control.begin_range(given[0], n)
                keep(work(*given, control))
                seconds = time.monotonic() - began
                ranges.took(rows, seconds)
                if workers == 1 or seconds / rows * ranges.left <= WORTH_FORKING:
                    continue
            if not control.stopped:
                hung = solve_shared(workers, ranges, work, keep, control, n, self.conduct.watch, self.model.name)
                if hung is not None:
                    self._hang(hung, control)
                    break

    def _workers(self, ranges: Ranges) -> int:
        """How many processes may share the ranges."""
        if self.solver.device.type != "cpu" or not can_fork():
            return 1
        return max(1, min(self.threads, ranges.left // _LEAST_SHARE))

    def _fit(self, method: JointMethod, folder: RunFolder | None, control: Control) -> bool:
        """Let a joint method see all examples; what it found is a piece of its own, so that it is not lost either.

        Returns:
            Whether it did: not where the run was stopped before it could begin.
        """
        found, began = folder.get("fit") if folder is not None else None, time.monotonic()
        if found is None:
            try:
                found, whole = self._train(method, folder, control)
            except TimedOut:
                self._note_no_network()
                raise
            if found is None:
                if control.stopped:
                    self._note_no_network()
                    return False
                raise ModelError(self._nothing_finite())
            if self.settings.save_network is not None:
                with contextlib.suppress(OutputError):
                    self._save_network()
            evaluations = int(found["evaluations"].sum())
            control.tell("trained", took=round(time.monotonic() - began, 3), evaluations=evaluations, **method.chosen)
            if whole and folder is not None:
                folder.put("fit", found)
                folder.drop_checkpoint()
        else:
            self._look_for_network()
        self._found = found
        self.solver.use_fit(method, found)
        return True

    def _train(self, method: JointMethod, folder: RunFolder | None, control: Control) -> tuple[Columns | None, bool]:
        """What a joint method finds, here or on a cluster, see `RangeSolver.fit`; and whether it came to its end."""
        earlier = self._checkpoint(folder, control)
        if self._remote is None or not method.trains_in_crews:
            every = None if folder is None else self.settings.checkpoint_every
            keep = folder.put_checkpoint if folder is not None and every is not None else None
            checkpoints = Checkpoints(keep, earlier, every=every or 0.0)
            found = self.solver.fit(method, control, checkpoints)
            whole, failed = not checkpoints.stops(control, over=True), checkpoints.failed
        else:
            learned = self._remote.train(earlier, control)
            found, whole, failed = learned.columns, learned.whole, learned.failed
            self.conduct.first_error = learned.first_error
            if learned.fits is not None:
                self.conduct.fitting.learn(*learned.fits)
            if isinstance(method, NetworkMethod):
                method.take(learned.network)
            if found is not None:
                self.solver.use_fit(method, found)
        if failed:
            self.notes.append(f"the training could not be kept meanwhile: {failed}")
        return found, whole

    def _checkpoint(self, folder: RunFolder | None, control: Control) -> State | None:
        """What an earlier run kept of its training, if that is usable."""
        earlier = None
        try:
            earlier = None if folder is None else folder.get_checkpoint()
        except DataError as error:
            self.notes.append(f"{error}; the training begins anew")
        if earlier is not None:
            control.tell("resumed", stage=list(earlier)[-1])
        return earlier

    def _save_network(self) -> None:
        """Keep what was learned, also where the training was stopped."""
        path, self._unsaved = self.settings.save_network, True
        assert path is not None
        self.network_written = reuse.save(
            self.solver.method, path, self.model, self.dataset, self.x_shape, overwrite=self._replace_network
        )
        if not self.network_written:
            self._note_no_network()
        self._unsaved = False

    def _note_no_network(self) -> None:
        if self.settings.save_network is not None:
            self.notes.append(f"no network was trained, so that {self.settings.save_network} is not written")

    def _look_for_network(self) -> None:
        """What an earlier run has learned was saved by it, or is lost."""
        path = self.settings.save_network
        if path is not None and not path.exists():
            self.notes.append(
                f"{path} is not written: the training had ended before this run, and its network was not kept"
            )

    def _say_notes(self, solution: Solved | None) -> None:
        for note in self.notes:
            print(f"invsolve: {note}", file=sys.stderr)

    def _blocks(self, folder: RunFolder | None) -> Iterator[tuple[int, Columns]]:
        """All ranges in order: first example, and columns."""
        reached, n = self.reached, len(self.dataset)
        there = sorted([*reached.kept, *reached.held])
        left, not_run = Ranges(n, there, self.solver.row_bytes), set[Range]()
        while (given := left.take()) is not None:
            not_run.add(given)
        for start, stop in sorted([*there, *not_run]):
            if (start, stop) in not_run:
                columns: Columns | None = self.solver.not_run(start, stop)
            else:
                columns = reached.held.get((start, stop))
            if columns is None and folder is not None:
                columns = folder.get(range_name(start, stop))
            if columns is None:
                raise OutputError(f"the finished examples {start} to {stop - 1} were removed during the run; run again")
            yield start, columns

    def loss_true(self, control: Control | None = None) -> np.ndarray | None:
        """Losses (n,) at x_true where the data hold it, for scoring; what they cost is no part of the run.

        None also where `control` leaves no time for all, or F hangs.
        """
        losses = self._at_truth(lambda start, stop, loss: loss, control)
        return None if losses is None else np.concatenate(losses)

    def solved(self, solution: Solved, control: Control | None = None) -> float | None:
        """The fraction of the examples that are solved, or None as for `loss_true`."""

        def count(start: int, stop: int, loss_true: np.ndarray) -> int:
            loss, initial = (solution.rows(name, start, stop) for name in ("loss", "loss_initial"))
            return int(are_solved(loss, initial, loss_true).sum())

        counted = self._at_truth(count, control)
        return None if counted is None else sum(counted) / len(self.dataset)

    def _at_truth(self, use: Callable[[int, int, np.ndarray], T], control: Control | None) -> list[T] | None:
        """What `use` makes of the losses at x_true of all examples, some at a time: start, stop and the losses."""
        if self.dataset.x_true is None or self.hung:
            return None
        found = []
        try:
            with threads_set(self.threads), Watchdog(self.conduct.watch, self._leave_truth):
                for start, stop in self._by_memory():
                    losses = self._losses_at(self.dataset.x_true[start:stop], start, stop, control)
                    if losses is None:
                        return None
                    found.append(use(start, stop, losses))
        except TimedOut as error:
            self.notes.append(str(error))
            return None
        return found

    def _leave_truth(self, words: str) -> None:
        self.notes.append(words)
        self.when_left(self.solution)

    def _losses_at(self, x_true: Any, start: int, stop: int, control: Control | None) -> np.ndarray | None:
        problem = self.solver.problem(self.dataset.rows(start, stop, self.x_shape), torch.float64)
        x = torch.from_numpy(np.asarray(x_true, dtype=np.float64)).to(problem.device).reshape(problem.x0.shape)
        loss = evaluate(problem, x, self.solver.batch_size, differentiate=False, control=control).loss
        return None if bool(torch.isnan(loss).any()) else loss.cpu().numpy()

    def unobserved(self, solution: Solved) -> int:
        """How many of the nonfinite examples are so because nothing was observed."""
        count = 0
        for start, stop in self._by_memory():
            lost = solution.rows("status", start, stop) == Status.NONFINITE
            if lost.any():
                targets = np.asarray(self.dataset.targets[start:stop], dtype=np.float64)[lost]
                count += int(np.isnan(targets.reshape(len(targets), -1)).all(1).sum())
        return count

    def _by_memory(self) -> Iterator[Range]:
        """All examples, as many at a time as may be in memory."""
        return split(len(self.dataset), most_rows(self.dataset.row_bytes))

    def _parameters(self) -> list[dict[str, str]]:
        return [{"name": p.name, "unit": p.unit} for p in self.model.parameters]

    def _nothing_finite(self) -> str:
        d = self.dataset
        first = 0 if d.names is None else d.names[0]
        return (
            f"for all {len(d)} examples model '{self.model.name}' gives NaN or Inf, in y or its gradient, or raises, "
            f"or no target is observed (example {first}: x {self.x_shape}, target {d.y_shape}); mend x0, the data or "
            f"the model"
        )

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes a run the same run, in JSON values."""
        return provenance.identity(self.solver, self.saved)

    def attributes(self) -> dict[str, Any]:
        """The solution file's attributes but `seconds`."""
        used = {} if self.saved is None else {"network": str(self.saved.path)}
        written = {"network_written": str(self.settings.save_network)} if self.network_written else {}
        there = {} if self._remote is None else self._remote.attributes(self.reached)
        return self.identity | provenance.attributes(self.solver, self.threads) | used | written | there

    def _check_out(self, out: Path, overwrite: bool, resume: bool) -> Solved | None:
        """See that `out` can be written; with `resume`, a run that is already complete is returned as it is."""
        check_writable(out, overwrite=True)
        if self.dataset.source is not None and out.exists() and out.samefile(self.dataset.source):
            raise OutputError(f"output {out} is the input; choose another --out")
        if resume and out.exists():
            found = open_solution(out)
            refuse_other_run(out, found.attributes, provenance.as_stored(self.identity))
            if not RunFolder.is_begun(out):
                return found
        check_writable(out, overwrite or resume)
        return None

    @contextlib.contextmanager
    def _folder(self, out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[RunFolder | None]:
        """The folder of the pieces of `out`; None where no file is written."""
        if out is None:
            yield None
            return
        folder = RunFolder(out, self.identity, resume=resume, overwrite=overwrite)
        try:
            folder.check_room(len(self.dataset) * self.solver.result_bytes)
            yield folder
        finally:
            folder.close()
