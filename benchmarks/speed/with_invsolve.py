"""invsolve itself, as a user would call it: `invsolve.solve` of a dataset in memory."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from benchmarks.speed.works import Array, Arrays, Prepared, Work

import invsolve
from invsolve.registry import registered


def prepare(work: Work, arrays: Arrays, dtype: str = "float64", guess: bool = False, compile: str = "off") -> Prepared:
    """The whole solve, checking and scoring included; with `guess` the model makes x0 within the time taken."""
    told = {"compile_seconds": 0.0}
    torch.set_num_threads(1)
    method = work.method if work.method in registered("methods") else "bfgs"
    settings = known_settings(method=method, dtype=dtype, threads=1, compile=compile, batch_size="auto")

    def solve() -> Array:
        x0 = None if guess else arrays["x0"]
        data = invsolve.Dataset(
            arrays["targets"], arrays.get("identifiers"), x0, model=work.model, model_options=dict(work.model_options)
        )
        solution = invsolve.solve(data, **settings)
        told.update(solution.attributes)
        return solution.x

    note = f"{method} {dtype}" + (", compiled" if compile == "on" else "") + (", making x0 included" if guess else "")
    return Prepared(solve, note + (f" ({work.method} is not there yet)" if method != work.method else ""), cold=True,
        compiling=lambda: told["compile_seconds"],
    )  # fmt: skip


def known_settings(**settings: Any) -> dict[str, Any]:
    """Those that this version of `invsolve.solve` takes; "auto" only where its default is no number."""
    known = inspect.signature(invsolve.solve).parameters
    return {k: v for k, v in settings.items() if k in known and not (v == "auto" and isinstance(known[k].default, int))}
