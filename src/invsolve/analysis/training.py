"""How trainings went, as solution files tell it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from invsolve.data.solution import Solution

MEASURED = {"proposals": "error", "training": "loss"}
"""What is measured in each stage of a training, see docs/methods.md."""
_MOST = 10_000  # points that are read


@dataclass(frozen=True)
class Course:
    """What was measured in one stage of a training."""

    evaluations: np.ndarray  # (p,) of each example so far, in the mean
    measured: np.ndarray  # (p,) NaN where it was not finite


def courses(solution: Solution) -> dict[str, Course]:
    """The stages of its attribute `training_curve`, which in a file may be anything: what is no curve is left out."""
    told = solution.attributes.get("training_curve")
    if isinstance(told, str):
        with contextlib.suppress(ValueError, RecursionError):
            told = json.loads(told)
    found = {}
    for stage, name in MEASURED.items():
        curve: Any = told.get(stage) if isinstance(told, dict) else None
        if isinstance(curve, dict):
            at, values = _numbers(curve.get("evaluations")), _numbers(curve.get(name))
            if len(at) == len(values) and np.isfinite(values).any():
                found[stage] = Course(at, values)
    return found


def _numbers(told: Any) -> np.ndarray:
    """A list of numbers, NaN where one is none."""
    if not isinstance(told, list) or len(told) > _MOST:
        return np.empty(0)
    known = [v if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in told]
    with contextlib.suppress(OverflowError):  # of an integer of any length
        return np.array(known, dtype=np.float64)
    return np.empty(0)
