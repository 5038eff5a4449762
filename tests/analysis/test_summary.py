"""The report of a solved batch: what is there is told, what is not is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import invsolve
from invsolve.analysis.summary import summarize, totals
from invsolve.console import show_solution
from invsolve.data.dataset import Dataset
from invsolve.data.solution import FoundBy, Solution


@pytest.fixture(name="solution")
def _solution() -> Solution:
    return invsolve.solve(Dataset(targets=np.ones((4, 1)), x0=np.zeros(1)), lambda x, identifiers: x)


def stages(solution: Solution, **more: Any) -> Solution:
    found = np.array([FoundBy.START, FoundBy.LOCAL, FoundBy.LOCAL, FoundBy.MULTISTART], dtype=np.int8)
    return replace(solution, found_by=found, starts=np.array([0, 8, 8, 16]), minima=np.array([0, 1, 2, 3]), **more)


def test_stages_are_told_where_there_are_any(solution: Solution) -> None:
    assert {"found_by", "starts", "minima"}.isdisjoint(summarize(solution, None, None))
    summary = summarize(stages(solution), None, None)
    assert summary["found_by"] == {"start": 1, "local": 2, "proposal": 0, "network": 0, "multistart": 1}
    assert summary["starts"] == totals(lambda: [np.array([0, 8, 8, 16])]) == {"total": 32, "mean": 8.0, "max": 16}
    assert summary["minima"]["mean"] == 1.5
    json.dumps(summary, allow_nan=False)


def test_stages_are_shown(solution: Solution, capsys: pytest.CaptureFixture[str]) -> None:
    show_solution(summarize(stages(solution), None, None))
    shown = capsys.readouterr().out
    for line in (
        "1 at their start",
        "2 found by a local solve from the example's own start",
        "1 found by a local solve from one of further starts",
        "8.0 starts per example, which led to 1.5 minima",
    ):
        assert line in shown
    show_solution(summarize(solution, None, None))
    assert "found by" not in capsys.readouterr().out
