"""Comparisons made of numbers alone, for what shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from invsolve.analysis.comparison import Comparison, Contender, Source, compared
from invsolve.data.solution import Solution


def solution(n: int, method: str, seed: int = 0, *, unknowns: int = 1, **changes: Any) -> Solution:
    """A solution of n examples with losses over many decades."""
    rng = np.random.default_rng([seed, sum(map(ord, method))])
    columns: dict[str, Any] = {
        "x": rng.normal(size=(n, unknowns)),
        "loss": 10 ** rng.uniform(-6, 2, n),
        "loss_initial": np.full(n, 120.0),
        "status": rng.choice([0, 1, 2], n).astype(np.int8),
        "iterations": rng.integers(1, 50, n),
        "evaluations": rng.integers(2, 400, n),
        "gradients": rng.integers(1, 300, n),
        "grad_norm": np.zeros(n),
        "x_initial": np.zeros((n, unknowns)),
        "example": np.arange(n),
        "attributes": {
            "method": method, "model": "wave-packet", "model_options": '{"samples": 8}', "seed": seed, "seconds": 1.5,
            "input": "data.h5", "input_sha256": "ab" * 32, "dtype": "float64", "device": "cpu", "prior": False,
            "versions": '{"invsolve": "0.1.0"}', "created": "2026-01-01T00:00:00+00:00",
            "command": f"invsolve solve data.h5 --method {method} --seed {seed}",
        },
        "parameters": [{"name": f"x{j}", "unit": "m" if j else ""} for j in range(unknowns)],
    }  # fmt: skip
    return Solution(**columns | changes)


def comparison(
    n: int,
    methods: tuple[str, ...] = ("bfgs", "gd"),
    seeds: tuple[int, ...] = (0,),
    source: Source | None = None,
    **changes: Any,
) -> Comparison:
    """Of these methods, the first of which is the baseline and draws nothing; the last shares a network."""
    contenders = {
        name: Contender(
            tuple(solution(n, name, seed, **changes) for seed in (seeds if i else seeds[:1])),
            shared=i > 0 and i == len(methods) - 1 and len(seeds) > 1,
            uses_seed=i > 0,
        )
        for i, name in enumerate(methods)
    }
    source = source or Source(missing="file data.h5 is gone", loss_true=np.full(n, 1e-3))
    return compared(contenders, methods[0], seeds, source)
