"""What the runs say, in numbers and in Markdown: who is better than the baseline, by how many examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.paper.experiments import BASELINE, CONTESTANTS
from benchmarks.paper.plan import Plan
from benchmarks.paper.runs import Result, Store
from benchmarks.table import as_markdown

from invsolve.analysis.compare import compare_losses

COLUMNS = (
    "model", "n", "method", "better than bfgs (min–max)", "worse", "solved (min–max)", "evaluations", "gradients",
    "seconds", "groups", "seeds",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A contestant with n examples solved together: shares of each seed (S,), and means of what it cost."""

    better: np.ndarray
    worse: np.ndarray
    solved: np.ndarray
    evaluations: float
    gradients: float
    seconds: float
    groups: int


class Report:
    """Reads the results that a plan asked for."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store

    def point(self, model: str, n: int, who: str) -> Point | None:
        """The seeds of which there are results, of the contestant and of the baseline."""
        found: list[tuple[Result, Result]] = []
        for seed in self.plan.seeds:
            result = self.store.done(self.plan.case(model, n, who, seed))
            baseline = self.store.done(self.plan.case(model, n, BASELINE, seed))
            if result is not None and baseline is not None:
                found.append((result, baseline))
        if not found:
            return None
        compared = [_against(result, baseline) for result, baseline in found]
        better, worse, solved = (np.array(each) for each in zip(*compared, strict=True))
        results = [result for result, _ in found]
        return Point(
            better, worse, solved,
            *(float(np.mean([getattr(r, name) for r in results])) for name in ("evaluations", "gradients", "seconds")),
            groups=self.plan.case(model, n, who, self.plan.seeds[0]).groups,
        )  # fmt: skip

    def table(self) -> str:
        """The Markdown table of what there is."""
        rows = []
        for model in self.plan.models:
            for n in self.plan.sizes_of(model):
                for who in CONTESTANTS:
                    is_joint = self.plan.case(model, n, who, 0).n == n
                    if is_joint and (point := self.point(model, n, who)) is not None:
                        rows.append(_row(model, n, who, point, len(point.better)))
        return as_markdown(COLUMNS, rows)

    def notes(self) -> str:
        """What the table does not show: refusals, failures, what has not been run, and by which code all is."""
        results = {case: self.store.get(case) for case in self.plan.cases()}
        lines = [
            f"- {r.outcome}: {case.who} on {case.model}, n = {case.n}, seed {case.seed}: {r.line}"
            for case, r in results.items()
            if r is not None and r.outcome != "done"
        ]
        missing = sum(r is None for r in results.values())
        lines += [f"- {missing} of {len(results)} runs asked for have not been made"] if missing else []
        codes = Counter(f"invsolve {r.commit} (code {r.code})" for r in results.values() if r is not None)
        lines += [f"- {times} runs by {code}" for code, times in codes.items()]
        lines.append(
            f"- {sum(r.seconds for r in results.values() if r is not None) / 60:.0f} minutes of solving in all"
        )
        return "\n".join(lines)


def _against(result: Result, baseline: Result) -> tuple[float, float, float]:
    """Shares better, worse and solved of the examples that the result is of, which are the baseline's first ones."""
    n = len(result.loss)
    found = compare_losses(result.losses, baseline.losses[:n], baseline.initial_losses[:n])
    return found["better"] / n, found["worse"] / n, result.solved


def _row(model: str, n: int, who: str, p: Point, seeds: int) -> Sequence[object]:
    better = "" if who == BASELINE else f"**{p.better.mean():.3f}** ({p.better.min():.3f}–{p.better.max():.3f})"
    worse = "" if who == BASELINE else f"{p.worse.mean():.3f}"
    solved = f"{p.solved.mean():.3f} ({p.solved.min():.3f}–{p.solved.max():.3f})"
    costs = [
        f"{p.evaluations:.0f}",
        f"{p.gradients:.0f}",
        f"{p.seconds:.3g}" if p.seconds < 100 else f"{p.seconds:.0f}",
    ]
    return (model, n, CONTESTANTS[who].label, better, worse, solved, *costs, p.groups, seeds)
