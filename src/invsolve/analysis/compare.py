"""A method against a baseline, paired by example and seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from invsolve.analysis.rank_test import signed_rank
from invsolve.analysis.resampling import median_interval
from invsolve.analysis.summary import finite_or_none, median

OUTCOMES = {-1: "better", 0: "tied", 1: "worse"}


def pair_losses(loss: np.ndarray, baseline: np.ndarray, loss_initial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair the outcome −1 better, 0 tied, 1 worse, and the log10 ratio, which may be infinite.

    Better is L < 0.99·B − 10⁻⁹·L_initial, worse the reverse (contract, section 5); a nonfinite loss counts as +∞. In
    the ratio both losses are raised by 10⁻⁹·L_initial, so that exact zeros compare.
    """
    floor = 1e-9 * np.where(np.isfinite(loss_initial), loss_initial, 0.0)
    mine, theirs = (np.where(np.isfinite(v), v, np.inf) for v in (loss, baseline))
    better, worse = mine < 0.99 * theirs - floor, theirs < 0.99 * mine - floor
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log10(mine + floor) - np.log10(theirs + floor)
    ratio = np.where(np.isnan(ratio), 0.0, ratio)  # ∞/∞ and 0/0 are ties
    return worse.astype(np.int8) - better.astype(np.int8), ratio


def compare_losses(
    loss: np.ndarray, baseline: np.ndarray, loss_initial: np.ndarray, *, shared: bool = False
) -> dict[str, Any]:
    """Wins, ties and losses against the baseline's, the median log10 ratio with a 95 % interval, and a p-value.

    Losses are (K, n), of K seeds and n examples, or (n,). `shared` tells that the examples of a seed share parameters,
    such as a network's, of the method or of the baseline: they are no independent replicates, seeds are. Then the
    interval is over seeds too, and there is no p-value.
    """
    loss, baseline, loss_initial = np.broadcast_arrays(*map(np.atleast_2d, (loss, baseline, loss_initial)))
    outcome, ratio = pair_losses(loss, baseline, loss_initial)
    seeds, n = ratio.shape
    over_seeds = shared and seeds > 1
    one_for_all = bool((ratio == ratio[0]).all())  # then the copies are no more than the one
    interval = median_interval(ratio[:1] if one_for_all else ratio, over_seeds=over_seeds)
    told: dict[str, Any] = {name: int((outcome == code).sum()) for code, name in OUTCOMES.items()}
    told["log10_ratio"] = _three_numbers(median(ratio[0] if one_for_all else ratio), interval)
    if interval is None:
        told["interval"] = None
    else:
        told["interval"] = "hierarchical bootstrap over seeds and examples" if over_seeds else "bootstrap over examples"
    told["p_value"] = None if shared or n < 2 else signed_rank(_per_example(np.where(outcome == 0, 0.0, ratio)))
    if shared or n < 2:
        told["note"] = "one example" if n < 2 else "one seed" if seeds == 1 else f"{seeds} seeds"
    return told


def _per_example(ratio: np.ndarray) -> np.ndarray:
    """The median (n,) over the seeds of (K, n); where the two in the middle are −∞ and +∞, 0."""
    with np.errstate(invalid="ignore"):
        over_seeds = np.median(ratio, axis=0)
    return np.where(np.isnan(over_seeds), 0.0, over_seeds)


def _three_numbers(middle: float, interval: tuple[float, float] | None) -> dict[str, Any]:
    """Median and interval; JSON knows no infinity, so that it is null, and of which sign is told beside."""
    low, high = interval or (None, None)
    values = {"median": middle, "low": low, "high": high}
    told: dict[str, Any] = {name: None if v is None else finite_or_none(v) for name, v in values.items()}
    infinite = {name: 1 if v > 0 else -1 for name, v in values.items() if v is not None and np.isinf(v)}
    return told | ({"infinite": infinite} if infinite else {})
