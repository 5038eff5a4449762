"""Methods against a baseline, paired by example."""

from __future__ import annotations

from typing import Any

import numpy as np

from invsolve.analysis.summary import finite_or_none, median

RESAMPLES = 1000


def compare_losses(loss: np.ndarray, baseline: np.ndarray, loss_initial: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Wins, ties and losses (n,) against the baseline's, and the median log10 ratio with a 95 % bootstrap interval.

    Better is L < 0.99·B − 10⁻⁹·L_initial, worse the reverse (contract, section 5); a nonfinite loss counts as +∞. In
    the ratio both losses are raised by 10⁻⁹·L_initial, so that exact zeros compare.
    """
    floor = 1e-9 * np.where(np.isfinite(loss_initial), loss_initial, 0.0)
    mine, theirs = (np.where(np.isfinite(v), v, np.inf) for v in (loss, baseline))
    better, worse = mine < 0.99 * theirs - floor, theirs < 0.99 * mine - floor
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log10(mine + floor) - np.log10(theirs + floor)
    ratio = np.where(np.isnan(ratio), 0.0, ratio)  # ∞/∞ and 0/0 are ties
    low, high = _bootstrap_median(ratio, seed)
    return {
        "better": int(better.sum()),
        "tied": int((~better & ~worse).sum()),
        "worse": int(worse.sum()),
        "log10_ratio": {
            "median": finite_or_none(median(ratio)),
            "low": finite_or_none(low),
            "high": finite_or_none(high),
        },
    }


def _bootstrap_median(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of the median over resampled examples."""
    rng = np.random.default_rng(seed)
    medians = [median(values[rng.integers(0, len(values), len(values))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    return float(low), float(high)
