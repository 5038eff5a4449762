"""How many examples each method solves, by what it may cost: data profiles and performance profiles."""

from __future__ import annotations

from typing import Any

import numpy as np

POINTS = 40
TOLERANCE = 1e-3  # of what could be gained, may be left of an example that counts as solved


def data_profile(costs: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Budgets (points,) and, of each method, the share (m, points) of problems that it solves within them.

    `costs` (m, p) is what m methods spent on p problems, +∞ where one is not solved (Moré and Wild 2009, eq. 2.8; in
    evaluations where theirs are in simplex gradients, for here gradients are known). Budgets are spaced by equal ratios
    and end where nothing more is solved.
    """
    finite = costs[np.isfinite(costs)]
    budgets = np.geomspace(finite.min(), finite.max(), points) if len(finite) else np.ones(points)
    shares = [np.searchsorted(np.sort(row), budgets, side="right") / costs.shape[1] for row in costs]
    return budgets, np.array(shares)


def performance_profile(costs: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Factors (points,) from 1 and the share (m, points) of problems solved at no more than so many times the least.

    The least is what the best method spent on the same problem, `costs` (m, p) > 0 as above (Dolan and Moré 2002). At
    factor 1 is the share on which a method is the cheapest; at the end, the share that it solves at all.
    """
    least = costs.min(0)
    ratios = np.full(costs.shape, np.inf)
    np.divide(costs, least, out=ratios, where=np.isfinite(costs))
    return data_profile(ratios, points)


def solved_enough(losses: np.ndarray, loss_initial: np.ndarray) -> np.ndarray:
    """Which of the losses (m, p) are within 10⁻³ of the way from the start's (p,) to the best of all methods.

    This is the test of Moré and Wild (2009, eq. 2.2), for problems whose solution is not known.
    """
    best = np.min(losses, axis=0, initial=np.inf)
    with np.errstate(invalid="ignore"):
        gain = np.maximum(np.where(np.isfinite(loss_initial), loss_initial, best) - best, 0.0)
        enough: np.ndarray = np.isfinite(losses) & (losses <= best + TOLERANCE * gain)
    return enough


def profiles(names: list[str], costs: np.ndarray, solved_by: str) -> dict[str, Any]:
    """Both profiles of the named methods as JSON values."""
    document: dict[str, Any] = {"solved_by": solved_by}
    for kind, axis, profile in (
        ("data", "evaluations", data_profile),
        ("performance", "ratio", performance_profile),
    ):
        at, shares = profile(costs)
        told = {name: row.tolist() for name, row in zip(names, shares, strict=True)}
        document[kind] = {axis: at.tolist(), "solved": told}
    return document
