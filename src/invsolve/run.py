"""One run: the road from a dataset through problem, method and evaluator to a solution, range by range."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invsolve._version import __version__
from invsolve.analysis.evaluate import Score, evaluate
from invsolve.analysis.uncertainty import MOST_UNKNOWNS, Uncertainty, reduced_chi2, uncertainty
from invsolve.data.dataset import Dataset, Rows
from invsolve.data.files import check_writable
from invsolve.data.run_folder import Columns, RunFolder, range_name, refuse_other_run
from invsolve.data.solution import Solution, Status
from invsolve.data.store import read_dataset, read_solution
from invsolve.engine import Control, RowResults
from invsolve.errors import ModelError, OptionError, OutputError
from invsolve.jacobian import jacobian_cost
from invsolve.methods.base import Budget, Method, RowMethod
from invsolve.methods.joint import JointMethod
from invsolve.problem import Conduct, Problem
from invsolve.registry import load_method, method_class, model_of, registered
from invsolve.settings import LEAST_EVALUATIONS, Settings, check_limits, choose_device, choose_dtype
from invsolve.shapes import solution_shape

RANGE = 4096  # examples that are solved and written as one piece


class Run:
    """One solve, all of it checked before the first evaluation.

    Raises:
        InvsolveError: see `solve`.
    """

    def __init__(
        self, dataset: Dataset | str | Path, model: Any, model_options: dict[str, Any], settings: Settings
    ) -> None:
        self.settings = settings
        self.method, self.refiner = _load_methods(settings)
        self.device, self.dtype = choose_device(settings.device), choose_dtype(settings.dtype)
        check_limits(settings)
        self.dataset = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
        self.model = model_of(self.dataset, model, model_options)
        self.x_shape = solution_shape(self.model, self.dataset)
        self.conduct = Conduct()  # of the model, over all ranges
        for method in filter(None, (self.method, self.refiner)):
            if refusal := method.refusal(math.prod(self.x_shape), self.dtype):
                raise OptionError(refusal)
        self._check_extras()
        self._fitted_problem: Problem | None = None
        self._loss_initial: np.ndarray | None = None

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The examples start ≤ i < stop that are solved and written as one piece."""
        n = len(self.dataset)
        return [(start, min(start + RANGE, n)) for start in range(0, n, RANGE)]

    def solve(self, out: Path | None, overwrite: bool, resume: bool, control: Control | None) -> Solution:
        """Solve all ranges, keep each as soon as it is finished, and put them together."""
        began = time.monotonic()
        control = control or Control()
        control.start(self.settings.time_limit)
        if out is not None:
            finished = self._check_out(out, overwrite, resume)
            if finished is not None:
                return finished
        with _open_pieces(out, self.identity(), resume=resume, overwrite=overwrite) as pieces:
            unfinished = self._solve_ranges(pieces, control)
            attributes = self.attributes() | {"seconds": time.monotonic() - began}
            blocks = self._blocks(pieces, unfinished)
            if isinstance(pieces, RunFolder):
                pieces.assemble(
                    blocks, len(self.dataset), attributes, self._parameters(), overwrite=overwrite or resume
                )
                assert out is not None
                solution = read_solution(out)
                pieces.ended_early = bool(unfinished)
                if not unfinished:
                    pieces.remove()
            else:
                columns = [c for _, c in blocks]
                joined = {k: np.concatenate([c[k] for c in columns]) for k in columns[0]}
                solution = Solution(**joined, attributes=attributes, parameters=self._parameters())
        return solution

    def _solve_ranges(self, pieces: Pieces, control: Control) -> dict[tuple[int, int], Columns]:
        """Solve what is not yet among the pieces; returns the ranges that an early end left unfinished."""
        unfinished: dict[tuple[int, int], Columns] = {}
        any_finite = False
        if isinstance(self.method, JointMethod):
            self._fit(self.method, pieces, control)
        for start, stop in self.ranges:
            name = range_name(start, stop)
            columns = pieces.get(name)
            if columns is None:
                if control.stopped and not isinstance(self.method, JointMethod):
                    unfinished[start, stop] = self._not_run(start, stop)
                    continue
                control.begin_range(start, len(self.dataset))
                columns = self._solve_range(start, stop, control)
                if control.stopped:
                    unfinished[start, stop] = columns
                else:
                    pieces.put(name, columns)
            any_finite = any_finite or bool((columns["status"] != Status.NONFINITE).any())
        if not any_finite and not unfinished:
            raise ModelError(self._nothing_finite())
        return unfinished

    def _fit(self, method: JointMethod, pieces: Pieces, control: Control) -> None:
        """Let a joint method see all examples; what it found is a piece of its own, so that it is not lost either."""
        rows = self.dataset.rows(0, len(self.dataset), self.x_shape)
        problem = self._problem(rows, self.dtype)
        kept = pieces.get("fit")
        if kept is None:
            exact = problem.in_float64(rows)
            initial = evaluate(exact, exact.x0, self.settings.batch_size, differentiate=False)
            if bool(torch.isinf(initial.loss).all()):
                raise ModelError(self._nothing_finite())
            control.begin_range(0, len(self.dataset))
            method.fit(problem, initial.objective.to(self.dtype), self._budget(), control)
            assert method.fitted is not None
            kept = method.fitted.to_columns() | {
                "loss_initial": initial.loss.cpu().numpy(),
                "evaluations": problem.evaluations.cpu().numpy(),
                "gradients": problem.gradients.cpu().numpy(),
            }
            if not control.stopped:
                pieces.put("fit", kept)
        method.fitted = RowResults.from_columns(kept, self.device)
        problem.evaluations.copy_(torch.from_numpy(kept["evaluations"]))
        problem.gradients.copy_(torch.from_numpy(kept["gradients"]))
        self._fitted_problem, self._loss_initial = problem, kept["loss_initial"]

    def _solve_range(self, start: int, stop: int, control: Control) -> Columns:
        """Columns of the examples start ≤ i < stop."""
        batch = self.settings.batch_size
        rows = self.dataset.rows(start, stop, self.x_shape)
        if self._fitted_problem is not None and self._loss_initial is not None:
            problem = self._fitted_problem.slice(start, stop)
            exact = problem.in_float64(rows)
            loss_initial = self._loss_initial[start:stop]
        else:
            problem = self._problem(rows, self.dtype)
            exact = problem.in_float64(rows)
            loss_initial = evaluate(exact, exact.x0, batch, differentiate=False).loss.cpu().numpy()
        results = self.method.solve(problem, problem.coordinates.to_solver(problem.x0), self._budget(), control)
        if self.refiner is not None and not control.stopped:
            results = _refine(self.refiner, problem, results, self._budget(), control)
        x = exact.coordinates.to_user(results.z.double())
        score = evaluate(exact, x, batch)
        status = results.status.masked_fill(torch.isinf(score.loss), int(Status.NONFINITE))
        more = self._extras(exact, x, score)  # before the counts are read
        return {
            "x": self._shaped(x),
            "loss": score.loss.cpu().numpy(),
            "loss_initial": loss_initial,
            "status": status.cpu().numpy(),
            "iterations": results.iterations.cpu().numpy(),
            "evaluations": problem.evaluations.cpu().numpy().copy(),
            "gradients": problem.gradients.cpu().numpy().copy(),
            "grad_norm": score.grad_norm.cpu().numpy(),
            "x_initial": self._shaped(exact.x0),
            "example": self._names(start, stop),
            **more,
        }

    def _extras(self, problem: Problem, x: torch.Tensor, score: Score) -> Columns:
        """The columns that only some runs have."""
        asked = self.settings.covariance
        return self._extra_columns(
            score.penalty,
            reduced_chi2(problem, score.loss) if problem.has_sigma else None,
            uncertainty(problem, x, score.loss, self.settings.batch_size) if asked else None,
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

    def _problem(self, rows: Rows, dtype: torch.dtype) -> Problem:
        return Problem(self.model, rows, self.x_shape, self.device, dtype, self.conduct, prior=self.settings.prior)

    def _not_run(self, start: int, stop: int) -> Columns:
        """Columns of examples that the run did not come to."""
        problem = self._problem(self.dataset.rows(start, stop, self.x_shape), torch.float64)
        zeros, unknown = np.zeros(stop - start, dtype=np.int64), np.full(stop - start, np.nan)
        return {
            "x": self._shaped(problem.x0),
            "loss": unknown,
            "loss_initial": unknown,
            "status": np.full(stop - start, int(Status.NOT_RUN), dtype=np.int8),
            "iterations": zeros,
            "evaluations": zeros,
            "gradients": zeros,
            "grad_norm": unknown,
            "x_initial": self._shaped(problem.x0),
            "example": self._names(start, stop),
            **self._extra_columns(
                torch.full_like(problem.targets[:, 0], torch.nan),
                torch.full_like(problem.targets[:, 0], torch.nan) if problem.has_sigma else None,
                Uncertainty.unknown(stop - start, problem.d) if self.settings.covariance else None,
            ),
        }

    def _blocks(self, pieces: Pieces, unfinished: Mapping[tuple[int, int], Columns]) -> Iterator[tuple[int, Columns]]:
        for start, stop in self.ranges:
            columns = unfinished.get((start, stop)) or pieces.get(range_name(start, stop))
            if columns is None:
                raise OutputError(f"the finished examples {start} to {stop - 1} were removed during the run; run again")
            yield start, columns

    def loss_true(self) -> np.ndarray | None:
        """Losses (n,) at x_true where the data hold it, for scoring; what they cost is no part of the run."""
        if self.dataset.x_true is None:
            return None
        losses = []
        for start, stop in self.ranges:
            problem = self._problem(self.dataset.rows(start, stop, self.x_shape), torch.float64)
            x = torch.from_numpy(np.asarray(self.dataset.x_true[start:stop], dtype=np.float64)).to(self.device)
            score = evaluate(problem, x.reshape(problem.x0.shape), self.settings.batch_size, differentiate=False)
            losses.append(score.loss.cpu().numpy())
        return np.concatenate(losses)

    def unobserved(self, solution: Solution) -> int:
        """How many of the nonfinite examples are so because nothing was observed."""
        count = 0
        for start, stop in self.ranges:
            lost = solution.status[start:stop] == Status.NONFINITE
            if lost.any():
                targets = np.asarray(self.dataset.targets[start:stop], dtype=np.float64)[lost]
                count += int(np.isnan(targets.reshape(len(targets), -1)).all(1).sum())
        return count

    def _shaped(self, x: torch.Tensor) -> np.ndarray:
        return x.cpu().numpy().reshape(len(x), *self.x_shape)

    def _names(self, start: int, stop: int) -> np.ndarray:
        names = self.dataset.names
        return np.arange(start, stop, dtype=np.int64) if names is None else np.asarray(names[start:stop], dtype=object)

    def _budget(self) -> Budget:
        most = self.settings.max_evaluations
        left = None if most is None else most - self._kept_back
        return Budget(left, self.settings.batch_size, refined=self.refiner is not None)

    @property
    def _kept_back(self) -> int:
        """Evaluations of each row that are left for the evaluator, and for the Jacobian where it is asked for."""
        d, m = math.prod(self.x_shape), math.prod(self.dataset.y_shape)
        return 1 + (jacobian_cost(d, m) if self.settings.covariance else 0)

    def _check_extras(self) -> None:
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
        least = LEAST_EVALUATIONS - 1 + self._kept_back
        if s.max_evaluations is not None and s.max_evaluations < least:
            raise OptionError(
                f"max_evaluations must be at least {least} here (scoring start and result takes two, the covariance "
                f"{self._kept_back - 1}), found {s.max_evaluations}"
            )

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

    def identity(self) -> dict[str, Any]:
        """What makes a run the same run, in JSON values."""
        s = self.settings
        return {
            "input_sha256": self.dataset.sha256(),
            "model": self.model.name,
            "model_sha256": self.model.source_sha256,
            "model_options": self.model.options.model_dump(mode="json"),
            "method": s.method,
            "method_options": self.method.options.model_dump(mode="json"),
            "refine": self.refiner.name if self.refiner else "none",
            "seed": s.seed,
            "dtype": s.dtype,
            "max_evaluations": "none" if s.max_evaluations is None else s.max_evaluations,
            "prior": s.prior,
            "covariance": s.covariance,
        }

    def attributes(self) -> dict[str, Any]:
        """The solution file's attributes but `seconds`."""
        return self.identity() | {
            "device": str(self.device),
            "versions": {
                "invsolve": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["invsolve", *sys.argv[1:]]) if sys.argv[:1] else "",
            "input": self.dataset.source or "",
        }

    def _check_out(self, out: Path, overwrite: bool, resume: bool) -> Solution | None:
        """See that `out` can be written; with `resume`, a run that is already complete is returned as it is."""
        check_writable(out, overwrite=True)
        if self.dataset.source is not None and out.exists() and out.samefile(self.dataset.source):
            raise OutputError(f"output {out} is the input; choose another --out")
        if resume and out.exists():
            found = read_solution(out)
            refuse_other_run(out, found.attributes, _as_stored(self.identity()))
            if not RunFolder.is_begun(out):
                return found
        check_writable(out, overwrite or resume)
        return None


class Memory:
    """Finished pieces of a run that writes no file."""

    def __init__(self) -> None:
        self._pieces: dict[str, Columns] = {}

    def put(self, name: str, columns: Columns) -> None:
        """Keep the columns of one finished piece of work."""
        self._pieces[name] = columns

    def get(self, name: str) -> Columns | None:
        """The columns kept under this name, or None."""
        return self._pieces.get(name)


Pieces = RunFolder | Memory


@contextlib.contextmanager
def _open_pieces(out: Path | None, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Pieces]:
    if out is None:
        yield Memory()
        return
    folder = RunFolder(out, identity, resume=resume, overwrite=overwrite)
    try:
        yield folder
    finally:
        folder.close()


def _refine(refiner: Method, problem: Problem, found: RowResults, budget: Budget, control: Control) -> RowResults:
    """Polish each row from where it is, and keep the better."""
    refined = refiner.solve(problem, found.z, budget, control)
    ran = refined.status != int(Status.NOT_RUN)
    better = refined.best <= found.best
    return RowResults(
        z=torch.where(better[:, None], refined.z, found.z),
        status=torch.where(ran, refined.status, found.status),
        iterations=found.iterations + refined.iterations,
        best=torch.minimum(refined.best, found.best),
    )


def _load_methods(settings: Settings) -> tuple[Method, Method | None]:
    """The method, and the row method that refines its solutions, if any."""
    method = load_method(settings.method, settings.method_options, seed=settings.seed)
    name = settings.refine or method.refines_with
    if name == "none":
        return method, None
    if not issubclass(method_class(name), RowMethod):
        raise OptionError(
            f"cannot refine with '{name}', which is no row method; use {', '.join(row_methods())} or none"
        )
    return method, load_method(name, {}, seed=settings.seed)


def row_methods() -> list[str]:
    """Names of the registered methods that solve each example on its own; only these can refine."""
    names = []
    for name in registered("methods"):
        with contextlib.suppress(OptionError):  # one that cannot be loaded is of no use here
            if issubclass(method_class(name), RowMethod):
                names.append(name)
    return names


def _as_stored(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity as the attributes of a solution file hold it."""
    return {k: json.dumps(v) if isinstance(v, dict) else v for k, v in identity.items()}
