"""How many examples each method solves, by what it may cost, and how their losses fall on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from invsolve.data.solution import HISTORY_EVALUATIONS

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
        enough: np.ndarray = np.isfinite(losses) & (losses <= mark_by_best(best, loss_initial))
    return enough


def mark_by_best(loss: np.ndarray, loss_initial: np.ndarray) -> np.ndarray:
    """The loss (p,) below which an example is solved of which the least known is `loss` (p,): see `solved_enough`."""
    gain = np.maximum(np.where(np.isfinite(loss_initial), loss_initial, loss) - loss, 0.0)
    mark: np.ndarray = loss + TOLERANCE * gain
    return mark


def first_solved(history: np.ndarray, mark: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """Evaluations (p,) by which each example was first known to be at its mark (p,) or below.

    `history` (p, K) as in `Solution`; `spent` (p,) is what was spent until the example ended, which is the answer also
    where rounding keeps its history above the mark.
    """
    # A history is rounded to float32, and a mark may be the very loss that it ended in.
    highest = np.nextafter(mark.astype(np.float32), np.float32(np.inf))
    reached = history <= highest[:, None]  # NaN is not
    at = reached.argmax(1)
    known = reached.any(1) & (at < len(HISTORY_EVALUATIONS) - 1)  # the last entry has no end
    return np.where(known, np.minimum(np.array(HISTORY_EVALUATIONS)[at], spent), spent)


def curves(histories: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """What is left of the first loss by so many evaluations: median and 10 to 90 % band over the examples.

    `histories` (p, K) of each method, as in `Solution`; each is taken relative to its first entry, the objective at x0.
    What is not known, or nothing can be held against, counts as +∞; nothing is dropped. A curve ends where no example
    changes any more.

    Returns:
        For each method `evaluations`, `median`, `low` and `high`, all (k,) with k ≤ K.
    """
    found = {}
    for name, history in histories.items():
        first = history[:, :1].astype(np.float64)
        left = np.full(history.shape, np.inf)
        np.divide(history, first, out=left, where=np.isfinite(history) & (first > 0))
        left[history == 0] = 0.0
        same = (left == left[:, -1:]).all(0)  # from the last change on
        end = int(same.argmax()) + 1
        # Between a number and infinity there is nothing to interpolate.
        low, median, high = np.quantile(
            left[:, :end], [0.1, 0.5, 0.9], axis=0, method="linear" if np.isfinite(left).all() else "higher"
        )
        at = np.array(HISTORY_EVALUATIONS[:end])
        found[name] = {"evaluations": at, "median": median, "low": low, "high": high}
    return found


def profiles(
    names: list[str], costs: np.ndarray, solved_by: str, *, cost: str, seconds: np.ndarray | None = None
) -> dict[str, Any]:
    """All profiles of the named methods as JSON values.

    Args:
        costs: (m, p) evaluations, +∞ where a problem is not solved.
        cost: what these are of, to be told.
        seconds: (m, p) likewise, where they are known.
    """
    document: dict[str, Any] = {"solved_by": solved_by, "cost": cost}
    kinds = [("data", "evaluations", data_profile, costs), ("performance", "ratio", performance_profile, costs)]
    if seconds is not None:
        kinds.append(("data_by_seconds", "seconds", data_profile, seconds))
    for kind, axis, profile, spent in kinds:
        at, shares = profile(spent)
        told = {name: row.tolist() for name, row in zip(names, shares, strict=True)}
        document[kind] = {axis: at.tolist(), "solved": told}
    return document
