"""What is computed of a range of rows: problem, method, refinement and evaluator, as columns of the solution."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from invsolve.analysis.evaluate import Score, evaluate
from invsolve.analysis.uncertainty import MOST_UNKNOWNS, Uncertainty, reduced_chi2, uncertainty
from invsolve.checkpoints import Checkpoints
from invsolve.control import Control, Progress
from invsolve.data.dataset import Dataset, Rows
from invsolve.data.run_folder import Columns, joined
from invsolve.data.solution import CODES, HISTORY_EXAMPLES, Status
from invsolve.engine import RowResults
from invsolve.errors import OptionError
from invsolve.examples import Examples
from invsolve.histories import History
from invsolve.jacobian import jacobian_cost
from invsolve.memory import ran_out, release
from invsolve.methods.base import Budget, Method
from invsolve.methods.joint import JointMethod
from invsolve.problem import Conduct, Problem
from invsolve.ranges import Range, group_size, groups
from invsolve.settings import LEAST_EVALUATIONS, Settings
from invsolve.tuning import Tuning
from invsolve.watchdog import TimedOut


@dataclass
class Begun:
    """A range of rows whose starts are scored."""

    start: int
    stop: int
    problem: Problem
    exact: Problem  # the same in float64
    loss_initial: torch.Tensor
    seconds: float = 0.0  # that the scoring took

    def slice(self, start: int, stop: int) -> Begun:
        """The examples start ≤ i < stop among these."""
        part = slice(start - self.start, stop - self.start)
        problem = self.problem.slice(part.start, part.stop)
        exact = problem if self.exact is self.problem else self.exact.slice(part.start, part.stop)
        return Begun(start, stop, problem, exact, self.loss_initial[part])


@dataclass
class Fitted:
    """What a joint method left of the examples from `first` on beside their solutions."""

    first: int
    loss_initial: torch.Tensor
    evaluations: torch.Tensor
    gradients: torch.Tensor
    history: torch.Tensor | None = None  # None also where an earlier version of this program made the fit


class RangeSolver:
    """Solves ranges of rows, each independent of all others."""

    def __init__(
        self,
        dataset: Dataset,
        model: Any,
        x_shape: tuple[int, ...],
        method: Method,
        refiner: Method | None,
        device: torch.device,
        dtype: torch.dtype,
        settings: Settings,
        workers: int = 1,
    ) -> None:
        self.dataset, self.model, self.x_shape = dataset, model, x_shape
        self.method, self.refiner = method, refiner
        self.device, self.dtype, self.settings = device, dtype, settings
        self.conduct = Conduct()  # of the model, over all ranges
        self.group = group_size(len(dataset)) if settings.deterministic else None
        self.tuning = Tuning(settings, method.row_method, len(dataset) * method.rows_each, workers, self.group)
        self._begun: Begun | None = None
        self._fitted: Fitted | None = None
        self._guess_hangs = False  # the model's, so that there is none to be told

    @property
    def keeps_history(self) -> bool:
        """Whether `Solution.history` is kept: of robust losses it would tell nothing beside the loss that is scored."""
        return len(self.dataset) <= HISTORY_EXAMPLES and self.method.minimizes_loss

    @property
    def batch_size(self) -> int:
        """Rows that are evaluated together, as far as memory allows."""
        return min(self.tuning.batch_size, self.conduct.fitting.least or self.tuning.batch_size)

    def listen(self, control: Control) -> None:
        """Let those who watch know when memory runs out, or seems to leak."""
        fitting, method = self.conduct.fitting, self.method.row_method
        fitting.tell = lambda failed, fits: control.tell("memory", rows=failed, fits=fits)
        fitting.growth.tell = lambda words: control.tell("leak", text=words)
        if method is not None:
            fitting.growth.expected = self.batch_size * method.row_bytes(math.prod(self.x_shape), self.dtype)

    def check_extras(self) -> None:
        """See that prior and covariance, where asked for, make sense for this model.

        Raises:
            OptionError: no parameter has a prior, there are too many unknowns, or too few evaluations.
        """
        s, d = self.settings, math.prod(self.x_shape)
        if s.prior and not any(p.prior for p in self.model.parameters):
            raise OptionError(f"prior: model '{self.model.name}' has none; give its parameters one, or leave it out")
        if s.covariance and d > MOST_UNKNOWNS:
            raise OptionError(
                f"covariance: x has {d} unknowns, and a {d} × {d} matrix for each example is too much; "
                f"at most {MOST_UNKNOWNS}"
            )
        least = LEAST_EVALUATIONS - 1 + self.kept_back
        if s.max_evaluations is not None and s.max_evaluations < least:
            raise OptionError(
                f"max_evaluations must be at least {least} here (scoring start and result takes two, the covariance "
                f"{self.kept_back - 1}), found {s.max_evaluations}"
            )

    def fit(self, method: JointMethod, control: Control, checkpoints: Checkpoints) -> Columns | None:
        """Let a joint method see all examples: what it found, as columns; None where no start can be evaluated,
        or the run was stopped before that was known. All members of the checkpoints' crew come back with the same."""
        examples = Examples(
            self.dataset,
            self.x_shape,
            lambda rows: self.problem(rows, self.dtype),
            keep_history=self.keeps_history,
            crew=checkpoints.crew,
        )
        scores = examples.score(self.batch_size, control)
        if scores is None or bool(torch.isinf(scores[0]).all()):
            return None
        loss, objective = scores
        control.begin_range(0, len(self.dataset))
        found = method.fit(examples, objective.to(self.dtype), self.budget(method), control, checkpoints)
        return found.to_columns() | {
            **{name: _as_bytes(getattr(method, name)) for name in _TOLD},
            "loss_initial": loss.cpu().numpy(),
            "evaluations": examples.evaluations.cpu().numpy(),
            "gradients": examples.gradients.cpu().numpy(),
            **({} if examples.history is None else {"history": examples.history.least.cpu().numpy()}),
        }

    def use_fit(self, method: JointMethod, columns: Columns, first: int = 0) -> None:
        """Solve ranges by what `fit` gave, in this run or an earlier one, or by the part from example `first` on."""
        method.fitted, method.first_fitted = RowResults.from_columns(columns, self.device), first
        for name in _TOLD:
            if name in columns:
                setattr(method, name, json.loads(columns[name].tobytes()))
        names = ("loss_initial", "evaluations", "gradients", "history")
        found = {name: torch.from_numpy(columns[name]).to(self.device) for name in names if name in columns}
        self._fitted = Fitted(first, **found)

    def begin(self, start: int, stop: int, control: Control) -> Begun | None:
        """Load the examples start ≤ i < stop and score their starts, unless that was done already.

        Only the first group of them, where results are not to depend on what is solved beside it. None where `control`
        stops it.
        """
        if self.group is not None:
            stop = min(stop, start + self.group)
            # Found out anew: to do so once takes an evaluation more, and other batches, of the group that comes first.
            self.conduct.rows_apart, self.conduct.jacobian_by = False, ""
        if self._begun is not None and self._begun.start <= start and stop <= self._begun.stop:
            return self._begun.slice(start, stop)
        self._begun = None  # its memory is free before more is taken
        rows = self.dataset.rows(start, stop, self.x_shape)
        problem = self.problem(rows, self.dtype)
        if self.keeps_history:
            problem.history = History.empty(problem.n, self.device)
        exact = problem.in_float64(rows)
        if self._fitted is not None:
            part = slice(start - self._fitted.first, stop - self._fitted.first)
            problem.evaluations.copy_(self._fitted.evaluations[part])
            problem.gradients.copy_(self._fitted.gradients[part])
            if problem.history is not None and self._fitted.history is not None:
                problem.history.least.copy_(self._fitted.history[part])
            return Begun(start, stop, problem, exact, self._fitted.loss_initial[part])
        began, before = time.monotonic(), self.conduct.fitting.seconds
        loss_initial = evaluate(exact, exact.x0, self.tuning.batch_size, differentiate=False, control=control).loss
        if control.stopped:
            return None
        seconds = time.monotonic() - began - (self.conduct.fitting.seconds - before)
        self.tuning.find_out(problem, seconds / (stop - start))
        self._begun = Begun(start, stop, problem, exact, loss_initial, seconds)
        return self._begun

    def solve(self, start: int, stop: int, control: Control) -> Columns:
        """Columns of the examples start ≤ i < stop."""
        self.listen(control)
        parts = [(start, stop)] if self.group is None else groups((start, stop), self.group)
        solved: list[Columns] = []
        for part in parts:
            whole = partial(_of_the_whole, range_=(start, stop), part=part, before=solved)
            solved.append(self._solve_together(*part, control if len(parts) == 1 else control.seen_as(whole)))
        return joined(solved)

    def _solve_together(self, start: int, stop: int, control: Control) -> Columns:
        """Columns of examples that share batches; of fewer at a time where memory runs out."""
        while True:
            together = self.tuning.batch_size
            try:
                return self._solve(start, stop, control)
            except (MemoryError, RuntimeError) as error:  # not by F alone, of which as much is computed as fits
                if not ran_out(error) or not self.tuning.shrink():
                    raise
            self._begun = None
            release()
            self.conduct.fitting.learn(together, self.tuning.batch_size)
            control.tell("memory", rows=together, fits=self.tuning.batch_size)

    def _solve(self, start: int, stop: int, control: Control) -> Columns:
        begun = self.begin(start, stop, control)
        if begun is None:
            return self.not_run(start, stop)
        problem, exact = begun.problem, begun.exact
        results = self.method.solve(
            problem, problem.coordinates.to_solver(problem.x0), self.budget(self.method), control
        )
        if self.refiner is not None and not isinstance(self.method, JointMethod) and not control.stopped:
            results = _refine(self.refiner, problem, results, self.budget(self.refiner), control)
        x = exact.coordinates.to_user(results.z.double())
        # Once the run is stopped there is little time, and none for rows that were not begun.
        which = results.status != int(Status.NOT_RUN) if control.stopped else None
        score = evaluate(exact, x, self.batch_size, control=control, which=which)
        status = results.status.masked_fill(torch.isinf(score.loss), int(Status.NONFINITE))
        more = self._extras(exact, x, score, control)  # before the counts are read
        columns = {
            "x": self._shaped(x),
            "loss": score.loss.cpu().numpy(),
            "loss_initial": begun.loss_initial.cpu().numpy(),
            "status": status.cpu().numpy(),
            "iterations": results.iterations.cpu().numpy(),
            "evaluations": problem.evaluations.cpu().numpy().copy(),
            "gradients": problem.gradients.cpu().numpy().copy(),
            "grad_norm": score.grad_norm.cpu().numpy(),
            "x_initial": self._shaped(exact.x0),
            "example": self._names(start, stop),
            **more,
            **{name: results.to_columns()[name] for name in self.method.columns},
            **({} if problem.history is None else {"history": problem.history.column()}),
        }
        if bool((unscored := torch.isnan(score.loss)).any()):
            self._forget(columns, unscored.cpu().numpy())
        return columns

    def _forget(self, columns: Columns, unscored: np.ndarray) -> None:
        """Let the examples of a mask (n,), which nobody has scored, be as if they had not been run, but for counts."""
        columns["x"][unscored] = columns["x_initial"][unscored]
        for name, values in self._unknown(len(unscored)).items():
            columns[name][unscored] = values[unscored]

    def _extras(self, problem: Problem, x: torch.Tensor, score: Score, control: Control) -> Columns:
        """The columns that only some runs have."""
        asked = self.settings.covariance
        return self._extra_columns(
            score.penalty,
            reduced_chi2(problem, score.loss) if problem.has_sigma else None,
            uncertainty(problem, x, score.loss, self.batch_size, control) if asked else None,
        )

    def _extra_columns(self, penalty: torch.Tensor, chi2: torch.Tensor | None, found: Uncertainty | None) -> Columns:
        columns: Columns = {}
        if self.settings.prior:
            columns["loss_prior"] = penalty.cpu().numpy()
        if chi2 is not None:
            columns["reduced_chi2"] = chi2.cpu().numpy()
        if found is not None:
            columns |= {
                "covariance": found.covariance.cpu().numpy(),
                "std_error": self._shaped(found.std_error),
                "condition_number": found.condition_number.cpu().numpy(),
                "identifiability": self._shaped(found.identifiability),
            }
        return columns

    def problem(self, rows: Rows, dtype: torch.dtype) -> Problem:
        """The rows under the run's model."""
        return Problem(self.model, rows, self.x_shape, self.device, dtype, self.conduct, prior=self.settings.prior)

    @property
    def result_bytes(self) -> int:
        """What the columns of one example take in a file, about."""
        unknown = sum(values.nbytes for values in self._unknown(1).values())
        return unknown + 2 * 8 * math.prod(self.x_shape) + 4 * 8  # x twice; loss_initial, counts and name

    @property
    def row_bytes(self) -> int:
        """What one example brings into memory: its data, and its columns."""
        return self.dataset.row_bytes + self.result_bytes

    def not_run(self, start: int, stop: int) -> Columns:
        """Columns of examples that the run did not come to."""
        rows = self.dataset.rows(start, stop, self.x_shape)
        try:
            if self._guess_hangs:
                rows = replace(rows, x0=np.full(self.x_shape, np.nan))
            problem = self.problem(rows, torch.float64)
        except TimedOut:
            self._guess_hangs = True
            return self.not_run(start, stop)
        zeros = np.zeros(stop - start, dtype=np.int64)
        return {
            "x": self._shaped(problem.x0),
            "loss_initial": np.full(stop - start, np.nan),
            "evaluations": zeros,
            "gradients": zeros,
            "x_initial": self._shaped(problem.x0),
            "example": self._names(start, stop),
            **self._unknown(stop - start),
        }

    def _unknown(self, n: int) -> Columns:
        """What is told of n examples that have no result."""
        unknown, zeros = torch.full((n,), torch.nan, dtype=torch.float64), np.zeros(n, dtype=np.int64)
        return {
            "loss": unknown.numpy(),
            "status": np.full(n, int(Status.NOT_RUN), dtype=np.int8),
            "iterations": zeros,
            "grad_norm": unknown.numpy(),
            **{name: zeros.astype(np.int8 if name in CODES else np.int64) for name in self.method.columns},
            **self._extra_columns(
                unknown,
                unknown if self.dataset.sigma is not None else None,
                Uncertainty.unknown(n, math.prod(self.x_shape)) if self.settings.covariance else None,
            ),
            **({"history": History.empty(n, self.device).column()} if self.keeps_history else {}),
        }

    def _shaped(self, x: torch.Tensor) -> np.ndarray:
        return x.cpu().numpy().reshape(len(x), *self.x_shape)

    def _names(self, start: int, stop: int) -> np.ndarray:
        names = self.dataset.names
        return np.arange(start, stop, dtype=np.int64) if names is None else np.asarray(names[start:stop], dtype=object)

    def budget(self, method: Method) -> Budget:
        """What the settings leave to a method."""
        most = self.settings.max_evaluations
        left = None if most is None else most - self.kept_back
        kernels = self.tuning.kernels_that_fit() if method is self.method else None
        return Budget(left, self.tuning.batch_size, kernels=kernels, refiner=self.refiner)

    @property
    def kept_back(self) -> int:
        """Evaluations of each row that are left for the evaluator, and for the Jacobian where it is asked for."""
        d, m = math.prod(self.x_shape), math.prod(self.dataset.y_shape)
        return 1 + (jacobian_cost(d, m) if self.settings.covariance else 0)


def _of_the_whole(told: Progress, range_: Range, part: Range, before: Sequence[Columns]) -> Progress:
    """What was told of a part of a range, after the parts `before` it, as of the range."""
    (start, stop), earlier = range_, part[0] - range_[0]
    return replace(
        told,
        total=stop - start,
        done=earlier + told.done,
        fraction=(earlier + told.fraction * told.total) / (stop - start),
        evaluations=told.evaluations + sum(int(columns["evaluations"].sum()) for columns in before),
    )


_TOLD = ("chosen", "training_curve")
"""Attributes of a joint method that tell of its training: JSON values."""


def part_of_fit(columns: Columns, start: int, stop: int) -> Columns:
    """What `RangeSolver.fit` gave of the examples start ≤ i < stop."""
    return {name: values[start:stop] for name, values in columns.items() if name not in _TOLD}


def _as_bytes(told: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)


def _refine(refiner: Method, problem: Problem, found: RowResults, budget: Budget, control: Control) -> RowResults:
    """Polish each row from where it is, and keep the better."""
    refined = refiner.solve(problem, found.z, budget, control)
    ran = refined.status != int(Status.NOT_RUN)
    better = refined.best <= found.best
    return replace(
        found,
        z=torch.where(better[:, None], refined.z, found.z),
        status=torch.where(ran, refined.status, found.status),
        iterations=found.iterations + refined.iterations,
        best=torch.minimum(refined.best, found.best),
    )
