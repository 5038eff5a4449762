"""How many rows to evaluate together, and whether to compile the rounds: found by a short race, within memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invsolve.compilation import SECONDS_AT_LEAST, CompiledKernels
from invsolve.engine import Kernels, Rounds
from invsolve.errors import ModelError, OptionError
from invsolve.memory import available_memory, ran_out, release
from invsolve.methods.base import RowMethod
from invsolve.problem import Batch, Problem
from invsolve.settings import Settings

USUAL = 1024  # rows in a batch where there is no time for a race
SMALLEST = 256  # rows: below, the calls cost more than what they compute
LARGEST = 2**17
ROUNDS = 20  # that a row takes, about
_LONG = 0.3  # seconds: a batch that takes as long no longer suffers from the cost of calls
_PART_OF_MEMORY = 0.5  # of what is available, that a batch may take
_SAME_MEMORY = 2**30  # bytes that it may take where results are to depend on nothing, such as what happens to be free
_CACHED = 2**20  # bytes of targets that a compiled batch goes through at its best: what stays in a core's cache
_REFILLS = 4  # widths that a problem should fill: its last rows, in places that keep their number, are the fewer
_GAIN = 0.5  # of the time of a run, that compiling is taken to save


class Tuning:
    """What was found out for a run. `batch_size` rows are evaluated together; `notes` are for the user."""

    def __init__(
        self, settings: Settings, method: RowMethod | None, n: int, workers: int, group: int | None = None
    ) -> None:
        self.settings, self.method, self.n, self.workers = settings, method, n, workers
        # Where results are not to depend on them, the batch size and what pays at the moment are not followed.
        self.group = group
        self.asked = settings.batch_size if group is None else None
        self.batch_size = self.asked or min(USUAL, n)
        self.kernels: CompiledKernels | None = None
        self.compile_seconds = 0.0
        self.notes: list[str] = []
        self._done = False
        if group is not None and settings.batch_size is not None:
            self.notes.append(
                f"batch_size {settings.batch_size} was not followed: where results are to be deterministic, {group} "
                f"examples are solved together"
            )

    def find_out(self, problem: Problem, seconds_per_row: float) -> None:
        """Race and compile on the rows of the first problem, each evaluation of which took so long without gradient.

        What is computed for that is no part of the solution and not counted.

        Raises:
            OptionError: the batch size that was asked for does not fit into memory, or the method cannot be compiled.
            ModelError: the model does not compile, but is to be.
        """
        if self._done:
            return
        self._done = True
        most = self._fitting(problem)
        if self.method is None:
            self.batch_size = min(self.batch_size, most)
            return
        work = 3 * ROUNDS * seconds_per_row * self.n / self.workers
        if self.asked is None:
            self.batch_size = min(self.batch_size, most)
            race = self.group is None and self.settings.compile != "on"
            if race and problem.n >= 2 * USUAL and work > 2 * _LONG:
                self.batch_size, seconds_per_row = self._race(problem, min(most, problem.n))
                work = ROUNDS * seconds_per_row * self.n / self.workers
        if self.settings.compile == "on" or (self.settings.compile == "auto" and self.group is None):
            self._compile(problem, work, most)

    def shrink(self) -> bool:
        """Let half as many rows be solved together, not compiled, for memory ran out; False where it is one already."""
        if self.batch_size == 1:
            return False
        self.batch_size //= 2
        self.kernels = None
        return True

    def limit(self, rows: int) -> None:
        """Let at most so many rows be solved together, and nothing be tried out, for a process has died of more."""
        self.batch_size = max(1, min(self.batch_size, rows))
        self.kernels = None
        self._done = True

    def kernels_that_fit(self) -> CompiledKernels | None:
        """The compiled rounds, unless memory has run out for them."""
        if self.kernels is not None and self.kernels.too_large:
            self.notes.append(
                f"compiled rounds of {self.kernels.width} examples ran out of memory: the rest was not compiled"
            )
            self.kernels = None
        return self.kernels

    def _fitting(self, problem: Problem) -> int:
        """Rows that fit into memory together."""
        asked = min(self.asked or LARGEST, self.n)
        if asked * problem.targets.shape[1] < 2**20:  # a few hundred megabytes at worst
            return asked
        each = row_bytes(problem) + (self.method.row_bytes(problem.d, problem.dtype) if self.method else 0)
        if self.group is not None:
            return 1 << int(math.log2(max(1, min(asked, _SAME_MEMORY / each))))
        available = available_memory(problem.device)
        most = max(1, int(_PART_OF_MEMORY * available / each))
        if self.asked is not None and asked * each > available:
            raise OptionError(
                f"batch_size {self.asked}: {asked} rows of model '{problem.model.name}' take about "
                f"{asked * each / 1e9:.3g} GB, and {available / 1e9:.3g} GB are free; use {most} or less, or auto"
            )
        return asked if self.asked is not None else min(asked, most)

    def _race(self, problem: Problem, most: int) -> tuple[int, float]:
        """The batch size that took least time a row for a round, and that time."""
        best, least = self.batch_size, math.inf
        size = SMALLEST
        while size <= most:
            try:
                seconds = _seconds(self._round(problem, size, Kernels()), problem.device)
            except RuntimeError as error:  # no room for the places of so many
                if not ran_out(error) or size == SMALLEST:
                    raise
                break
            if problem.conduct.fitting.least is not None:  # more are evaluated in parts
                break
            if seconds / size < least:
                best, least = size, seconds / size
            if seconds > _LONG or seconds / size > 1.1 * least:
                break
            size *= 2
        return best, least

    def _round(self, problem: Problem, width: int, kernels: Kernels) -> Callable[[], Any]:
        assert self.method is not None
        stepper = self.method.stepper(problem)
        unlimited = torch.full_like(problem.evaluations, torch.iinfo(torch.int64).max)
        rounds = Rounds(stepper, problem, problem.coordinates.to_solver(problem.x0), unlimited, width, kernels)
        return lambda: kernels.advance(
            stepper, rounds.slots, kernels.evaluate(stepper, problem, rounds.batch, rounds.slots)
        )

    def _compile(self, problem: Problem, work: float, most: int) -> None:
        assert self.method is not None
        demanded = self.settings.compile == "on"
        reason = self.method.why_uncompiled(problem.d)
        if reason and demanded:
            raise OptionError(f"method '{self.method.name}' cannot be compiled: {reason}; leave --compile on out")
        affordable = math.inf if demanded else _GAIN * work / 3
        if reason or affordable < SECONDS_AT_LEAST:
            return
        width = min(self.asked or self.group or self._compiled_width(problem), self.n, most)
        kernels = CompiledKernels(width, affordable)
        compiled = self._round(problem, width, kernels)
        try:
            compiled()
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            kernels.too_large = True
        except ModelError as error:
            if demanded:
                raise ModelError(f"{error}; use --compile auto or off") from error
            self.notes.append(f"not compiled: {error}")
            return
        self.compile_seconds = kernels.seconds
        if kernels.too_large:
            release()
            self.notes.append(f"not compiled: there is not enough memory for compiled rounds of {width} examples")
            return
        if not demanded:
            plain = self._round(problem, self.batch_size, Kernels())
            rows = min(self.batch_size, problem.n)
            quick, slow = (_seconds(f, problem.device) / w for f, w in ((compiled, width), (plain, rows)))
            if quick > slow:
                self.notes.append("not compiled: the compiled rounds were no faster")
                return
        self.kernels, self.batch_size = kernels, width

    @staticmethod
    def _compiled_width(problem: Problem) -> int:
        row = problem.targets.shape[1] * problem.dtype.itemsize
        if problem.device.type != "cpu":
            return 16 * USUAL
        best = max(SMALLEST, min(_CACHED / row, problem.n / _REFILLS, 4 * USUAL))
        return 1 << round(math.log2(best))


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Of the fastest of a few calls, after one to warm up unless that took long already."""
    times: list[float] = []
    while len(times) < 4 and sum(times) < _LONG:
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:] or times)


def row_bytes(problem: Problem) -> int:
    """Memory that one row takes while F and its gradient are computed, about: what autograd keeps, twice."""
    rows = torch.arange(min(4, problem.n), device=problem.device)
    try:
        kept = kept_bytes(problem, problem.batch(rows), problem.x0[rows])
    except (Exception, SystemExit):  # rows that raise: they will be told of where they are solved
        return 0
    return 2 * (kept // len(rows) + 4 * problem.targets.shape[1] * problem.dtype.itemsize)


def kept_bytes(problem: Problem, batch: Batch, x: Tensor) -> int:
    """Bytes of the tensors that autograd keeps between F at x (b, d) and its gradient; not counted as an evaluation."""
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        problem.residual(batch, x.detach().requires_grad_()).square().sum()
    return sum(kept.values())
