"""What a forward model costs in one batched call: milliseconds per row, and the memory that its gradient keeps.

    OMP_NUM_THREADS=1 python -m benchmarks.models [MODEL ...] [--seeds K] [--first SEED] [--threads T] [--out TABLE.md]

At the true x rather than at the start, where a flow may still rest. Best of several calls, float64.
"""

from __future__ import annotations

import torch
from benchmarks.table import run_table

from invsolve.checks.speed import measure_speed
from invsolve.pipeline import generate
from invsolve.problem import Problem
from invsolve.registry import MODELS, load_model
from invsolve.shapes import solution_shape


def measure(name: str, seed: int) -> tuple[object, ...]:
    """One row of the table."""
    model, data = load_model(name), generate(name, 64, seed=seed)
    problem = Problem(model, data.rows(0, 64), solution_shape(model, data), torch.device("cpu"), torch.float64)
    problem.x0.copy_(torch.as_tensor(data.x_true).reshape(problem.x0.shape))
    one, some, many = measure_speed(problem)
    cells = [one.value_ms, some.value_ms, many.value_ms, one.gradient_ms, some.gradient_ms, many.gradient_ms]
    whole = 64 * (some.gradient_ms or 0) / 1000
    return (name, seed, *(_cell(c) for c in cells), f"{whole:.3g}", _cell(some.memory_mb), _cell(many.memory_mb))


def _cell(value: float | None) -> str:
    return "too slow" if value is None else f"{value:.3g}"


COLUMNS = (
    "model", "seed", "F, ms a row: 1", "64", "1024 rows", "with gradient: 1", "64", "1024 rows",
    "64 rows with gradient, s", "kept, MB: 64", "1024 rows",
)  # fmt: skip

if __name__ == "__main__":
    run_table(__doc__.splitlines()[0], COLUMNS, sorted(MODELS), measure, first=300)
