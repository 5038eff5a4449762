"""A comparison repeated over subsets of the examples, or over budgets of evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from invsolve.analysis.compare import pair_losses
from invsolve.analysis.comparison import Comparison
from invsolve.analysis.summary import is_solved

Axis = Literal["examples", "budgets"]
_COLUMN: dict[Axis, str] = {"examples": "n", "budgets": "max_evaluations"}
_KEY: dict[Axis, str] = {"examples": "by_examples", "budgets": "by_budget"}


@dataclass(frozen=True)
class Study:
    """How methods fare by the number of examples, or by the evaluations that each example may take.

    Every point has the methods, the baseline and the seeds of the comparison that the study belongs to.
    """

    axis: Axis
    points: dict[int, Comparison]  # by n or max_evaluations, ascending
    not_run: tuple[int, ...]  # asked for, but the end came before all of their runs were done
    whole: int | None  # where the comparison that it belongs to is; None: evaluations are not limited there

    def to_json(self) -> dict[str, Any]:
        """What `compare --json` has of it: `by_examples` or `by_budget`, and `not_run`."""
        column = _COLUMN[self.axis]
        return {
            _KEY[self.axis]: [{column: at, "methods": point.methods} for at, point in self.points.items()],
            "not_run": list(self.not_run),
        }

    def better(self, name: str) -> np.ndarray:
        """Shares (points, seeds) of the examples for which a method is better than the baseline."""
        return np.array([_better(point, name) for point in self.points.values()])

    def solved(self, name: str) -> np.ndarray | None:
        """Shares (points, seeds) of the examples that a method solves; None where x_true is not known."""
        found = [_solved(point, name) for point in self.points.values()]
        return None if any(shares is None for shares in found) else np.array(found)

    def evaluations(self, name: str) -> np.ndarray:
        """Evaluations (points, seeds) that a method took, per example."""
        return np.array([p.contenders[name].column("evaluations", len(p.seeds)).mean(1) for p in self.points.values()])

    def rows(self, comparison: Comparison) -> Iterator[tuple[Any, ...]]:
        """`Comparison.rows` of all points, and of the comparison that they belong to where it is none of them.

        First in each row is where on the axis it is, empty where evaluations are not limited.
        """
        points: dict[int | None, Comparison] = dict(self.points.items())
        points.setdefault(self.whole, replace(comparison, study=None))
        for i, (place, point) in enumerate(points.items()):
            rows = point.rows()
            header = next(rows)
            if i == 0:
                yield (_COLUMN[self.axis], *header)
            yield from (("" if place is None else place, *row) for row in rows)


def _better(comparison: Comparison, name: str) -> np.ndarray:
    seeds, c = len(comparison.seeds), comparison.contenders
    mine, theirs = (c[who].column("objective", seeds) for who in (name, comparison.baseline))
    outcome, _ = pair_losses(mine, theirs, c[name].column("loss_initial", seeds))
    shares: np.ndarray = (outcome == -1).mean(1)
    return shares


def _solved(comparison: Comparison, name: str) -> np.ndarray | None:
    if comparison.loss_true is None:
        return None
    shares = [is_solved(run, comparison.loss_true).mean() for run in comparison.contenders[name].runs]
    return np.broadcast_to(shares, len(comparison.seeds))
