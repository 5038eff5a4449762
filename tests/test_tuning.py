"""Batch sizes: raced where there is time, within memory; and when compiling is taken to pay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import invsolve
from invsolve import tuning
from invsolve.data.dataset import Dataset
from invsolve.engine import Kernels
from invsolve.methods.bfgs import Bfgs
from invsolve.models.base import FunctionModel
from invsolve.problem import Problem
from invsolve.settings import Settings
from invsolve.tuning import Tuning


def problem(n: int, m: int = 2) -> Problem:
    data = Dataset(targets=np.ones((n, m)), x0=np.zeros(m))
    model = FunctionModel(lambda x, identifiers: x, "f")
    return Problem(model, data.rows(0, n), (m,), torch.device("cpu"), torch.float64)


def tuned(n: int, cost: Callable[[int], float], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Tuning:
    """Tuning of n rows where a round of b rows takes `cost(b)` seconds."""
    monkeypatch.setattr(tuning, "_seconds", lambda call, device: call())
    monkeypatch.setattr(Tuning, "_round", lambda self, problem, width, kernels: lambda: cost(width))
    found = Tuning(Settings(compile="off", **settings), Bfgs(), n, workers=1)
    found.find_out(problem(n), seconds_per_row=1e-3)
    return found


def test_the_race_finds_the_fastest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls cost 1 ms, rows 1 µs up to 2048 of them, which stay in cache, and 3 µs beyond."""
    found = tuned(20_000, lambda b: 1e-3 + b * (1e-6 if b <= 2048 else 3e-6), monkeypatch)
    assert found.batch_size == 2048


def test_expensive_rows_are_not_raced_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cost(b: int) -> float:
        asked.append(b)
        return 1e-2 * b

    tuned(20_000, cost, monkeypatch)
    assert asked == [tuning.SMALLEST]


@pytest.mark.parametrize(("n", "batch_size", "expected"), [(500, None, 500), (20_000, 77, 77), (1500, None, 1024)])
def test_there_is_no_race_for_few_rows_or_a_given_size(
    n: int, batch_size: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(b: int) -> float:
        raise AssertionError("no race was due")

    assert tuned(n, cost, monkeypatch, batch_size=batch_size).batch_size == expected


def test_a_batch_that_cannot_fit_is_refused_and_auto_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "available_memory", lambda device: 2**24)
    data = Dataset(targets=np.zeros((5000, 300)), x0=np.zeros(300))
    model = lambda x, identifiers: x  # noqa: E731
    with pytest.raises(invsolve.OptionError, match=r"batch_size 5000: 5000 rows .* GB are free; use \d+ or less"):
        invsolve.solve(data, model, "gd", batch_size=5000)
    solution = invsolve.solve(data, model, "gd")
    assert solution.attributes["batch_size"] < 1024
    assert (solution.loss < 1e-9).all()


def test_memory_that_is_not_there_is_one_clear_line() -> None:
    def hungry(x: torch.Tensor, identifiers: None) -> torch.Tensor:
        torch.empty(2**50, dtype=torch.float64)
        return x

    data = Dataset(targets=np.zeros((4, 1)), x0=np.ones(1))
    with pytest.raises(invsolve.OptionError, match="memory for a single example .* use fewer --threads"):
        invsolve.solve(data, hungry)


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_impossible_batch_sizes_are_refused(value: str) -> None:
    with pytest.raises(invsolve.OptionError, match="batch_size must be auto, or from 1 to"):
        invsolve.solve(invsolve.generate("sine", 3), batch_size=value)


def test_compiling_waits_for_enough_work(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[float] = []
    monkeypatch.setattr(Tuning, "_round", lambda self, problem, width, kernels: lambda: compiled.append(width))
    monkeypatch.setattr(tuning, "_seconds", lambda call, device: call() or 1.0)
    for seconds, expected in ((1e-9, 0), (10.0, 1)):
        compiled.clear()
        found = Tuning(Settings(batch_size=64), Bfgs(), 1000, workers=1)
        found.find_out(problem(1000), seconds_per_row=seconds)
        assert bool(compiled) == expected
        assert (found.kernels is not None) == expected


def test_what_is_slower_compiled_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(self: Tuning, problem: Problem, width: int, kernels: Kernels) -> Callable[[], float]:
        return lambda: 1.0 if type(kernels) is Kernels else 2.0

    monkeypatch.setattr(Tuning, "_round", rounds)
    monkeypatch.setattr(tuning, "_seconds", lambda call, device: call())
    found = Tuning(Settings(batch_size=64), Bfgs(), 1000, workers=1)
    found.find_out(problem(1000), seconds_per_row=10.0)
    assert found.kernels is None
    assert found.notes == ["not compiled: the compiled rounds were no faster"]


def test_memory_that_is_available_is_told() -> None:
    assert 2**20 < tuning.available_memory(torch.device("cpu")) < math.inf
