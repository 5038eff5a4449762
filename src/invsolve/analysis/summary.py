"""One result object for a solved batch: what the table shows and the JSON holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from invsolve.analysis.quantile import Parts, quantile
from invsolve.data.json_text import json_object
from invsolve.data.solution import Identifiability, Solution, Solved, code_counts, parts


def summarize(solution: Solved, solved: float | None, out: str | None) -> dict[str, Any]:
    """The `solve --json` document (contract, section 5); `solved` is the fraction that is, where the truth is known."""

    def column(name: str) -> Parts:
        return lambda: parts(solution, name)

    there = solution.columns()
    summary: dict[str, Any] = {
        "schema": "invsolve-solve/1",
        "model": solution.attributes.get("model"),
        "method": solution.attributes.get("method"),
        "n": len(solution),
        "loss": quantiles(column("loss")),
        "loss_initial": quantiles(column("loss_initial")),
        "status": code_counts(solution, "status"),
        "evaluations": totals(column("evaluations")),
        "gradients": totals(column("gradients")),
        "seconds": solution.attributes.get("seconds"),
        "out": out,
    }
    summary |= {k: solution.attributes[k] for k in ("network", "network_written") if k in solution.attributes}
    if chosen := _chosen(solution.attributes.get("chosen")):
        summary["chosen"] = chosen
    if "loss_prior" in there:
        summary["loss_prior"] = quantiles(column("loss_prior"))
    if "reduced_chi2" in there:
        known = _known(column("reduced_chi2"))  # NaN where there are no degrees of freedom
        summary["reduced_chi2"] = quantiles(known) if any(len(part) for part in known()) else None
    if "std_error" in there:
        summary["uncertainty"] = _uncertainty(solution)
    if "found_by" in there:
        summary["found_by"] = code_counts(solution, "found_by")
    summary |= {name: totals(column(name)) for name in ("starts", "minima") if name in there}
    if solved is not None:
        summary["solved"] = solved
    return summary


def _chosen(told: Any) -> dict[str, dict[str, Any]]:
    """What a joint method chose, by stage; the attribute of a file, which anybody may have written, is JSON text."""
    if isinstance(told, str):
        told = json_object(told)
    stages = told.items() if isinstance(told, dict) else ()
    return {
        stage: {
            k: v for k, v in choices.items() if isinstance(v, str | int) or (v.__class__ is float and math.isfinite(v))
        }
        for stage, choices in stages
        if isinstance(choices, dict)
    }


def _uncertainty(solution: Solved) -> dict[str, Any]:
    """Of each component of x the median standard error, and how many examples have each kind of identifiability."""

    def component(name: str, j: int) -> Parts:
        return lambda: (rows.reshape(len(rows), -1)[:, j] for rows in parts(solution, name))

    d = math.prod(solution.rows("std_error", 0, 1).shape)
    names = [p["name"] for p in solution.parameters] or [f"x[{j}]" for j in range(d)]
    return {
        "condition_number": quantiles(lambda: parts(solution, "condition_number")),
        "parameters": {
            name: {"std_error": finite_or_none(median_of(component("std_error", j)))}
            | {
                kind.name.lower(): sum(int((rows == kind).sum()) for rows in component("identifiability", j)())
                for kind in Identifiability
            }
            for j, name in enumerate(names)
        },
    }


def median(values: np.ndarray) -> float:
    """An element of `values`, for infinities cannot be averaged; NaN is left out, and NaN where nothing is left."""
    return median_of(lambda: [values])


def median_of(column: Parts) -> float:
    """The same of a column in parts."""
    known = _known(column)
    return float(quantile(known, [0.5], "nearest")[0]) if any(len(part) for part in known()) else math.nan


def _known(column: Parts) -> Parts:
    return lambda: (part[~np.isnan(part)] for part in column())


def mark_by_truth(loss_true: np.ndarray, loss_initial: np.ndarray) -> np.ndarray:
    """The loss (n,) at which an example counts as solved: 1.05·L(x_true) + 10⁻³·L(x_initial) (contract, section 1)."""
    mark: np.ndarray = 1.05 * loss_true + 1e-3 * loss_initial
    return mark


def is_solved(solution: Solution, loss_true: np.ndarray) -> np.ndarray:
    """Which examples (n,) are solved: their loss is at the mark or below."""
    return are_solved(solution.loss, solution.loss_initial, loss_true)


def are_solved(loss: np.ndarray, loss_initial: np.ndarray, loss_true: np.ndarray) -> np.ndarray:
    """The same of some rows."""
    with np.errstate(invalid="ignore"):
        low = loss <= mark_by_truth(loss_true, loss_initial)
    solved: np.ndarray = low & np.isfinite(loss) & np.isfinite(loss_true)
    return solved


def quantiles(column: Parts) -> dict[str, float | None]:
    """Mean, median, 90 % quantile and maximum; NaN counts as +∞, and an infinite result is None."""

    def counted() -> Iterator[np.ndarray]:
        return (np.where(np.isnan(part), np.inf, part) for part in column())

    count, total, finite = 0, 0.0, True
    for part in counted():
        count, total, finite = count + len(part), total + float(part.sum()), finite and bool(np.isfinite(part).all())
    # Between a number and infinity there is nothing to interpolate.
    at = quantile(counted, [0.5, 0.9, 1.0], "linear" if finite else "higher")
    found = dict(zip(("mean", "median", "p90", "max"), (total / count, *at), strict=True))
    return {name: finite_or_none(value) for name, value in found.items()}


def totals(column: Parts) -> dict[str, float | int]:
    """Total, mean and maximum of a column of counts."""
    count, total, most = 0, 0, 0
    for part in column():
        count, total, most = count + len(part), total + int(part.sum()), max(most, int(part.max()))
    return {"total": total, "mean": total / count, "max": most}


def finite_or_none(value: float) -> float | None:
    """JSON knows no infinity."""
    return float(value) if math.isfinite(value) else None
