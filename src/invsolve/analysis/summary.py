"""One result object for a solved batch: what the table shows and the JSON holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from invsolve.data.json_text import json_object
from invsolve.data.solution import FoundBy, Identifiability, Solution


def summarize(solution: Solution, loss_true: np.ndarray | None, out: str | None) -> dict[str, Any]:
    """The `solve --json` document (contract, section 5); `loss_true` (n,) are the losses at x_true where known."""
    summary: dict[str, Any] = {
        "schema": "invsolve-solve/1",
        "model": solution.attributes.get("model"),
        "method": solution.attributes.get("method"),
        "n": len(solution),
        "loss": quantiles(solution.loss),
        "loss_initial": quantiles(solution.loss_initial),
        "status": solution.status_counts(),
        "evaluations": totals(solution.evaluations),
        "gradients": totals(solution.gradients),
        "seconds": solution.attributes.get("seconds"),
        "out": out,
    }
    summary |= {k: solution.attributes[k] for k in ("network", "network_written") if k in solution.attributes}
    if chosen := _chosen(solution.attributes.get("chosen")):
        summary["chosen"] = chosen
    if solution.loss_prior is not None:
        summary["loss_prior"] = quantiles(solution.loss_prior)
    if solution.reduced_chi2 is not None:
        known = solution.reduced_chi2[~np.isnan(solution.reduced_chi2)]  # NaN where there are no degrees of freedom
        summary["reduced_chi2"] = quantiles(known) if len(known) else None
    if solution.std_error is not None:
        summary["uncertainty"] = _uncertainty(solution)
    if solution.found_by is not None:
        summary["found_by"] = {kind.name.lower(): int((solution.found_by == kind).sum()) for kind in FoundBy}
    for name in ("starts", "minima"):
        counts = getattr(solution, name)
        if counts is not None:
            summary[name] = totals(counts)
    if loss_true is not None:
        summary["solved"] = float(is_solved(solution, loss_true).mean())
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


def _uncertainty(solution: Solution) -> dict[str, Any]:
    """Of each component of x the median standard error, and how many examples have each kind of identifiability."""
    assert solution.std_error is not None
    assert solution.identifiability is not None
    assert solution.condition_number is not None
    errors, flags = (a.reshape(len(solution), -1) for a in (solution.std_error, solution.identifiability))
    names = [p["name"] for p in solution.parameters] or [f"x[{j}]" for j in range(errors.shape[1])]
    return {
        "condition_number": quantiles(solution.condition_number),
        "parameters": {
            name: {"std_error": finite_or_none(median(errors[:, j]))}
            | {kind.name.lower(): int((flags[:, j] == kind).sum()) for kind in Identifiability}
            for j, name in enumerate(names)
        },
    }


def median(values: np.ndarray) -> float:
    """An element of `values`, for infinities cannot be averaged; NaN is left out, and NaN where nothing is left."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, 0.5, method="nearest")) if len(known) else math.nan


def mark_by_truth(loss_true: np.ndarray, loss_initial: np.ndarray) -> np.ndarray:
    """The loss (n,) at which an example counts as solved: 1.05·L(x_true) + 10⁻³·L(x_initial) (contract, section 1)."""
    mark: np.ndarray = 1.05 * loss_true + 1e-3 * loss_initial
    return mark


def is_solved(solution: Solution, loss_true: np.ndarray) -> np.ndarray:
    """Which examples (n,) are solved: their loss is at the mark or below."""
    with np.errstate(invalid="ignore"):
        low = solution.loss <= mark_by_truth(loss_true, solution.loss_initial)
    solved: np.ndarray = low & np.isfinite(solution.loss) & np.isfinite(loss_true)
    return solved


def quantiles(values: np.ndarray) -> dict[str, float | None]:
    """Mean, median, 90 % quantile and maximum; NaN counts as +∞, and an infinite result is None."""
    values = np.where(np.isnan(values), np.inf, values)
    # Between a number and infinity there is nothing to interpolate.
    at = np.quantile(values, [0.5, 0.9, 1.0], method="linear" if np.isfinite(values).all() else "higher")
    found = dict(zip(("mean", "median", "p90", "max"), (values.mean(), *at), strict=True))
    return {name: finite_or_none(value) for name, value in found.items()}


def totals(counts: np.ndarray) -> dict[str, float | int]:
    """Total, mean and maximum of a column of counts."""
    return {"total": int(counts.sum()), "mean": float(counts.mean()), "max": int(counts.max())}


def finite_or_none(value: float) -> float | None:
    """JSON knows no infinity."""
    return float(value) if math.isfinite(value) else None
